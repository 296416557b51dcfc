//! Looks for secrets where none may be, in every form and in parts.

use std::fmt::Write as _;

use super::{APP_KEY, CLIENT_ID, CLIENT_SECRET, EGRESS_PASSWORD, EGRESS_USERNAME, TOKEN_PREFIX};

/// The length of a part of a secret that is no accident.
const PART: usize = 10;

/// Every form that a secret could leave in.
pub fn forms(secret: &str) -> Vec<String> {
    let percent = secret.bytes().fold(String::new(), |mut text, byte| {
        let plain = byte.is_ascii_alphanumeric();
        let _ = if plain { write!(text, "{}", char::from(byte)) } else { write!(text, "%{byte:02X}") };
        text
    });
    let hex = secret.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let numbers = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let mut forms = vec![secret.to_owned(), percent.to_lowercase(), percent, hex, numbers];
    // Base64 of the secret at each of the three offsets, without the characters at the ends that its neighbours share.
    for offset in 0..3 {
        let padded = [vec![0; offset], secret.as_bytes().to_vec()].concat();
        let encoded = base64(&padded);
        forms.push(encoded[4.min(encoded.len())..encoded.len() - 4].to_owned());
    }
    forms
}

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).flat_map(|group| {
        let bits = group.iter().chain([&0, &0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    });
    groups.collect()
}

/// The parts that a secret could be split into, for a reader who can put two and two together.
fn parts(secret: &str) -> impl Iterator<Item = &str> {
    (0..=secret.len().saturating_sub(PART)).map(|start| &secret[start..secret.len().min(start + PART)])
}

/// Panics when `text` holds a canary, and names the place.
#[track_caller]
pub fn scan(place: &str, text: &str) {
    for secret in [CLIENT_ID, CLIENT_SECRET, APP_KEY, TOKEN_PREFIX, EGRESS_USERNAME, EGRESS_PASSWORD] {
        let whole = forms(secret);
        for form in whole.iter().map(String::as_str).chain(parts(secret)) {
            if let Some(at) = text.find(form) {
                let start = (0..=at.saturating_sub(200)).rev().find(|start| text.is_char_boundary(*start)).unwrap_or(0);
                panic!("{place} holds {secret:?} as {form:?}: …{}", &text[start..at + form.len()]);
            }
        }
    }
}
