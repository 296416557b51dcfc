//! Scripted faults: what fails, for which operation, and how often.

use std::time::Duration;

use serde_json::Value;

use super::value::Record as _;
use super::{
    body::Pace,
    reply::{Failure, Reply, Shape},
    validate::check_body,
};

/// Maximum number of faults of a seed.
const MAX_FAULTS: usize = 100;

/// The members of a fault.
const NOTATION: &str = "operation:s status:i(200,599) code:s message:s shape:s body:s contentType:s latency:s retryAfter:i(0,) \
    action:e(reset|truncate|drip) interval:s count:i(1,) skip:i(0,) probability:n(0,1)";

/// One fault.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// The JSON that it was parsed from.
    source: Value,
    /// The number of matching requests that it still skips.
    skip: u64,
    /// The number of requests that it still applies to; `None`: no limit.
    count: Option<u64>,
    probability: f64,
    effect: Effect,
}

/// The effect of a fault on a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Effect {
    /// Delay of the response.
    pub(super) latency: Duration,
    /// Sent instead of executing the operation.
    pub(super) failure: Option<(Failure, Option<Shape>)>,
    /// Body and content type that replace those of `failure`.
    pub(super) body: Option<(String, String)>,
    pub(super) retry_after: Option<u64>,
    /// Whether the connection is reset after the operation was executed, instead of sending its response.
    pub(super) reset: bool,
    pub(super) pace: Option<Pace>,
}

impl Fault {
    /// Parses a fault.
    ///
    /// # Errors
    ///
    /// A message with the name of the invalid member.
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        check_body(NOTATION, value).map_err(|failure| failure.message)?;
        let text = |name: &str| value.at(name).as_str();
        let duration = |name: &str| match text(name) {
            None => Ok(None),
            Some(text) => {
                humantime::parse_duration(text).map(Some).map_err(|_| format!("{name}: a duration such as 250ms"))
            }
        };
        let shape = match text("shape") {
            None => None,
            Some(name) => Some(Shape::named(name).ok_or_else(|| format!("shape: one of {}", Shape::names()))?),
        };
        let known: Vec<&str> = NOTATION.split([' ', ':']).collect();
        let unknown = value.as_object().and_then(|members| members.keys().find(|name| !known.contains(&name.as_str())));
        if let Some(unknown) = unknown {
            return Err(format!("unknown member {unknown}"));
        }
        let status = value.at("status").as_u64().and_then(|status| u16::try_from(status).ok());
        let failure = status.map(|status| {
            let (code, message) = default_error(status);
            (Failure::new(status, text("code").unwrap_or(code), text("message").unwrap_or(message)), shape)
        });
        let interval = duration("interval")?.unwrap_or(Duration::from_millis(500));
        let effect = Effect {
            latency: duration("latency")?.unwrap_or_default(),
            failure,
            body: text("body")
                .map(|body| (body.to_owned(), text("contentType").unwrap_or("application/json").to_owned())),
            retry_after: value.at("retryAfter").as_u64(),
            reset: text("action") == Some("reset"),
            pace: match text("action") {
                Some("truncate") => Some(Pace::Truncated),
                Some("drip") => Some(Pace::Dripping(interval)),
                _ => None,
            },
        };
        Ok(Self {
            source: value.clone(),
            skip: value.at("skip").as_u64().unwrap_or(0),
            count: value.at("count").as_u64(),
            probability: value.at("probability").as_f64().unwrap_or(1.0),
            effect,
        })
    }

    /// Whether it applies to the operation `label` (such as `GET /aggregation/v1/customers`) at `path`.
    fn matches(&self, label: &str, path: &str) -> bool {
        let Some(wanted) = self.source.at("operation").as_str() else { return true };
        let (method, template) = label.split_once(' ').unwrap_or(("", label));
        let candidates = [label, template, path, &format!("{method} {path}")];
        match wanted.strip_suffix('*') {
            Some(prefix) => candidates.iter().any(|candidate| candidate.starts_with(prefix)),
            None => candidates.contains(&wanted),
        }
    }
}

impl Effect {
    /// The response to send instead of executing the operation, if any; `shape` gives the operation's shape for a status.
    pub(super) fn reply(&self, shape: impl Fn(u16) -> Shape) -> Option<Reply> {
        let (failure, wanted) = self.failure.as_ref()?;
        let mut reply = wanted.unwrap_or_else(|| shape(failure.status)).reply(failure);
        if let Some((body, content_type)) = &self.body {
            reply.body = body.clone().into_bytes();
            reply.content_type = content_types(content_type);
        }
        if matches!(failure.status, 204 | 304) {
            reply.body.clear();
        }
        Some(reply)
    }
}

/// The content type of a scripted body, JSON unless `name` is one of these.
fn content_types(name: &str) -> &'static str {
    let known = ["application/xml", "text/html", "text/plain", "application/octet-stream", "application/pdf"];
    known.into_iter().find(|known| *known == name).unwrap_or("application/json")
}

/// The vendor's code and message for `status`, used when the fault has none.
fn default_error(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => ("14020", "Bad request"),
        401 => ("10023", "Expired (Finicity-App-Token)"),
        403 => ("10405", "A security freeze is active"),
        404 => ("14001", "Not found"),
        406 => ("20000", "Only application/json is supported"),
        408 => ("10030", "Request timed out"),
        409 => ("11000", "Already exists"),
        429 => ("429", "Too many requests"),
        500 => ("103", "The bank did not accept the credentials"),
        _ => ("50000", "The service is not available"),
    }
}

/// The faults of a seed, in the order of their addition.
#[derive(Debug, Default)]
pub(super) struct Faults {
    faults: Vec<Fault>,
    draws: u64,
}

impl Faults {
    /// Adds `faults`, up to [`MAX_FAULTS`].
    pub(super) fn add(&mut self, faults: impl IntoIterator<Item = Fault>) {
        let room = MAX_FAULTS.saturating_sub(self.faults.len());
        self.faults.extend(faults.into_iter().take(room));
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    /// All faults, each with the number of requests that it still applies to (`left`).
    pub(super) fn list(&self) -> Value {
        let shown = self.faults.iter().map(|fault| {
            let mut shown = fault.source.copy();
            if let Some(left) = fault.count {
                shown.set("left", &left);
            }
            shown
        });
        Value::from(shown.collect::<Vec<_>>())
    }

    /// The effect on a request for the operation `label` at `path`: that of the first fault that applies. `draw` returns a pseudo-random
    /// number for the number of earlier draws.
    pub(super) fn apply(&mut self, label: &str, path: &str, draw: impl Fn(&str) -> u64) -> Effect {
        for fault in self.faults.iter_mut().filter(|fault| fault.count != Some(0)) {
            if !fault.matches(label, path) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.probability < 1.0 {
                self.draws += 1;
                #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
                let drawn = (draw(&self.draws.to_string()) % 1_000_000) as f64 / 1_000_000.0;
                if drawn >= fault.probability {
                    continue;
                }
            }
            fault.count = fault.count.map(|count| count - 1);
            return fault.effect.clone();
        }
        Effect::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Fault, Faults, Value};

    fn faults(values: &[Value]) -> Faults {
        let mut faults = Faults::default();
        faults.add(values.iter().map(|value| Fault::parse(value).unwrap()));
        faults
    }

    fn status(faults: &mut Faults, label: &str) -> Option<u16> {
        faults.apply(label, "/x/1", |draw| draw.len() as u64).failure.map(|(failure, _)| failure.status)
    }

    #[test]
    fn a_fault_applies_to_its_operation_count_times() {
        let mut faults = faults(&[
            json!({"operation": "GET /x/{id}", "status": 503, "count": 2, "skip": 1}),
            json!({"operation": "/y*", "status": 500}),
        ]);
        let seen: Vec<_> = (0..4).map(|_| status(&mut faults, "GET /x/{id}")).collect();
        assert_eq!(seen, [None, Some(503), Some(503), None]);
        assert_eq!(status(&mut faults, "POST /x/{id}"), None);
        assert_eq!(status(&mut faults, "POST /y/{id}"), Some(500));
        assert_eq!(faults.list()[0]["left"], 0);
        faults.clear();
        assert_eq!(status(&mut faults, "POST /y/{id}"), None);
    }

    #[test]
    fn probability_0_never_applies_and_1_always_does() {
        let mut never = faults(&[json!({"status": 503, "probability": 0})]);
        let mut always = faults(&[json!({"status": 503, "probability": 1})]);
        assert!((0..50).all(|_| status(&mut never, "GET /x").is_none() && status(&mut always, "GET /x").is_some()));
    }

    #[test]
    fn an_invalid_fault_is_rejected_with_the_members_name() {
        for (value, name) in [
            (json!({"status": 99}), "status"),
            (json!({"action": "explode"}), "action"),
            (json!({"latency": "soon"}), "latency"),
            (json!({"shape": "round"}), "shape"),
            (json!({"probability": 2}), "probability"),
            (json!({"staus": 500}), "staus"),
            (json!([]), "body"),
        ] {
            let message = Fault::parse(&value).unwrap_err();
            assert!(message.contains(name), "{message}");
        }
    }
}
