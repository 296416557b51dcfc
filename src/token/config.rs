//! How tokens are fetched and how requests wait for one.

use std::time::Duration;

use http::HeaderName;

use super::scheme;
use crate::egress;

/// How tokens are fetched and how requests wait for one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Scheme and authority of the token endpoint, the same as the upstream's: `https://`, or `http://` and a loopback address.
    pub base: http::Uri,
    /// The proxy that the call goes through, if there is one (`upstream.egress_proxy`).
    pub egress: Option<egress::Config>,
    /// The path of the token endpoint, where it is not the scheme's own (`auth.token_path`).
    pub token_path: Option<String>,
    /// The path of the revocation endpoint (RFC 7009), if there is one (`auth.revocation_path`).
    pub revocation_path: Option<String>,
    /// Where OAuth 2.0 credentials go (`auth.encoding`).
    pub encoding: scheme::oauth2::Encoding,
    /// The OAuth 2.0 scope to ask for (RFC 6749, 3.3), if any (`auth.scope`).
    pub scope: Option<String>,
    /// The header of the App Key (`auth.app_key_header`).
    pub app_key_header: HeaderName,
    /// The header of a partner's token (`auth.token_header`).
    pub token_header: HeaderName,
    /// The lifetime of a token whose answer names none (`auth.default_lifetime`).
    pub default_lifetime: Duration,
    /// The most that the first token call waits (`auth.startup_jitter`).
    pub startup_jitter: Duration,
    /// How long a request waits for a token when there is none (`auth.token_wait`).
    pub token_wait: Duration,
}
