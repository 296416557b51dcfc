//! The text of a secret: a JSON object. Its members have the names of the files in a credentials directory.

use serde::Deserialize as _;
use serde_json::Value;
use zeroize::Zeroize as _;

use crate::{
    credentials::{
        field::{Field, Sourced},
        source::Values,
        store_error::{StoreError, StoreFault},
    },
    secret::Secret,
};

/// The member of `field`, for errors: `client_id of secret finicity/prod in AWS Secrets Manager`.
pub(super) fn origin(field: Field, secret: &str) -> String {
    format!("{} of {secret}", field.file_name())
}

/// The values in `text`. Members with other names are ignored, because other programs may share the secret.
///
/// # Errors
///
/// If it is not a JSON object, or if a member with a known name is not a string. Errors do not show the text.
pub(super) fn parse(text: &Secret<String>, secret: &str) -> Result<Values, StoreError> {
    let text = text.expose().strip_prefix('\u{feff}').unwrap_or(text.expose());
    let malformed = |reason: String| StoreError {
        fault: StoreFault::Malformed,
        secret: secret.to_owned(),
        reason,
        remedy: "store a JSON object such as {\"client_id\": \"…\", \"client_secret\": \"…\", \"app_key\": \"…\"}"
            .to_owned(),
        cause: None,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Value::deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    // Only the position, because the parser's message may quote the text.
    let value = parsed
        .map_err(|error| malformed(format!("not valid JSON at line {}, column {}", error.line(), error.column())))?;
    let Value::Object(mut members) = value else { return Err(malformed("not a JSON object".to_owned())) };
    let mut values = Values::new();
    for field in Field::ALL {
        match members.remove(field.file_name()) {
            None => {}
            Some(Value::String(value)) => {
                let sourced = Sourced { value: Secret::new(value), origin: origin(field, secret) };
                values.insert(field, Ok(sourced));
            }
            Some(_) => return Err(malformed(format!("the member {} is not a string", field.file_name()))),
        }
    }
    for (_, other) in members {
        if let Value::String(mut text) = other {
            text.zeroize();
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Values, String> {
        super::parse(&Secret::new(text.to_owned()), "secret s in a test").map_err(|error| error.to_string())
    }

    #[test]
    fn known_members_are_read_and_others_ignored() {
        for prefix in ["", "\u{feff}"] {
            let values = parse(&format!(r#"{prefix}{{"client_id": "i", "app_key": "k", "other": [1]}}"#)).unwrap();
            let read: Vec<_> =
                values.iter().map(|(field, value)| (*field, value.as_ref().unwrap().value.expose().as_str())).collect();
            assert_eq!(read, [(Field::ClientId, "i"), (Field::AppKey, "k")]);
        }
    }

    #[test]
    fn an_error_shows_the_position_and_never_the_text() {
        for (text, reason) in [
            ("", "not valid JSON at line 1, column 0"),
            ("canary-secret", "not valid JSON at line 1"),
            ("{\"client_id\": canary}", "not valid JSON at line 1"),
            ("{\"client_id\": \"canary\"} x", "not valid JSON at line 1"),
            ("[\"canary\"]", "not a JSON object"),
            ("\"canary\"", "not a JSON object"),
            ("{\"client_id\": 12345678}", "the member client_id is not a string"),
            ("{\"app_key\": null}", "the member app_key is not a string"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason) && !error.contains("canary") && !error.contains("1234"), "{text}: {error}");
        }
    }
}
