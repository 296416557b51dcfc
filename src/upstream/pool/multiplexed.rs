//! A connection over HTTP/2 of the pool.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::Pool;
use crate::{
    telemetry::CloseReason,
    upstream::{connect::Connect, http2},
};

/// A connection over HTTP/2, and the pool that it belongs to.
pub(crate) struct Shared<C: Connect, B> {
    pub(in crate::upstream) connection: http2::Connection,
    ends: Instant,
    pool: Weak<Pool<C, B>>,
}

impl<C: Connect, B> Shared<C, B> {
    /// `connection`, in `pool`, until `ends`.
    pub(super) fn new(connection: http2::Connection, ends: Instant, pool: Weak<Pool<C, B>>) -> Self {
        Self { connection, ends, pool }
    }

    /// Whether a request can be sent now.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.ends && self.connection.is_usable()
    }

    /// Whether one request more can be on it at the same time.
    pub(super) fn has_room(self: &Arc<Self>) -> bool {
        self.connection.has_room_beside(self.users())
    }

    /// Notes that it ends for its age, if it has that.
    fn note_age(&self, now: Instant) {
        if now >= self.ends {
            self.connection.life().ends_because(CloseReason::Age);
        }
    }

    /// How many requests are on it, when the pool keeps it.
    pub(super) fn users(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    /// Whether it may be kept, and used, when it is idle and has been since a time that ends with `idle_until`.
    pub(super) fn stays(self: &Arc<Self>, now: Instant, idle_until: Instant) -> bool {
        let idle = now >= idle_until && self.users() == 0;
        let usable = self.is_usable(now);
        if !usable {
            self.note_age(now);
        } else if idle {
            self.connection.life().ends_because(CloseReason::Idle);
        }
        usable && !idle
    }

    /// Gets no more requests: it has ended, and may not have noticed yet.
    pub(crate) fn forget(self: &Arc<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.kept().shared.retain(|(shared, _)| !Arc::ptr_eq(shared, self));
        }
    }
}
