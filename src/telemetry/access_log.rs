//! The access line: what the log says of one request.
//!
//! It is written by hand into a buffer that each thread keeps, past events and their visitors, since it is the one line that costs
//! every request something. The names are those of OpenTelemetry's semantic conventions where these have one.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tracing::{Level, enabled};

use super::{
    logging::{self, Format},
    text_format::{EscapeControl, write_time_of_day},
};

/// The target of access lines.
const TARGET: &str = "finicity_proxy::access";

/// The initial capacity of the buffer. A typical line has about 500 bytes.
const TYPICAL_LINE_BYTES: usize = 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(TYPICAL_LINE_BYTES));
    /// The second of the last line, since the Unix epoch, and its text up to the decimal point.
    static CACHED_SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// One request, when it has ended. What does not apply is `None`, and is left out.
#[derive(Clone, Debug)]
pub struct AccessLine<'a> {
    /// The method, if it is a registered one.
    pub method: &'a str,
    /// The path template of the catalogue, or `other`.
    pub route: &'static str,
    /// The leading segments of a path without a route, as far as templates of the catalogue begin with them.
    pub path_prefix: Option<&'static str>,
    /// What the caller's connection runs over: `tcp` or `unix`.
    pub transport: &'static str,
    /// The status that the caller got.
    pub status: Option<u16>,
    /// The status of the upstream's first answer.
    pub upstream_status: Option<u16>,
    /// Why the operator's policy denies it, enforced or not.
    pub policy_denial: Option<&'static str>,
    /// The vendor's error code: a number or a word that is known.
    pub vendor_code: Option<&'a str>,
    /// How the answer ended.
    pub outcome: &'static str,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
    /// Of that, the time until there was a place among the requests in flight.
    pub queue_wait: Option<Duration>,
    /// Of that, the time until there was a token.
    pub token_wait: Option<Duration>,
    /// Of that, the time from the sending of the request to the head of the upstream's answer.
    pub first_byte: Option<Duration>,
    /// The size of the request's body, as far as it went.
    pub request_bytes: u64,
    /// The size of the answer's body, as far as it went.
    pub response_bytes: u64,
    /// The request's id.
    pub request_id: &'a str,
    /// The version of the token that was sent.
    pub token_version: Option<u64>,
    /// Whether the connection to the upstream had served before.
    pub connection_reused: Option<bool>,
    /// Whether the request was sent once more with another token.
    pub replayed: bool,
    /// Whether it was sent once more over another connection.
    pub retried: bool,
    /// Whether the proxy answered by itself with 5xx, so that the line is a warning.
    pub is_own_failure: bool,
    /// What was wrong: the code of the proxy's own answer, or the upstream's status.
    pub error: Option<&'a str>,
    /// What caused it.
    pub cause: Option<&'a str>,
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    /// One of the words of this program, which needs no escape in either format.
    Keyword(&'static str),
    Text(&'a str),
    Number(u64),
    Milliseconds(Duration),
    Flag(bool),
}

impl AccessLine<'_> {
    /// Writes the line, if its level is enabled. Never waits.
    #[expect(clippy::disallowed_methods, reason = "the time that a line shows")]
    pub fn log(&self) {
        let is_enabled = if self.is_own_failure {
            enabled!(target: TARGET, Level::WARN)
        } else {
            enabled!(target: TARGET, Level::INFO)
        };
        if !is_enabled {
            return;
        }
        logging::with_log(|writer, format| {
            BUFFER.with_borrow_mut(|line| {
                line.clear();
                self.write(format, SystemTime::now(), line);
                writer.append(line);
            });
        });
    }

    fn write(&self, format: Format, now: SystemTime, line: &mut Vec<u8>) {
        // Writing to memory does not fail.
        match format {
            Format::Json => {
                line.extend_from_slice(br#"{"timestamp":""#);
                write_time(now, line);
                let level = if self.is_own_failure { "WARN" } else { "INFO" };
                let _ = write!(line, r#"","level":"{level}","target":"{TARGET}","message":"request""#);
                self.fields(|name, value| {
                    line.extend_from_slice(b",\"");
                    line.extend_from_slice(name.as_bytes());
                    line.extend_from_slice(b"\":");
                    value.write_json(line);
                });
                line.extend_from_slice(b"}\n");
            }
            Format::Human => self.write_compact(now, line),
        }
    }

    /// The line for a person: `13:04:23 GET /aggregation/v1/customers 200 8.8ms upstream=7.9ms id=…`. Of the other fields, those that
    /// are out of the ordinary.
    fn write_compact(&self, now: SystemTime, line: &mut Vec<u8>) {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut time = String::with_capacity(8);
        let _ = write_time_of_day(seconds, &mut time);
        line.extend_from_slice(time.as_bytes());
        line.push(b' ');
        if self.is_own_failure {
            line.extend_from_slice(b"WARN ");
        }
        let _ = write!(line, "{} {} ", self.method, self.route);
        match self.status {
            Some(status) => write_number(status.into(), 3, line),
            None => line.push(b'-'),
        }
        line.push(b' ');
        write_milliseconds(self.duration, line);
        let durations = [("upstream", self.first_byte), ("queue", self.queue_wait), ("token", self.token_wait)];
        for (name, duration) in durations {
            if let Some(duration) = duration {
                let _ = write!(line, " {name}=");
                write_milliseconds(duration, line);
            }
        }
        let text = |name, text: Option<&'_ str>, line: &mut Vec<u8>| {
            if let Some(text) = text {
                let _ = write!(line, " {name}=");
                Value::Text(text).write_human(line);
            }
        };
        text("outcome", Some(self.outcome).filter(|outcome| *outcome != "complete"), line);
        text("error", self.error, line);
        text("cause", self.cause, line);
        text("vendor_code", self.vendor_code, line);
        text("policy", self.policy_denial, line);
        text("path", self.path_prefix, line);
        if let Some(status) = self.upstream_status.filter(|status| Some(*status) != self.status) {
            let _ = write!(line, " upstream_status={status}");
        }
        for (name, applies) in [(" replayed", self.replayed), (" retried", self.retried)] {
            line.extend_from_slice(if applies { name.as_bytes() } else { b"" });
        }
        text("id", Some(self.request_id), line);
        line.push(b'\n');
    }

    fn fields(&self, mut write_field: impl FnMut(&'static str, Value<'_>)) {
        use Value::{Flag, Keyword, Milliseconds, Number, Text};

        let mut optional = |name, value: Option<Value<'_>>| {
            if let Some(value) = value {
                write_field(name, value);
            }
        };
        let number = |number: Option<u16>| number.map(|number| Number(number.into()));
        let resends = u64::from(self.replayed) + u64::from(self.retried);
        optional("http.request.method", Some(Text(self.method)));
        optional("http.route", Some(Keyword(self.route)));
        optional("url.path_prefix", self.path_prefix.map(Keyword));
        optional("http.response.status_code", number(self.status));
        optional("outcome", Some(Keyword(self.outcome)));
        optional("error.type", self.error.map(Text));
        optional("error.message", self.cause.map(Text));
        optional("duration_ms", Some(Milliseconds(self.duration)));
        optional("queue_ms", self.queue_wait.map(Milliseconds));
        optional("token_wait_ms", self.token_wait.map(Milliseconds));
        optional("upstream.first_byte_ms", self.first_byte.map(Milliseconds));
        optional("upstream.status_code", number(self.upstream_status));
        optional("policy.denial", self.policy_denial.map(Keyword));
        optional("upstream.error_code", self.vendor_code.map(Text));
        optional("upstream.connection_reused", self.connection_reused.map(Flag));
        optional("http.request.body.size", Some(Number(self.request_bytes)));
        optional("http.response.body.size", Some(Number(self.response_bytes)));
        optional("http.request.resend_count", Some(resends).filter(|resends| *resends > 0).map(Number));
        optional("replayed", self.replayed.then_some(Flag(true)));
        optional("retried", self.retried.then_some(Flag(true)));
        optional("token.version", self.token_version.map(Number));
        optional("network.transport", Some(Keyword(self.transport)));
        optional("request_id", Some(Text(self.request_id)));
    }
}

impl Value<'_> {
    fn write_json(self, line: &mut Vec<u8>) {
        match self {
            Self::Keyword(text) => {
                debug_assert!(needs_no_escape(text));
                quote(text, line);
            }
            Self::Text(text) if needs_no_escape(text) => quote(text, line),
            Self::Text(text) => serde_json::to_writer(line, text).expect("writing to memory does not fail"),
            other => other.write_unquoted(line),
        }
    }

    fn write_human(self, line: &mut Vec<u8>) {
        match self {
            Self::Text(text) if needs_no_escape(text) && !text.contains(' ') => line.extend_from_slice(text.as_bytes()),
            Self::Text(text) => {
                let mut escaped = String::new();
                let _ = write!(EscapeControl(&mut escaped), "{text:?}");
                line.extend_from_slice(escaped.as_bytes());
            }
            other => other.write_unquoted(line),
        }
    }

    fn write_unquoted(self, line: &mut Vec<u8>) {
        match self {
            Self::Keyword(text) => {
                debug_assert!(needs_no_escape(text) && !text.contains(' '));
                line.extend_from_slice(text.as_bytes());
            }
            Self::Text(_) => unreachable!("text is written in quotes"),
            Self::Number(number) => write_number(number, 1, line),
            // To the microsecond.
            Self::Milliseconds(duration) => {
                let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
                write_number(micros / 1000, 1, line);
                line.push(b'.');
                write_number(micros % 1000, 3, line);
            }
            Self::Flag(flag) => line.extend_from_slice(if flag { b"true" } else { b"false" }),
        }
    }
}

/// Writes `text`, which needs no escape, as a JSON string.
fn quote(text: &str, line: &mut Vec<u8>) {
    line.push(b'"');
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

/// Whether `text` can be written as it is, in a JSON string and in the text format.
fn needs_no_escape(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
}

/// Writes `duration` to the tenth of a millisecond.
fn write_milliseconds(duration: Duration, line: &mut Vec<u8>) {
    let tenths = u64::try_from((duration.as_micros() + 50) / 100).unwrap_or(u64::MAX);
    write_number(tenths / 10, 1, line);
    let _ = write!(line, ".{}ms", tenths % 10);
}

/// Writes `now` in RFC 3339 format, to the microsecond. Consecutive lines mostly share a second, so its text is kept.
fn write_time(now: SystemTime, line: &mut Vec<u8>) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    CACHED_SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            text.clear();
            let _ = write!(text, "{}", humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(*second)));
            text.pop();
        }
        line.extend_from_slice(text.as_bytes());
    });
    line.push(b'.');
    write_number(since.subsec_micros().into(), 6, line);
    line.push(b'Z');
}

/// Writes `number` in decimal, padded with zeros to `min_digits`.
fn write_number(mut number: u64, min_digits: usize, line: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while number > 0 || digits.len() - start < min_digits {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    line.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn line() -> AccessLine<'static> {
        AccessLine {
            method: "GET",
            route: "other",
            path_prefix: None,
            transport: "tcp",
            status: None,
            upstream_status: None,
            policy_denial: None,
            vendor_code: None,
            outcome: "aborted",
            duration: Duration::from_micros(1_002_003),
            queue_wait: None,
            token_wait: None,
            first_byte: None,
            request_bytes: 0,
            response_bytes: u64::MAX,
            request_id: "id-1",
            token_version: None,
            connection_reused: None,
            replayed: false,
            retried: false,
            is_own_failure: false,
            error: None,
            cause: None,
        }
    }

    fn written(line: &AccessLine<'_>, format: Format) -> String {
        let mut bytes = Vec::new();
        line.write(format, UNIX_EPOCH + Duration::from_nanos(1_500_000_000_123_456_789), &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn fields_that_do_not_apply_are_left_out() {
        let text = written(&line(), Format::Json);
        assert!(text.ends_with("}\n"));
        let parsed: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            parsed,
            json!({
                "timestamp": "2017-07-14T02:40:00.123456Z",
                "level": "INFO",
                "target": "finicity_proxy::access",
                "message": "request",
                "http.request.method": "GET",
                "http.route": "other",
                "outcome": "aborted",
                "duration_ms": 1002.003,
                "http.request.body.size": 0,
                "http.response.body.size": u64::MAX,
                "network.transport": "tcp",
                "request_id": "id-1",
            })
        );
    }

    #[test]
    fn every_field_is_written_where_it_applies() {
        let line = AccessLine {
            path_prefix: Some("/aggregation/*"),
            status: Some(502),
            upstream_status: Some(401),
            policy_denial: Some("not_allowed"),
            vendor_code: Some("10023"),
            queue_wait: Some(Duration::from_micros(7)),
            token_wait: Some(Duration::ZERO),
            first_byte: Some(Duration::from_millis(20)),
            token_version: Some(7),
            connection_reused: Some(true),
            replayed: true,
            retried: true,
            error: Some("upstream_unreachable"),
            cause: Some("a \"cause\"\n\u{1b}[31m"),
            ..line()
        };
        let parsed: Json = serde_json::from_str(&written(&line, Format::Json)).unwrap();
        for (name, value) in [
            ("url.path_prefix", json!("/aggregation/*")),
            ("http.response.status_code", json!(502)),
            ("upstream.status_code", json!(401)),
            ("policy.denial", json!("not_allowed")),
            ("upstream.error_code", json!("10023")),
            ("queue_ms", json!(0.007)),
            ("token_wait_ms", json!(0.0)),
            ("upstream.first_byte_ms", json!(20.0)),
            ("token.version", json!(7)),
            ("upstream.connection_reused", json!(true)),
            ("http.request.resend_count", json!(2)),
            ("replayed", json!(true)),
            ("retried", json!(true)),
            ("error.type", json!("upstream_unreachable")),
            ("error.message", json!("a \"cause\"\n\u{1b}[31m")),
        ] {
            assert_eq!(parsed[name], value, "{name}");
        }
        let text = written(&AccessLine { is_own_failure: true, ..line }, Format::Human);
        let cause = r#""a \"cause\"\n\u{1b}[31m""#;
        let expected = format!(
            "02:40:00 WARN GET other 502 1002.0ms upstream=20.0ms queue=0.0ms token=0.0ms outcome=aborted error=upstream_unreachable \
             cause={cause} vendor_code=10023 policy=not_allowed path=/aggregation/* upstream_status=401 replayed retried id=id-1\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_line_for_a_person_is_short() {
        let line = AccessLine {
            route: "/aggregation/v1/customers",
            status: Some(200),
            upstream_status: Some(200),
            outcome: "complete",
            duration: Duration::from_micros(8_790),
            first_byte: Some(Duration::from_micros(7_949)),
            ..line()
        };
        let expected = "02:40:00 GET /aggregation/v1/customers 200 8.8ms upstream=7.9ms id=id-1\n";
        assert_eq!(written(&line, Format::Human), expected);
        let failed = written(&AccessLine { is_own_failure: true, ..line }, Format::Json);
        assert!(failed.contains(r#""level":"WARN""#), "{failed}");
    }

    #[test]
    fn each_line_has_its_own_time() {
        for (nanos, written) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (999_999_999, "1970-01-01T00:00:00.999999Z"),
            (951_782_399_000_001_000, "2000-02-28T23:59:59.000001Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_000_000_000, "1970-01-01T00:00:01.000000Z"),
        ] {
            let mut text = Vec::new();
            write_time(UNIX_EPOCH + Duration::from_nanos(nanos), &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), written);
        }
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 1, 9, 10, 999, 1000, u64::MAX] {
            let mut text = Vec::new();
            write_number(number, 1, &mut text);
            assert_eq!(text, number.to_string().as_bytes());
        }
    }
}
