//! Whether a 401 is about the token: the one kind of 401 that a new token can fix.
//!
//! A pure function on the answer's head and a bounded copy of its body. In doubt it is not, since each refresh is a token request and
//! the client gets the 401 either way. The copy may be inflated here; what the caller gets is
//! the upstream's bytes, unchanged.
//!
//! Deliberately absent: a guess where the body is in another coding than its head says, as the token endpoint's responses get.

use http::HeaderMap;

use super::{
    self as vendor, AuthFault,
    challenge::{self, ChallengeError},
    coding,
};

/// The longest body of a 401 that is looked at, before and after inflating. The vendor's errors are below 1 KiB; a larger
/// limit would only let a hostile or broken upstream take more memory for each request under way.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Whether a 401 says that the *token* is invalid or expired, and nothing else: by the vendor's codes in any of the body's
/// shapes, by its plain sentences, or by `WWW-Authenticate: Bearer error="invalid_token"` (RFC 6750, 3).
///
/// Where a body speaks alone, a code beside the token's own is one too many. Where a challenge names the token, the body
/// may say what it likes but that something else was wrong: gateways put codes of their own there.
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
