//! What the request path is configured with.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{body_limits::BodyLimits, endpoints::AuthEndpoints, webhook::WebhookConfig};
use crate::{
    message::{framing::HeadLimits, guard::RequiredHeader, host::Host},
    policy::Policy,
    secret::Secret,
    upstream::UpstreamConfig,
    vendor::catalogue::{Catalogue, Operation},
};

/// How requests are let in and forwarded.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where requests go, and over which connections.
    pub upstream: UpstreamConfig,
    /// Hosts that callers may name besides the loopback names and the upstream's own (`guard.hosts`).
    pub hosts: Vec<Host>,
    /// A header field that callers must send (`guard.required_header`).
    pub required_header: Option<RequiredHeader>,
    /// The most requests with the upstream at once (`limits.concurrency`).
    pub concurrency: usize,
    /// The most requests that wait for a permit (`limits.queue`) …
    pub queue: usize,
    /// … and for how long (`limits.queue_timeout`).
    pub queue_timeout: Duration,
    /// The time to the first byte of an answer (`upstream.first_byte_timeout`).
    pub first_byte_timeout: Duration,
    /// The same for the operations that the vendor calls slow (`upstream.slow_first_byte_timeout`).
    pub slow_first_byte_timeout: Duration,
    /// How large a request's head may be. The connection enforces it; the answer names the limit.
    pub head_limits: HeadLimits,
    /// How large a request's body may be, and how slowly it may come.
    pub body_limits: BodyLimits,
    /// How webhooks are verified and forwarded.
    pub webhook: WebhookConfig,
    /// How the bodies of Connect calls are edited.
    pub connect: ConnectConfig,
    /// How many bytes of a request's body are kept for a replay (`upstream.replay_buffer`).
    pub replay_buffer: usize,
    /// The endpoints that callers must not reach.
    pub endpoints: AuthEndpoints,
    /// The operations of the upstream's API.
    pub catalogue: &'static Catalogue,
    /// What callers may call.
    pub policy: Arc<Policy>,
    /// How many calls that may be billed go through on one day, if that is limited (`policy.billable_per_day`).
    pub billable_per_day: Option<u64>,
    /// The names of the header fields that are injected.
    pub injected_headers: Vec<HeaderName>,
    /// On which requests they are sent under a second pair of names (`auth.extra_headers`).
    pub extra_headers: ExtraHeaders,
    /// Names of header families that are forwarded all the same (`headers.forward`).
    pub forwarded_headers: Vec<HeaderName>,
    /// How long a request whose token was refused waits for a new one.
    pub reauth_wait: Duration,
}

/// How the bodies of Connect calls are edited.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// Whether `partnerId` is added (`connect.fill_partner_id`).
    pub fill_partner_id: bool,
    /// The identifier with OAuth 2.0 credentials, which have none (`connect.partner_id`).
    pub partner_id: Option<Secret<String>>,
    /// The largest body that is edited (`connect.body_bytes`).
    pub body_bytes: usize,
}

/// On which requests App Key and token are sent under a second pair of names, with partner authentication (`auth.extra_headers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraHeaders {
    /// On the operations that the catalogue knows to take them.
    Auto,
    /// On all.
    Always,
    /// On none.
    Never,
}

impl ExtraHeaders {
    /// Whether it applies to requests for `operation`.
    pub(super) fn applies_to(self, operation: Operation) -> bool {
        match self {
            Self::Auto => operation.names_app_headers(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}
