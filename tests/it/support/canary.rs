//! Scans text for secrets, their encodings and parts of them.

use std::fmt::Write as _;

use super::{
    ADMIN_TOKEN, APP_KEY, CLIENT_ID, CLIENT_SECRET, EGRESS_PASSWORD, EGRESS_USERNAME, LINK_SIGNATURE, TOKEN_PREFIX,
    WEBHOOK_SECRET,
};

/// Values that must not appear in any output.
const CANARIES: [&str; 9] = [
    CLIENT_ID,
    CLIENT_SECRET,
    APP_KEY,
    TOKEN_PREFIX,
    ADMIN_TOKEN,
    EGRESS_USERNAME,
    EGRESS_PASSWORD,
    WEBHOOK_SECRET,
    LINK_SIGNATURE,
];

/// The minimum length of a part of a secret that cannot occur by chance.
const PART_LENGTH: usize = 10;

/// All encodings in which a secret could be output.
pub fn encodings(secret: &str) -> Vec<String> {
    let percent = secret.bytes().fold(String::new(), |mut text, byte| {
        let plain = byte.is_ascii_alphanumeric();
        let _ = if plain { write!(text, "{}", char::from(byte)) } else { write!(text, "%{byte:02X}") };
        text
    });
    let hex = format!("{:x}", base16ct::HexDisplay(secret.as_bytes()));
    let numbers = |between| secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(between);
    let all_percent = secret.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"));
    let units = secret.bytes().fold(String::new(), |text, byte| text + &format!("\\u{byte:04x}"));
    let json = serde_json::to_string(secret).unwrap().trim_matches('"').to_owned();
    let mut encodings = vec![
        secret.to_owned(),
        percent.replace("%2D", "-"),
        lower_digits(&percent),
        lower_digits(&percent.replace("%2D", "-")),
    ];
    encodings.extend([hex.to_uppercase(), hex, numbers(", "), numbers(","), all_percent.to_uppercase(), all_percent]);
    encodings.extend([units, json.replace('/', "\\/"), json, percent]);
    // Base64 of the secret at each of the three offsets, without the characters at both ends, which depend on neighbouring bytes.
    for offset in 0..3 {
        let padded = [vec![0; offset], secret.as_bytes().to_vec()].concat();
        let encoded = base64(&padded);
        let core = encoded[4.min(encoded.len())..encoded.len() - 4].to_owned();
        encodings.extend([core.replace('+', "-").replace('/', "_"), core]);
    }
    encodings
}

/// `text` with the digits after each `%` in lower case.
fn lower_digits(text: &str) -> String {
    let mut in_escape = 0;
    let lower = |character: char| {
        in_escape = if character == '%' { 3 } else { in_escape.max(1) - 1 };
        if in_escape > 0 { character.to_ascii_lowercase() } else { character }
    };
    text.chars().map(lower).collect()
}

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).flat_map(|group| {
        let bits = group.iter().chain([&0, &0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    });
    groups.collect()
}

/// The parts of a secret that are long enough to identify it.
fn parts(secret: &str) -> impl Iterator<Item = &str> {
    (0..=secret.len().saturating_sub(PART_LENGTH)).map(|start| &secret[start..secret.len().min(start + PART_LENGTH)])
}

/// Panics if `text` contains a canary. `source` names the text in the message.
#[track_caller]
pub fn scan(source: &str, text: &str) {
    for secret in CANARIES {
        let encodings = encodings(secret);
        for form in encodings.iter().map(String::as_str).chain(parts(secret)) {
            if let Some(at) = text.find(form) {
                let start = (0..=at.saturating_sub(200)).rev().find(|start| text.is_char_boundary(*start)).unwrap_or(0);
                panic!("{source} contains {secret:?} as {form:?}: …{}", &text[start..at + form.len()]);
            }
        }
    }
}
