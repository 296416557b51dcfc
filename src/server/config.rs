//! The server's settings and the limits of a connection.

use std::{num::NonZeroUsize, time::Duration};

use crate::message::framing::HeadLimits;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of worker threads (`runtime.worker_threads`).
    pub worker_threads: NonZeroUsize,
    /// The maximum number of open connections (`limits.connections`), lowered where necessary to fit `RLIMIT_NOFILE`. At the limit, the
    /// longest idle one is evicted for a new one; while all are busy, new ones wait.
    pub connections: usize,
    /// The maximum number of upstream connections, in addition: `limits.concurrency` for each worker.
    pub upstream_connections: usize,
    /// The maximum bytes of unfinished heads, over all connections of the process (`limits.unfinished_heads_bytes`).
    pub unfinished_heads_bytes: usize,
    /// The limits of each connection.
    pub limits: Limits,
}

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum size of a request head.
    pub head: HeadLimits,
    /// The time for the head of a request to arrive, from its first byte (`limits.header_timeout`).
    pub header_timeout: Duration,
    /// The time between a response and the next request (`limits.keepalive_timeout`).
    pub keepalive_timeout: Duration,
    /// How long the client may go without reading any of a response (`upstream.idle_timeout`).
    pub write_timeout: Duration,
}

impl Limits {
    /// The same limits for connections that may be idle for at most `max_idle`, before the first request and between requests.
    #[must_use]
    pub fn with_max_idle(self, max_idle: Duration) -> Self {
        let header_timeout = self.header_timeout.min(max_idle);
        Self { header_timeout, keepalive_timeout: self.keepalive_timeout.min(max_idle), ..self }
    }
}
