//! The body of a vendor response as text and as JSON, in memory that is overwritten on drop, because it may hold a token.

use std::fmt;

use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

/// The byte order mark, in UTF-8 and in both byte orders of UTF-16.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_LE_MARK: &[u8] = b"\xff\xfe";
const UTF16_BE_MARK: &[u8] = b"\xfe\xff";

/// The maximum number of UTF-8 bytes per invalid input byte (U+FFFD) or per UTF-16 unit.
const LONGEST_CHARACTER: usize = 3;

/// `body` as text without a byte order mark: UTF-16 if the mark says so, otherwise UTF-8. Invalid sequences, such as Latin-1 in a message,
/// become U+FFFD, so that the rest of the text can still be read.
pub(super) fn text(mut body: &[u8]) -> Zeroizing<String> {
    if let Some(units) = body.strip_prefix(UTF16_LE_MARK) {
        return utf16(units, u16::from_le_bytes);
    }
    if let Some(units) = body.strip_prefix(UTF16_BE_MARK) {
        return utf16(units, u16::from_be_bytes);
    }
    while let Some(rest) = body.strip_prefix(UTF8_MARK) {
        body = rest;
    }
    if let Ok(text) = str::from_utf8(body) {
        return Zeroizing::new(text.to_owned());
    }
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_CHARACTER * body.len()));
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_CHARACTER * bytes.len() / 2));
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    text.extend(char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)));
    text
}

/// A JSON value. Its strings are overwritten on drop, and `Debug` does not show it.
pub struct Json(Value);

impl Json {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// The value. Copies of its parts are not overwritten.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The member `name`, if this is an object that has it and it is not `null`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Moves the string member `name` out of the value; the caller must overwrite it. `None` if there is no such member, or it is not a
    /// string.
    pub fn take_text(&mut self, name: &str) -> Option<String> {
        match self.0.get_mut(name)? {
            Value::String(text) => Some(std::mem::take(text)),
            _ => None,
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json(..)")
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        overwrite(&mut self.0);
    }
}

/// Overwrites all strings in `value` recursively. The JSON parser limits its depth.
fn overwrite(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(overwrite),
        Value::Object(members) => members.values_mut().for_each(overwrite),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
