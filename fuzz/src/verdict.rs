//! The classification of a 401: the request is retried if and only if the vendor reports a refused token.

use std::io::{self, Write};

use finicity_proxy::vendor::refused_token::{MAX_BODY_BYTES, token_refused};
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use crate::message::Message;

/// The vendor's codes for a refused token, and some other codes.
const TOKEN: [u32; 3] = [10022, 10023, 1503];
const OTHER: [u32; 5] = [10001, 10024, 10027, 1504, 24302];

/// Checks the 401 in `input`.
pub fn verdict(input: &[u8]) {
    let message = Message::read(input);
    let refused = token_refused(&message.headers, message.body);
    if !mentions_a_refused_token(&message) {
        assert!(!refused, "classified as a refused token without evidence");
    }
    if !message.headers.contains_key(header::CONTENT_ENCODING) && message.body.len() <= MAX_BODY_BYTES {
        a_coding_changes_nothing(&message, refused);
    }
    if let Ok(text) = str::from_utf8(message.body) {
        the_code_overrides_the_message(text);
        quoted_text_is_not_a_challenge(text);
    }
}

/// Whether there is any possible evidence of a refused token. Compressed, escaped or UTF-16 text, and numbers with an exponent, may
/// contain it.
fn mentions_a_refused_token(message: &Message<'_>) -> bool {
    let is_utf16 = message.body.starts_with(b"\xff\xfe") || message.body.starts_with(b"\xfe\xff");
    let exponent = |pair: &[u8]| pair[0].is_ascii_digit() && pair[1].eq_ignore_ascii_case(&b'e');
    let has = |text: &[u8], part: &str| text.windows(part.len()).any(|window| window == part.as_bytes());
    let challenges = message.headers.get_all(header::WWW_AUTHENTICATE);
    message.headers.contains_key(header::CONTENT_ENCODING)
        || is_utf16
        || message.body.windows(2).any(exponent)
        || challenges.iter().any(|value| has(value.as_bytes(), "invalid_token"))
        || ["10022", "10023", "1503", "-Token)", "(App-Token)", "\\"].iter().any(|part| has(message.body, part))
}

/// The same body in another coding is classified the same. One coding per input, because setting up an encoder costs more than everything
/// else here.
fn a_coding_changes_nothing(message: &Message<'_>, refused: bool) {
    let (body, fast) = (message.body, Compression::fast());
    let (coding, encoded) = match body.len() % 4 {
        0 => ("identity", Ok(body.to_vec())),
        1 => ("gzip", encoded(GzEncoder::new(Vec::new(), fast), body, GzEncoder::finish)),
        2 => ("deflate", encoded(ZlibEncoder::new(Vec::new(), fast), body, ZlibEncoder::finish)),
        _ => ("deflate", encoded(DeflateEncoder::new(Vec::new(), fast), body, DeflateEncoder::finish)),
    };
    let encoded = encoded.expect("writing to memory does not fail");
    // Noise grows when it is compressed, and would be truncated.
    if encoded.len() <= MAX_BODY_BYTES {
        let mut headers = message.headers.clone();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        assert_eq!(token_refused(&headers, &encoded), refused, "{coding}");
    }
}

fn encoded<E: Write>(
    mut encoder: E,
    body: &[u8],
    finish: impl FnOnce(E) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    encoder.write_all(body)?;
    finish(encoder)
}

/// In every format with a code, the code decides, and the message next to it does not matter.
fn the_code_overrides_the_message(message: &str) {
    // Leave room for the rest of the format, and for escaping.
    if message.len() > MAX_BODY_BYTES / 16 {
        return;
    }
    let plain = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let shapes = |code: u32| {
        [
            json!({ "message": message, "code": code }).to_string(),
            json!({ "code": code.to_string(), "status": "401", "user_message": message }).to_string(),
            json!({ "Errors": { "Error": [{ "details": message, "reasonCode": code }] } }).to_string(),
            json!({ "Errors": { "Error": [{ "Source": message, "ReasonCode": format!("{code},") }] } }).to_string(),
            format!("<error><code>{code}</code><message>{plain}</message></error>"),
        ]
    };
    let refused = |body: String| token_refused(&HeaderMap::new(), body.as_bytes());
    assert!(TOKEN.into_iter().flat_map(shapes).all(refused), "a refused token was not recognised with {message:?}");
    assert!(
        !OTHER.into_iter().flat_map(shapes).any(refused),
        "another code counts as a refused token with {message:?}"
    );
}

/// Challenges are parsed by their grammar: the content of a quoted string is text.
fn quoted_text_is_not_a_challenge(text: &str) {
    let quoted = text.replace('\\', r"\\").replace('"', "\\\"");
    let refused = |challenge: String| {
        let value = HeaderValue::from_bytes(challenge.as_bytes()).ok()?;
        Some(token_refused(&HeaderMap::from_iter([(header::WWW_AUTHENTICATE, value)]), b""))
    };
    assert_ne!(refused(format!(r#"Bearer realm="{quoted}""#)), Some(true), "{text:?}");
    assert_ne!(refused(format!(r#"Basic realm="{quoted}""#)), Some(true), "{text:?}");
    assert_ne!(refused(format!(r#"Bearer realm="{quoted}", error="invalid_token""#)), Some(false), "{text:?}");
}
