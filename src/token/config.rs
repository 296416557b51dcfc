//! The configuration of the token refresher and the token endpoint.

use std::time::Duration;

use http::HeaderName;

use super::scheme;
use crate::egress;

/// How tokens are fetched and how requests wait for one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Scheme and authority of the token endpoint, the same as the upstream's: `https://`, or `http://` and a loopback address.
    pub base: http::Uri,
    /// The egress proxy for token requests, if any (`upstream.egress_proxy`).
    pub egress: Option<egress::Config>,
    /// The path of the token endpoint; `None` for the scheme's default (`auth.token_path`).
    pub token_path: Option<String>,
    /// The path of the revocation endpoint (RFC 7009), if any (`auth.revocation_path`).
    pub revocation_path: Option<String>,
    /// Where a token request carries OAuth 2.0 credentials (`auth.encoding`).
    pub encoding: scheme::oauth2::Encoding,
    /// The OAuth 2.0 scope to request (RFC 6749, 3.3), if any (`auth.scope`).
    pub scope: Option<String>,
    /// The header of the App Key (`auth.app_key_header`).
    pub app_key_header: HeaderName,
    /// The header of a partner's token (`auth.token_header`).
    pub token_header: HeaderName,
    /// The lifetime of a token if its response has no `expires_in` (`auth.default_lifetime`).
    pub default_lifetime: Duration,
    /// The maximum random delay of the first token request (`auth.startup_jitter`).
    pub startup_jitter: Duration,
    /// How long a request waits for a usable token (`auth.token_wait`).
    pub token_wait: Duration,
}
