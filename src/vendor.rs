//! The vendor's error codes, in all formats of its responses.
//!
//! Pure functions on a body. From a body they keep only short numbers in the position of a code, words of a known list, and the codes of
//! known sentences, so the results are safe to log.
//!
//! Deliberately absent: an XML parser, and parsing of error messages. A code is read only where the vendor puts one, so that a page or a
//! message that merely mentions a code is not mistaken for the error.

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

/// The JSON members that hold a code, and those that hold an error or a list of errors.
const CODE_NAMES: [&str; 3] = ["code", "error", "reasonCode"];
const ERROR_NAMES: [&str; 2] = ["error", "errors"];

/// The maximum number of digits of a vendor code.
const MAX_CODE_DIGITS: usize = 6;

/// The parsed body of a vendor response.
#[derive(Debug)]
pub struct Reading {
    /// The body, if it is a JSON object or list.
    pub json: Option<Json>,
    /// The error codes: from JSON (see [`json_codes`]), a known plain-text sentence, or legacy XML.
    pub codes: Vec<String>,
    /// Whether the body contains the vendor's sentence for an invalid App Key.
    pub refuses_app_key: bool,
}

/// Parses `body`, which must have no content coding: UTF-8, or UTF-16 with a byte order mark. `None` if it has none of the vendor's
/// formats, for example because it was truncated.
pub fn read(body: &[u8]) -> Option<Reading> {
    let text = text::text(body);
    let json = Json::parse(&text).filter(|json| json.value().is_object() || json.value().is_array());
    let codes = json.as_ref().map_or_else(|| text_codes(&text), |json| json_codes(json.value()));
    let refuses_app_key = text.contains(INVALID_APP_KEY);
    let says_something = json.is_some() || !codes.is_empty() || refuses_app_key;
    says_something.then_some(Reading { json, codes, refuses_app_key })
}

/// The error codes in `body`; none if [`read`] cannot parse it.
pub fn codes(body: &[u8]) -> Vec<String> {
    read(body).map(|reading| reading.codes).unwrap_or_default()
}

/// The error codes in `body`, in any of the vendor's JSON formats: `code` at the top level or `reasonCode` in `Errors.Error[]`, as
/// numbers or strings (some with a stray comma), and OAuth's `error`. There may be one error or a list, at the top level or in `error`
/// or `errors`. Names match case-insensitively. Only known forms of codes are kept. Outer codes come first.
pub fn json_codes(body: &Value) -> Vec<String> {
    let mut codes = Vec::new();
    collect_codes(body, &mut codes);
    codes
}

/// Recurses into `error`. The JSON parser limits its depth.
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

/// The codes in a plain-text sentence or in XML.
fn text_codes(text: &str) -> Vec<String> {
    let text = text.trim();
    codes::code_of_sentence(text).map_or_else(|| xml_codes(text), |code| vec![code.to_owned()])
}

/// The codes in `<error><code>14006</code>…</error>`. Requires the closing tag, so that a truncated response, or an HTML page with
/// `<code>` elements, has none.
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

/// `number` as a code. Gateways and some languages write integers with a fraction: `24302.0`.
fn number_code(number: &Number) -> Option<String> {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.is_sign_positive() && float.fract() == 0.0 => {
            whole_number(&format!("{float:.0}"))
        }
        _ => whole_number(&number.to_string()),
    }
}

/// The digits of `text`, if it is an integer with at most [`MAX_CODE_DIGITS`] digits. A fraction of zeros is allowed and dropped.
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
