//! Error codes of Azure: all that is kept of what it sends with a failure.

use serde::Deserialize;

/// The longest error code that is shown.
const MAX_CODE_BYTES: usize = 64;

/// Whether `code` may be shown: Azure's codes are words, and anything else is not one of them.
pub(super) fn is_code(code: &str) -> bool {
    (1..=MAX_CODE_BYTES).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
}

/// The error code in the `body` of a refusal: a number of Microsoft Entra such as `AADSTS700016`, or else a word.
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
