//! The results of handlers, and the shapes of the vendor's error responses.

use serde_json::Value;

use super::value::json;

pub(super) const JSON: &str = "application/json";
pub(super) const PDF: &str = "application/pdf";
pub(super) const BINARY: &str = "application/octet-stream";
pub(super) const TEXT: &str = "text/plain";
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// The result of a handler.
pub(super) type Outcome = Result<Reply, Failure>;

/// A response, and the webhooks to send with it.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// The target of a redirect.
    pub(super) location: Option<String>,
    pub(super) before: Before,
    /// Sent in the background, in this order.
    pub(super) webhooks: Vec<Webhook>,
}

/// What the sandbox does before it sends a response.
#[derive(Debug, Default)]
pub(super) enum Before {
    #[default]
    Nothing,
    /// Send a notification. If the receiver does not accept it, the response is an error.
    Ping(Webhook),
    /// Request `url`, which must return `code`. If it does not, the response is an error.
    Verification { url: String, code: String },
    /// Send notifications in this order. If there is a `body`, the response is this body with their results as `webhooks`.
    Events { webhooks: Vec<Webhook>, body: Option<Value> },
}

/// A notification.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) body: Value,
    pub(super) headers: Vec<(String, String)>,
    /// The key of the signature; `None`: not signed.
    pub(super) secret: Option<String>,
}

impl Reply {
    /// A response with `body` as JSON.
    #[inline(never)]
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: JSON, body: body.to_string().into_bytes(), ..Self::default() }
    }

    /// 200 with `body` as JSON.
    #[inline(never)]
    pub(super) fn ok(body: &Value) -> Outcome {
        Ok(Self::json(200, body))
    }

    /// A response without a body.
    #[inline(never)]
    pub(super) fn empty(status: u16) -> Outcome {
        Ok(Self { status, ..Self::default() })
    }

    /// A response with `body` as `content_type`.
    #[inline(never)]
    pub(super) fn bytes(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, body, ..Self::default() }
    }
}

/// An error, before it has the shape of an operation's errors.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Failure {
    #[cold]
    pub(super) fn new(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned() }
    }

    /// 400: the member or parameter `name` is missing.
    #[cold]
    pub(super) fn missing(name: &str) -> Self {
        Self::new(400, "10005", &format!("Missing parameter ({name})"))
    }

    /// 400: the member or parameter `name` has a wrong value.
    #[cold]
    pub(super) fn invalid(name: &str, expected: &str) -> Self {
        Self::new(400, "14020", &format!("Invalid parameter ({name}): {expected}"))
    }

    /// 404: `what` does not exist.
    #[cold]
    pub(super) fn not_found(code: &str, what: &str) -> Self {
        Self::new(404, code, &format!("{what} not found"))
    }

    /// The response in the most common shape.
    pub(super) fn plain(&self) -> Reply {
        Shape::Plain.reply(self)
    }

    /// The response in the shape that the operation with this template documents.
    #[inline(never)]
    pub(super) fn reply(&self, template: &str) -> Reply {
        Shape::of(template, self.status).reply(self)
    }
}

/// The shapes of error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"code":"…","message":"…"}`
    Plain,
    /// The same with a numeric code, and the status.
    Numeric,
    /// The same with the status, a title and a message for users.
    Detailed,
    /// `{"Errors":{"Error":[…]}}` with `Source`, `ReasonCode` and others.
    Errors,
    /// The same with lower-case names and a numeric code, as in the vendor's examples.
    SmallErrors,
    /// One such error.
    Single,
    /// [`Self::Plain`] with a status and a `trackingId`.
    Tracked,
    /// `{"status":…,"statusDescription":…}`
    Status,
    /// `{"error":"…"}`, as in OAuth 2.0.
    OAuth,
    /// No body.
    Empty,
    /// Only the message.
    Text,
    /// `<error><code>…</code><message>…</message></error>`
    Xml,
}

/// The names of the shapes in scripted faults.
const NAMES: [(&str, Shape); 12] = [
    ("plain", Shape::Plain),
    ("numeric", Shape::Numeric),
    ("detailed", Shape::Detailed),
    ("errors", Shape::Errors),
    ("small-errors", Shape::SmallErrors),
    ("single", Shape::Single),
    ("tracked", Shape::Tracked),
    ("status", Shape::Status),
    ("oauth", Shape::OAuth),
    ("empty", Shape::Empty),
    ("text", Shape::Text),
    ("xml", Shape::Xml),
];

impl Shape {
    /// The shape with the name `name`.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape)
    }

    /// The names of all shapes, separated by commas.
    pub(super) fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// The shape of errors with `status` of the operation with this template.
    pub(super) fn of(template: &str, status: u16) -> Self {
        let begins = |prefix| template.starts_with(prefix);
        match status {
            _ if begins("/notification-subscriptions/") || begins("/connect-components/") => Self::Errors,
            404 if template.ends_with("/partners/authentication") => Self::Errors,
            400 | 401 if begins("/connect/experiences/{") => Self::Single,
            400 | 403 | 404 if begins("/decisioning/v1/portfolios/") => Self::Tracked,
            400 if template.ends_with("/amounts") => Self::Status,
            403 if begins("/payments/") => Self::Plain,
            403 => Self::Numeric,
            429 => Self::Empty,
            _ => Self::Plain,
        }
    }

    #[inline(never)]
    pub(super) fn reply(self, failure: &Failure) -> Reply {
        let Failure { status, code, message } = failure;
        let number: Value = code.parse::<i64>().map_or_else(|_| json!(code), Value::from);
        let body = match self {
            Self::Plain => json!({"code": code, "message": message}),
            Self::Numeric => json!({"code": number, "status": status.to_string(), "message": message}),
            Self::Detailed => json!({
                "code": code, "status": status.to_string(), "title": "Request failed", "level": "error", "message": message,
                "user_message": message, "tags": "AGG",
            }),
            Self::Errors => json!({"Errors": {"Error": [single(failure)]}, "code": number, "message": message}),
            Self::SmallErrors => json!({"Errors": {"Error": [{
                "source": "Sandbox", "reasonCode": number, "description": message, "recoverable": false, "details": null,
            }]}}),
            Self::Single => single(failure),
            Self::Tracked => json!({
                "trackingId": "5a1db0c0-0000-4000-a000-000000000001", "code": code, "status": status.to_string(), "message": message,
            }),
            Self::Status => json!({"status": "Failed", "statusDescription": message, "code": code, "message": message}),
            Self::OAuth => json!({"error": code, "error_description": message}),
            Self::Empty => return Reply { status: *status, ..Reply::default() },
            Self::Text => return Reply::bytes(*status, TEXT, message.clone().into_bytes()),
            Self::Xml => {
                let text =
                    format!("<error><code>{}</code><message>{}</message></error>", escape(code), escape(message));
                return Reply::bytes(*status, "application/xml", text.into_bytes());
            }
        };
        Reply::json(*status, &body)
    }
}

fn single(failure: &Failure) -> Value {
    json!({
        "Source": "Sandbox", "ReasonCode": failure.code, "Description": failure.message, "Recoverable": false, "Details": "",
    })
}

/// Escapes `text` for XML and HTML, including attributes.
#[inline(never)]
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
