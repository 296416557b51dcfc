//! What the operator can set, and what each connection may do.

use std::{num::NonZeroUsize, time::Duration};

use crate::message::framing::HeadLimits;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of worker threads (`runtime.worker_threads`).
    pub worker_threads: NonZeroUsize,
    /// The most connections open at once (`limits.connections`). At the limit, the longest idle one is evicted for a new one, or new ones
    /// wait while all are busy. Fewer, where the limit of open files has no room for so many.
    pub connections: usize,
    /// The most connections to the upstream that are to be reckoned with beside them: `limits.concurrency` for each worker.
    pub upstream_connections: usize,
    /// The most bytes of unfinished heads, over all connections of the process (`limits.unfinished_heads_bytes`).
    pub unfinished_heads_bytes: usize,
    /// What a single connection may do.
    pub limits: Limits,
}

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How large the head of a request may be.
    pub head: HeadLimits,
    /// The time for the head of a request to arrive, from its first byte (`limits.header_timeout`).
    pub header_timeout: Duration,
    /// The time between a response and the next request (`limits.keepalive_timeout`).
    pub keepalive_timeout: Duration,
    /// The longest time that the client may take nothing of a response (`upstream.idle_timeout`).
    pub write_timeout: Duration,
}

impl Limits {
    /// The same for connections that are idle for at most `max_idle`, before the first request and between two.
    #[must_use]
    pub fn with_max_idle(self, max_idle: Duration) -> Self {
        let header_timeout = self.header_timeout.min(max_idle);
        Self { header_timeout, keepalive_timeout: self.keepalive_timeout.min(max_idle), ..self }
    }
}
