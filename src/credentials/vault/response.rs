//! A response of the server. Its messages are compared with known texts and never shown.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

/// A complete response.
pub(super) struct Response {
    pub(super) status: StatusCode,
    /// Overwritten when it is dropped.
    pub(super) body: Bytes,
}

/// The messages in a response. A success can contain warnings too.
#[derive(Default, Deserialize)]
struct Messages {
    errors: Option<Vec<String>>,
    warnings: Option<Vec<String>>,
}

impl Response {
    /// Whether an error or a warning contains `text`, which is in lower case.
    pub(super) fn mentions(&self, text: &str) -> bool {
        let Messages { errors, warnings } = serde_json::from_slice(&self.body).unwrap_or_default();
        let mut messages = [errors, warnings].into_iter().flatten().flatten();
        messages.any(|message| message.to_ascii_lowercase().contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_only_in_errors_and_warnings() {
        for (body, expected) in [
            (r#"{"errors":["x","Vault is SEALED"]}"#, true),
            (r#"{"warnings":["sealed"],"data":null}"#, true),
            (r#"{"errors":[],"warnings":null}"#, false),
            (r#"{"errors":"sealed"}"#, false),
            (r#"{"data":"sealed"}"#, false),
            ("sealed", false),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let response = Response { status: StatusCode::SERVICE_UNAVAILABLE, body };
            assert_eq!(response.mentions("sealed"), expected, "{:?}", response.body);
        }
    }
}
