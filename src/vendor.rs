//! The vendor's error codes, in every shape that its answers bring them in.
//!
//! Pure functions on a body. Nothing of a body is ever kept but a short number where a code belongs, a word of a known list,
//! or the code of a known sentence, so what comes out may stand in a log.
//!
//! Deliberately absent: an XML parser, and the reading of messages. A code is looked for only where the vendor puts one, so
//! that a page or a message that merely mentions a code is not taken for the error itself.

use serde_json::Value;

/// The vendor's plain-text answer to a wrong App Key.
pub const INVALID_APP_KEY: &str = "Invalid (Finicity-App-Key)";

/// The vendor's plain-text answers, each the whole of a body, and the codes that say the same in its other shapes.
const SENTENCES: [(&str, &str); 6] = [
    ("Invalid (Finicity-App-Token)", "10022"),
    ("Invalid (App-Token)", "10022"),
    ("Expired (Finicity-App-Token)", "10023"),
    ("Expired (App-Token)", "10023"),
    (INVALID_APP_KEY, "10027"),
    ("Invalid (App-Key)", "10027"),
];

/// The vendor's codes for "these credentials are wrong", at whatever status they come.
const REJECTED_CODES: [&str; 6] = ["24302", "10001", "10021", "12401", "10026", "10027"];

/// The OAuth errors (RFC 6749, 5.2) that mean the same.
const REJECTED_ERRORS: [&str; 3] = ["invalid_client", "unauthorized_client", "invalid_grant"];

/// The other OAuth errors, known so that a log may name them.
const OTHER_ERRORS: [&str; 4] =
    ["invalid_request", "unsupported_grant_type", "invalid_scope", "temporarily_unavailable"];

/// The longest number that is taken for a vendor code.
const MAX_CODE_DIGITS: usize = 6;

/// The error codes in `body`: of JSON as [`json_codes`] finds them, of a plain sentence that is known, or of legacy XML.
/// A body that was cut off is in none of these shapes, and has no codes.
pub fn codes(body: &[u8]) -> Vec<String> {
    if let Ok(json) = serde_json::from_slice(body) {
        return json_codes(&json);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    match SENTENCES.iter().find(|(sentence, _)| *sentence == text) {
        Some((_, code)) => vec![(*code).to_owned()],
        None => xml_codes(text),
    }
}

/// The error codes in `body`, in any of the vendor's JSON shapes: `code` at the top or `reasonCode` in `Errors.Error[]`,
/// as numbers or as strings (some with a stray comma), and OAuth's `error`. Only what is known to be a code is kept.
pub fn json_codes(body: &Value) -> Vec<String> {
    let listed = body.pointer("/Errors/Error").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.flat_map(|error| [error.get("reasonCode"), error.get("ReasonCode")]);
    [body.get("code"), body.get("error")].into_iter().chain(listed).flatten().filter_map(known_code).collect()
}

/// Whether `code` says that the credentials are wrong: the App Key, or what a token is asked for with.
pub fn rejects_credentials(code: &str) -> bool {
    REJECTED_CODES.contains(&code) || REJECTED_ERRORS.contains(&code)
}

/// The codes of `<error><code>14006</code>…</error>`. The end is looked for so that half an answer, or an HTML page that
/// shows some code, is not taken for one.
fn xml_codes(text: &str) -> Vec<String> {
    if !text.starts_with('<') || !["</error>", "</errors>"].iter().any(|end| text.ends_with(end)) {
        return Vec::new();
    }
    let inside = text.split("<code>").skip(1).filter_map(|after| after.split_once("</code>"));
    inside.map(|(code, _)| code.trim()).filter(|code| is_number(code)).map(str::to_owned).collect()
}

fn known_code(value: &Value) -> Option<String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim_matches([',', ' ']).to_owned(),
        _ => return None,
    };
    let oauth = || REJECTED_ERRORS.contains(&text.as_str()) || OTHER_ERRORS.contains(&text.as_str());
    (is_number(&text) || oauth()).then_some(text)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CODE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
