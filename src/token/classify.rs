//! What the token endpoint's answer means: a token, or a class of failure that says what to do next.
//!
//! Pure functions on the answer's parts. The body is judged before the status, since the vendor reports a locked account as
//! a 500 (its error 24302) and some OAuth servers report an error with a 200. Nothing of a body is ever kept but a code
//! that is known ([`vendor`]), so no failure can carry a secret into a log.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::{secret::Secret, vendor};

/// The answer of a token endpoint, read whole.
pub struct Answer<'a> {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The body, or `None` when it was larger than the limit.
    pub body: Option<&'a [u8]>,
}

/// Status and sizes only: the body holds the token, and headers may hold anything.
impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.map(<[u8]>::len);
        f.debug_struct("Answer").field("status", &self.status).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// A new token, as the endpoint gave it.
#[derive(Debug)]
pub struct Minted {
    /// The token: visible ASCII that is legal in a header.
    pub token: Secret<String>,
    /// Its lifetime, counted from the request, where the answer names one.
    pub expires_in: Option<Duration>,
    /// Whether the answer left out `token_type`, which RFC 6749 requires.
    pub untyped: bool,
}

/// The kinds of failure, by what can be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The credentials are wrong. Trying them again only brings the lock-out nearer.
    Rejected,
    /// The request as configured is wrong, or the vendor's side is: somebody has to look.
    Config,
    /// Too many requests.
    Throttled,
    /// A passing fault of the network or the server.
    Transient,
    /// The server's certificate does not verify.
    Certificate,
    /// A redirect, which is never followed with credentials.
    Redirect,
    /// A success status without a usable token.
    Malformed,
}

impl Class {
    /// Every class, for tables.
    pub const ALL: [Self; 7] = [
        Self::Rejected,
        Self::Config,
        Self::Throttled,
        Self::Transient,
        Self::Certificate,
        Self::Redirect,
        Self::Malformed,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Config => "config",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Certificate => "certificate",
            Self::Redirect => "redirect",
            Self::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known about a token request that obtained no token: whether the vendor can have counted it as a failed
/// authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// No byte of the request was sent: DNS, connect, egress tunnel or TLS handshake failed.
    NotSent,
    /// A complete response was received.
    Responded,
    /// The request may have been processed: there was no complete response.
    Unknown,
}

/// A token call that brought no token.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What can be done about it.
    pub class: Class,
    /// What is known about the request.
    pub disposition: Disposition,
    /// What was wrong, in words of this program.
    pub reason: &'static str,
    /// The answer's status, where there was an answer.
    pub status: Option<StatusCode>,
    /// The vendor's error code or the OAuth error, where a known one was found.
    pub code: Option<String>,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
    /// Whether the body was JSON.
    pub readable: bool,
}

impl Failure {
    /// A failure without a response, of which nothing is known: [`Disposition::Unknown`].
    pub fn new(class: Class, reason: &'static str) -> Self {
        let disposition = Disposition::Unknown;
        Self { class, disposition, reason, status: None, code: None, retry_after: None, readable: true }
    }

    /// The same with a known disposition.
    #[must_use]
    pub fn with_disposition(self, disposition: Disposition) -> Self {
        Self { disposition, ..self }
    }

    /// Whether the server has decided against the call, as opposed to having failed at it.
    pub fn is_verdict(&self) -> bool {
        matches!(self.class, Class::Rejected | Class::Config | Class::Throttled | Class::Redirect)
    }

    /// Whether the response says nothing that could be acted on: a success without a usable token, or a server error with an
    /// unreadable body. 502, 503 and 504 do not count: a gateway sends them without the vendor's body whenever the server behind
    /// it is away, and that passes.
    pub fn is_unusable(&self) -> bool {
        let unreadable =
            |status: StatusCode| !self.readable && status.is_server_error() && !(502..=504).contains(&status.as_u16());
        self.class == Class::Malformed || (self.class == Class::Transient && self.status.is_some_and(unreadable))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)?;
        if let Some(status) = self.status {
            write!(f, " (status {})", status.as_u16())?;
        }
        if let Some(code) = &self.code {
            write!(f, " (code {code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What `answer` means. `token_field` is the member that holds the token; `now` is the wall clock, for an HTTP-date in
/// `Retry-After`.
///
/// # Errors
///
/// The first class that fits, in the order: rejected by what the body says, rejected by 401, configuration, throttled,
/// transient, redirect, malformed.
pub fn classify(answer: &Answer<'_>, token_field: &str, now: SystemTime) -> Result<Minted, Failure> {
    let status = answer.status;
    let encoded = answer.headers.contains_key(header::CONTENT_ENCODING);
    let text = answer.body.filter(|_| !encoded).unwrap_or_default();
    let mut body = serde_json::from_slice::<Value>(text).ok();
    let codes = body.as_ref().map_or_else(|| vendor::codes(text), vendor::json_codes);

    let fail = |class, reason| Failure {
        class,
        disposition: Disposition::Responded,
        reason,
        status: Some(status),
        code: codes.first().cloned(),
        retry_after: retry_after(answer.headers, now),
        readable: body.is_some(),
    };

    let app_key_refused = contains(text, vendor::INVALID_APP_KEY.as_bytes());
    if app_key_refused {
        return Err(fail(Class::Rejected, "the upstream does not accept the App Key"));
    }
    if let Some(code) = codes.iter().find(|code| vendor::rejects_credentials(code)) {
        return Err(Failure {
            code: Some(code.clone()),
            ..fail(Class::Rejected, "the upstream rejected the credentials")
        });
    }
    match status.as_u16() {
        401 => return Err(fail(Class::Rejected, "the upstream rejected the credentials")),
        404 => return Err(fail(Class::Config, "the upstream has no token endpoint at this path")),
        403 => {
            return Err(fail(
                Class::Config,
                "the upstream forbids the token call, perhaps by the country it comes from",
            ));
        }
        400 | 405 | 415 => return Err(fail(Class::Config, "the upstream does not understand the token call")),
        429 => return Err(fail(Class::Throttled, "the upstream limits the rate of token calls")),
        300..=399 => {
            return Err(fail(Class::Redirect, "the token endpoint answered with a redirect, which is never followed"));
        }
        200..=299 => {}
        _ => return Err(fail(Class::Transient, "the token endpoint is failing")),
    }

    let malformed = |reason| fail(Class::Malformed, reason);
    if answer.body.is_none() {
        return Err(malformed("the token answer is too large"));
    }
    if encoded {
        return Err(malformed("the token answer is compressed, although that was not asked for"));
    }
    let token_type = body.as_ref().and_then(|body| body.get("token_type"));
    let untyped = token_type.is_none();
    if !token_type.is_none_or(|t| t.as_str().is_some_and(|t| t.eq_ignore_ascii_case("bearer"))) {
        return Err(malformed("the token answer is of a type other than Bearer"));
    }
    let expires_in = match body.as_ref().and_then(|body| body.get("expires_in")) {
        None => None,
        Some(value) => Some(lifetime(value).ok_or_else(|| malformed("the token answer has no valid expires_in"))?),
    };
    let missing = malformed("the token answer has no token");
    let illegal = malformed("the token answer has a token that is illegal in a header");
    match body.as_mut().and_then(|body| body.get_mut(token_field)).map(Value::take) {
        Some(Value::String(token)) if token.is_empty() => Err(missing),
        Some(Value::String(token)) => {
            let token = Secret::new(token);
            if is_sendable(token.expose()) { Ok(Minted { token, expires_in, untyped }) } else { Err(illegal) }
        }
        _ => Err(missing),
    }
}

/// Whether `token` may stand in a header field: visible ASCII without the delimiters that would need quoting. Wider than
/// RFC 6750's `b64token`, which not every issuer keeps to.
fn is_sendable(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte))
}

/// A whole, positive number of seconds, as a number or in a string.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => {
            number.as_u64().or_else(|| number.as_f64().filter(|s| *s >= 1.0 && s.fract() == 0.0).map(|s| s as u64))
        }
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// `Retry-After` as seconds or as an HTTP-date (RFC 9110, 10.2.3); anything else counts as absent.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim();
    match value.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
