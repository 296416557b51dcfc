//! Access tokens, and when to replace them.

use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{failure::Failure, http::Response};
use crate::credentials::{sensitive, store_error::StoreFault};

/// A token is replaced at this time before it expires. Metadata servers return the same token until about then.
const REPLACE_BEFORE_END: Duration = Duration::from_secs(225);

/// An access token.
#[derive(Clone, Debug)]
pub(super) struct AccessToken {
    /// The value of `Authorization`, marked sensitive.
    pub(super) authorization: HeaderValue,
    /// The project that a request's quota is charged to (`x-goog-user-project`).
    pub(super) quota_project: Option<HeaderValue>,
    expires_at: Instant,
}

/// An issuer's response.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Zeroizing<String>,
    expires_in: u64,
}

impl AccessToken {
    /// A token that was requested at `sent` and is valid for `lifetime` from then. `None` if `token` is malformed.
    pub(super) fn new(token: &str, sent: Instant, lifetime: Duration) -> Option<Self> {
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = Zeroizing::new([b"Bearer ", token.as_bytes()].concat());
        let authorization = sensitive(value).filter(|_| is_token)?;
        // A day is longer than any lifetime that Google grants.
        let expires_at = sent + lifetime.min(Duration::from_secs(24 * 3600));
        Some(Self { authorization, quota_project: None, expires_at })
    }

    /// The token in an issuer's successful `response` to a request sent at `sent`.
    pub(super) fn read(response: &Response, sent: Instant) -> Option<Self> {
        let TokenResponse { access_token, expires_in } = serde_json::from_slice(response.body()).ok()?;
        Self::new(&access_token, sent, Duration::from_secs(expires_in))
    }

    /// Whether it is still usable at `now`.
    pub(super) fn is_current(&self, now: Instant) -> bool {
        self.expires_at.saturating_duration_since(now) > REPLACE_BEFORE_END
    }
}

/// The failure if `peer` responds with success but without a token.
pub(super) fn no_token(peer: &str) -> Failure {
    Failure::new(
        StoreFault::Unreachable,
        format!("the response of {peer} contains no token"),
        "check the addresses in the credentials file, and any intermediary between this process and Google",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_until_shortly_before_it_expires() {
        let now = Instant::now();
        let token = AccessToken::new("canary", now, Duration::from_secs(3600)).unwrap();
        assert!(
            token.is_current(now + Duration::from_secs(3374)) && !token.is_current(now + Duration::from_secs(3375))
        );
        assert!(!token.is_current(now + Duration::from_secs(9999)));
        assert!(!format!("{token:?}").contains("canary"));
        assert!(AccessToken::new("canary", now, Duration::MAX).is_some());
        for bad in ["", "a b", "a\r\nb", "\u{e4}"] {
            assert!(AccessToken::new(bad, now, Duration::ZERO).is_none(), "{bad:?}");
        }
    }
}
