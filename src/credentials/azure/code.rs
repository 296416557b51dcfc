//! Azure's error codes. Nothing else is kept from the body of a failure.

use serde::Deserialize;

/// The maximum length of an error code that is shown.
const MAX_CODE_BYTES: usize = 64;

/// Whether `code` may be shown. Azure's codes are single words, so any other text is not shown.
pub(super) fn is_code(code: &str) -> bool {
    (1..=MAX_CODE_BYTES).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
}

/// The error code in the `body` of an identity service's error response: a Microsoft Entra number such as `AADSTS700016`, or else a word.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        error: Option<String>,
        error_codes: Vec<u32>,
    }
    let Body { error, error_codes } = serde_json::from_slice(body).unwrap_or_default();
    let number = error_codes.first().map(|code| format!("AADSTS{code}"));
    number.or_else(|| error.filter(|code| is_code(code)))
}
