//! Decides whether a 401 is about the token: the only kind of 401 that a new token can fix.
//!
//! A pure function on the response's header fields and a bounded copy of its body. In doubt, the 401 is not about the token, because each
//! refresh costs a token request, and the client gets the 401 in any case. Only the copy is inflated; the client gets the upstream's bytes
//! unchanged.
//!
//! Deliberately absent: guessing the coding when the body does not match `Content-Encoding`, as is done for responses of the token
//! endpoint.

use http::HeaderMap;

use super::{
    self as vendor, AuthFault,
    challenge::{self, ChallengeError},
    coding,
};

/// The maximum size of a 401's body that is examined, before and after inflating. The vendor's errors are below 1 KiB; a larger limit
/// would only let a hostile or broken upstream use more memory for each request in flight.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Whether a 401 reports only an invalid or expired *token*: by the vendor's codes in any format of the body, by its plain-text
/// sentences, or by `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750, 3).
///
/// Without a challenge, all codes in the body must be about the token. If a challenge names the token, the body must not report another
/// authentication fault; other codes are ignored, because gateways add their own.
pub fn token_refused(headers: &HeaderMap, body: &[u8]) -> bool {
    let body = &body[..body.len().min(MAX_BODY_BYTES)];
    let plain = coding::decode(headers, body, MAX_BODY_BYTES).ok().filter(coding::Decoded::is_intact);
    let codes = plain.map(|plain| vendor::codes(plain.bytes())).unwrap_or_default();
    let other = |code: &String| matches!(AuthFault::of(code), Some(AuthFault::Credentials | AuthFault::Missing));
    let token = |code: &String| AuthFault::of(code) == Some(AuthFault::Token);
    match challenge::bearer_error(headers) {
        ChallengeError::Other => false,
        ChallengeError::InvalidToken => !codes.iter().any(other),
        ChallengeError::Absent => !codes.is_empty() && codes.iter().all(token),
    }
}

#[cfg(test)]
mod tests;
