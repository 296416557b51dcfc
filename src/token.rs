//! The token: how it is minted, how long it may be used, and how it reaches the requests.
//!
//! One [`Refresher`] task is the only writer. Requests hold a [`TokenReader`] and read one `ArcSwap` load; while a usable
//! token is there they never wait for a refresh. The decisions (when to refresh, what an answer means) are pure
//! functions in [`schedule`] and [`classify`]; the refresher is the loop that calls them.
//!
//! Deliberately absent: any request that mints a token by itself. A token call can lock the vendor account, so there is
//! one place that makes it.

pub mod classify;
pub mod clock;
mod control;
mod endpoint;
mod refresher;
mod refusal;
pub mod schedule;
pub mod scheme;
mod store;

use std::time::Duration;

use http::HeaderName;

use crate::egress;

pub use clock::{BootInstant, Clock};
pub use control::{Command, TokenControl, control};
pub use endpoint::{Endpoint, EndpointError, TokenSource};
pub use refresher::{FINAL_CALL_GRACE, Refresher};
pub use refusal::Refusal;
pub use store::{
    CandidateState, LockoutStatus, Phase, State, Status, Token, TokenReader, TokenWriter, Unavailable, channel,
};

/// The age above which the refresher's heartbeat means that it hangs. It beats at least this often while it waits, and during a
/// request; the rest is for the state directory, whose locks are waited for up to a second each, on a slow disk.
pub const HEARTBEAT_LIMIT: Duration =
    clock::MAX_SLEEP.saturating_add(refresher::HEARTBEAT_INTERVAL).saturating_add(STATE_DIRECTORY_STALL);

/// How long the refresher may wait for the disk and for the locks of the state directory.
const STATE_DIRECTORY_STALL: Duration = Duration::from_secs(15);

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

#[cfg(test)]
mod tests;
