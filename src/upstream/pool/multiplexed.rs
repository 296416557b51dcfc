//! A pooled HTTP/2 connection.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::Pool;
use crate::{
    telemetry::CloseReason,
    upstream::{connect::Connect, http2::Http2Connection},
};

/// An HTTP/2 connection, shared by concurrent requests.
pub(crate) struct MultiplexedConnection<C: Connect, B> {
    pub(in crate::upstream) http2: Http2Connection,
    /// The number in the pool.
    number: u64,
    expires_at: Instant,
    pool: Weak<Pool<C, B>>,
}

impl<C: Connect, B> MultiplexedConnection<C, B> {
    /// Wraps `http2` for `pool`. It takes requests until `expires_at`.
    pub(super) fn new(http2: Http2Connection, number: u64, expires_at: Instant, pool: Weak<Pool<C, B>>) -> Self {
        Self { http2, number, expires_at, pool }
    }

    /// The number in the pool. Later connections have larger numbers.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a request can be sent now.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.expires_at && self.http2.is_usable()
    }

    /// Whether the connection has a free stream.
    pub(super) fn has_capacity(self: &Arc<Self>) -> bool {
        self.http2.has_capacity(self.active_requests())
    }

    /// Sets the close reason if the connection has reached its maximum age.
    fn record_age(&self, now: Instant) {
        if now >= self.expires_at {
            self.http2.connection_metrics().set_close_reason(CloseReason::Age);
        }
    }

    /// The number of requests in flight. The pool's own reference does not count.
    pub(super) fn active_requests(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    /// Whether the connection is reusable at `now`, given its idle deadline `idle_until`. If not, sets the close reason.
    pub(super) fn check_reusable(self: &Arc<Self>, now: Instant, idle_until: Instant) -> bool {
        let is_idle = now >= idle_until && self.active_requests() == 0;
        let is_usable = self.is_usable(now);
        if !is_usable {
            self.record_age(now);
        } else if is_idle {
            self.http2.connection_metrics().set_close_reason(CloseReason::Idle);
        }
        is_usable && !is_idle
    }

    /// Removes the connection from the pool. It has failed, but may still appear usable.
    pub(crate) fn evict(self: &Arc<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.state().multiplexed.retain(|(multiplexed, _)| !Arc::ptr_eq(multiplexed, self));
        }
    }
}
