//! What the client of the upstream is configured with.

use std::time::Duration;

use http::Uri;

use crate::egress;

/// Where requests go, and over which connections.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Scheme and authority (`upstream.url`): `https://`, or `http://` and a loopback address. Every request goes there and
    /// nowhere else.
    pub url: Uri,
    /// The proxy that connections go through, if there is one (`upstream.egress_proxy`).
    pub egress: Option<egress::Config>,
    /// The time to connect, TLS included (`upstream.connect_timeout`).
    pub connect_timeout: Duration,
    /// The longest time that a body may make no progress (`upstream.idle_timeout`).
    pub idle_timeout: Duration,
    /// How long an unused connection is kept (`upstream.pool_idle_timeout`).
    pub pool_idle_timeout: Duration,
    /// How long a connection takes new requests (`upstream.connection_age`).
    pub connection_age: Duration,
    /// Whether HTTP/2 is offered (`upstream.http2 = "auto"`).
    pub http2: bool,
}
