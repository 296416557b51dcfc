//! Whether a 401 is about the token: the one kind of 401 that a new token can heal.
//!
//! A pure function on the answer's head and a bounded copy of its body. A doubt is decided against healing, since each
//! refresh is a token call and the caller gets the 401 either way. The copy may be inflated here; what the caller gets is
//! the upstream's bytes, unchanged.
//!
//! Deliberately absent: brotli and zstd. The vendor is not known to send either, and a decoder is a lot of code to expose.

mod challenge;

use std::{
    borrow::Cow,
    io::{ErrorKind, Read},
};

use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderValue, header};

use crate::vendor;

/// The longest body of a 401 that is looked at, before and after inflating. The vendor's errors are below 1 KiB; a larger
/// limit would only let a hostile or broken upstream take more memory for each request under way.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The vendor's codes for an invalid or an expired token.
const TOKEN_CODES: [&str; 3] = ["10022", "10023", "1503"];

/// Its codes for other faults of the same header fields, besides rejected credentials: no token, no App Key.
const OTHER_CODES: [&str; 2] = ["10024", "1504"];

/// Whether a 401 says that the *token* is invalid or expired, and nothing else: by the vendor's codes in any of the body's
/// shapes, by its plain sentences, or by `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750, 3).
///
/// Where a body speaks alone, a code beside the token's own is one too many. Where a challenge names the token, the body
/// may say what it likes but that something else was wrong: gateways put codes of their own there.
pub fn token_refused(headers: &HeaderMap, body: &[u8]) -> bool {
    let codes = plain(headers, body).map(|body| vendor::codes(&body)).unwrap_or_default();
    let other = |code: &String| vendor::rejects_credentials(code) || OTHER_CODES.contains(&code.as_str());
    let token = |code: &String| TOKEN_CODES.contains(&code.as_str());
    match challenge::names_token(headers) {
        Some(false) => false,
        Some(true) => !codes.iter().any(other),
        None => !codes.is_empty() && codes.iter().all(token),
    }
}

/// As much of `body` as is looked at, without its content coding, or `None` where that cannot be undone.
fn plain<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let body = &body[..body.len().min(MAX_BODY_BYTES)];
    let values = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let codings = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut codings = codings.filter(|coding| !coding.is_empty());
    let coding = codings.next().unwrap_or(b"identity").to_ascii_lowercase();
    if codings.next().is_some() {
        return None;
    }
    match coding.as_slice() {
        b"identity" => Some(Cow::Borrowed(body)),
        b"gzip" | b"x-gzip" => inflated(GzDecoder::new(body)).map(Cow::Owned),
        // RFC 9110, 8.4.1.2: the zlib format; some servers leave its frame out. No encoder's raw stream begins like a frame.
        b"deflate" => inflated(ZlibDecoder::new(body)).or_else(|| inflated(DeflateDecoder::new(body))).map(Cow::Owned),
        _ => None,
    }
}

/// What `decoder` brings, up to the limit and up to where its input ends, or `None` where that is not in its format.
fn inflated(decoder: impl Read) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    match decoder.take(MAX_BODY_BYTES as u64).read_to_end(&mut plain) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => None,
        _ => Some(plain),
    }
}

#[cfg(test)]
mod tests;
