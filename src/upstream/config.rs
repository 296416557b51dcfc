//! The configuration of the upstream client.

use std::time::Duration;

use http::Uri;

use crate::egress;

/// Where requests are sent, and how connections are kept.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Scheme and authority (`upstream.url`): `https://`, or `http://` with a loopback address. All requests are sent there.
    pub url: Uri,
    /// The egress proxy for connections, if any (`upstream.egress_proxy`).
    pub egress: Option<egress::Config>,
    /// The time limit for connecting, including TLS (`upstream.connect_timeout`).
    pub connect_timeout: Duration,
    /// How long a body may make no progress (`upstream.idle_timeout`).
    pub idle_timeout: Duration,
    /// How long an idle connection is kept (`upstream.pool_idle_timeout`).
    pub pool_idle_timeout: Duration,
    /// How long a connection takes new requests (`upstream.connection_age`).
    pub connection_age: Duration,
    /// Whether HTTP/2 is offered (`upstream.http2 = "auto"`).
    pub http2: bool,
}
