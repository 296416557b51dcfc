//! The vendor's error codes, in every shape that its answers bring them in.
//!
//! Pure functions on a body. Nothing of a body is ever kept but a short number where a code belongs, a word of a known list,
//! or the code of a known sentence, so what comes out may stand in a log.
//!
//! Deliberately absent: an XML parser, and the reading of messages. A code is looked for only where the vendor puts one, so
//! that a page or a message that merely mentions a code is not taken for the error itself.

pub mod catalogue;
mod challenge;
mod codes;
pub mod coding;
pub mod partner_id;
pub mod refused_token;
mod text;
pub mod webhook;

use serde_json::{Number, Value};

pub use codes::{AuthFault, INVALID_APP_KEY, rejects_credentials};
pub use text::Json;

/// The members that hold a code, and those that hold an error or a list of errors.
const CODE_NAMES: [&str; 3] = ["code", "error", "reasonCode"];
const ERROR_NAMES: [&str; 2] = ["error", "errors"];

/// The longest number that is taken for a vendor code.
const MAX_CODE_DIGITS: usize = 6;

/// What a body of the vendor's says, without its content coding.
#[derive(Debug)]
pub struct Reading {
    /// The body, where it is a JSON object or a list.
    pub json: Option<Json>,
    /// The error codes in it: of JSON as [`json_codes`] finds them, of a plain sentence that is known, or of legacy XML.
    pub codes: Vec<String>,
    /// Whether it says anywhere that the App Key is wrong, in the vendor's words.
    pub refuses_app_key: bool,
}

/// Reads `body`: UTF-8 or marked UTF-16, with or without a byte order mark. `None` where it is in none of the vendor's shapes,
/// as a body that was cut off is.
pub fn read(body: &[u8]) -> Option<Reading> {
    let text = text::text(body);
    let json = Json::parse(&text).filter(|json| json.value().is_object() || json.value().is_array());
    let codes = json.as_ref().map_or_else(|| text_codes(&text), |json| json_codes(json.value()));
    let refuses_app_key = text.contains(INVALID_APP_KEY);
    let says_something = json.is_some() || !codes.is_empty() || refuses_app_key;
    says_something.then_some(Reading { json, codes, refuses_app_key })
}

/// The error codes in `body`, none where [`read`] cannot read it.
pub fn codes(body: &[u8]) -> Vec<String> {
    read(body).map(|reading| reading.codes).unwrap_or_default()
}

/// The error codes in `body`, in any of the vendor's JSON shapes: `code` at the top or `reasonCode` in `Errors.Error[]`, as
/// numbers or as strings (some with a stray comma), and OAuth's `error`; one error or a list of them, at the top or in `error` or
/// `errors`, the names in any case. Only what is known to be a code is kept. Outer ones come first.
pub fn json_codes(body: &Value) -> Vec<String> {
    let mut codes = Vec::new();
    collect_codes(body, &mut codes);
    codes
}

/// The parser limits how deep `error` can be.
fn collect_codes(error: &Value, codes: &mut Vec<String>) {
    match error {
        Value::Array(errors) => errors.iter().for_each(|error| collect_codes(error, codes)),
        Value::Object(members) => {
            let named = |names: &'static [&str]| {
                members.iter().filter(|(name, _)| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
            };
            codes.extend(named(&CODE_NAMES).filter_map(|(_, value)| known_code(value)));
            named(&ERROR_NAMES)
                .filter(|(_, value)| !value.is_string())
                .for_each(|(_, error)| collect_codes(error, codes));
        }
        _ => {}
    }
}

/// The codes of a plain sentence or of XML.
fn text_codes(text: &str) -> Vec<String> {
    let text = text.trim();
    codes::code_of_sentence(text).map_or_else(|| xml_codes(text), |code| vec![code.to_owned()])
}

/// The codes of `<error><code>14006</code>…</error>`. The end is looked for so that half an answer, or an HTML page that
/// shows some code, is not taken for one.
fn xml_codes(text: &str) -> Vec<String> {
    if !text.starts_with('<') || !["</error>", "</errors>"].iter().any(|end| text.ends_with(end)) {
        return Vec::new();
    }
    let inside = text.split("<code>").skip(1).filter_map(|after| after.split_once("</code>"));
    inside.filter_map(|(code, _)| whole_number(code.trim())).collect()
}

fn known_code(value: &Value) -> Option<String> {
    let text = match value {
        Value::Number(number) => return number_code(number),
        Value::String(text) => text.trim_matches(|c: char| c == ',' || c.is_whitespace()),
        _ => return None,
    };
    whole_number(text).or_else(|| codes::known_word(text).map(str::to_owned))
}

/// The code that a JSON number is. Gateways and some languages write whole numbers with a fraction: `24302.0`.
fn number_code(number: &Number) -> Option<String> {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.is_sign_positive() && float.fract() == 0.0 => {
            whole_number(&format!("{float:.0}"))
        }
        _ => whole_number(&number.to_string()),
    }
}

/// The digits of `text`, where it is a number of the length of a code, perhaps with a fraction of zeros.
fn whole_number(text: &str) -> Option<String> {
    let (digits, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_whole = !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0');
    (is_whole && is_number(digits)).then(|| digits.to_owned())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CODE_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
