//! Configuration of the request path.

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

/// How requests are admitted and forwarded.
#[derive(Clone, Debug)]
pub struct Config {
    /// The upstream, and the connections to it.
    pub upstream: UpstreamConfig,
    /// Hosts that callers may name, in addition to loopback names and the upstream's host (`guard.hosts`).
    pub hosts: Vec<Host>,
    /// A header field that callers must send (`guard.required_header`).
    pub required_header: Option<RequiredHeader>,
    /// The maximum number of requests in flight (`limits.concurrency`).
    pub concurrency: usize,
    /// The maximum number of requests that wait for a permit (`limits.queue`).
    pub queue: usize,
    /// The maximum time in that queue (`limits.queue_timeout`).
    pub queue_timeout: Duration,
    /// The maximum time to the first byte of a response (`upstream.first_byte_timeout`).
    pub first_byte_timeout: Duration,
    /// The same for operations that the vendor documents as slow (`upstream.slow_first_byte_timeout`).
    pub slow_first_byte_timeout: Duration,
    /// Limits of the request head. The connection enforces them; error responses name them.
    pub head_limits: HeadLimits,
    /// Limits of the request body.
    pub body_limits: BodyLimits,
    /// How webhooks are verified and forwarded.
    pub webhook: WebhookConfig,
    /// How the bodies of Connect calls are edited.
    pub connect: ConnectConfig,
    /// How many bytes of a request body are buffered for a resend (`upstream.replay_buffer`).
    pub replay_buffer: usize,
    /// The endpoints that callers must not reach.
    pub endpoints: AuthEndpoints,
    /// The operations of the upstream's API.
    pub catalogue: &'static Catalogue,
    /// The operator's policy.
    pub policy: Arc<Policy>,
    /// The maximum number of billable calls a day; `None` for no limit (`policy.billable_per_day`).
    pub billable_per_day: Option<u64>,
    /// The names of the injected header fields.
    pub injected_headers: Vec<HeaderName>,
    /// On which requests the credentials are also sent under a second pair of names (`auth.extra_headers`).
    pub extra_headers: ExtraHeaders,
    /// Header fields that are forwarded although they belong to a stripped family (`headers.forward`).
    pub forwarded_headers: Vec<HeaderName>,
    /// How long a request waits for a new token after its token was refused.
    pub reauth_wait: Duration,
}

/// How the bodies of Connect calls are edited.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// Whether `partnerId` is added (`connect.fill_partner_id`).
    pub fill_partner_id: bool,
    /// The identifier to use with OAuth 2.0 credentials, which contain none (`connect.partner_id`).
    pub partner_id: Option<Secret<String>>,
    /// The maximum size of an edited body, in bytes (`connect.body_bytes`).
    pub body_bytes: usize,
}

/// On which requests App Key and token are also sent under a second pair of names, with partner authentication (`auth.extra_headers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraHeaders {
    /// On operations that are documented to take them.
    Auto,
    /// On all requests.
    Always,
    /// On no request.
    Never,
}

impl ExtraHeaders {
    /// Whether the second pair is sent on requests for `operation`.
    pub(super) fn applies_to(self, operation: Operation) -> bool {
        match self {
            Self::Auto => operation.names_app_headers(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}
