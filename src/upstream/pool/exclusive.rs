//! A pooled HTTP/1.1 connection.

use std::{
    error::Error as StdError,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use super::Pool;
use crate::{
    telemetry::CloseReason,
    upstream::{
        body_source::BodySource,
        connect::Connect,
        http1::{self, Http1Connection},
        lifecycle::{ConnectionMetrics, OpenGuard},
    },
};

/// The margin between the last reuse of an idle connection and its close by the upstream. A request takes time to arrive, and is lost if
/// the connection is closed by then.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// An HTTP/1.1 connection, used by one request at a time.
pub(crate) struct ExclusiveConnection<C: Connect, B> {
    pub(in crate::upstream) http1: Http1Connection<C::Stream, B>,
    /// The number in the pool.
    number: u64,
    /// When the connection stops taking requests.
    expires_at: Instant,
    open_guard: OpenGuard,
    pool: Weak<Pool<C, B>>,
}

impl<C, B> ExclusiveConnection<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Wraps `http1` for `pool`. It takes requests until `expires_at`.
    pub(super) fn new(
        http1: Http1Connection<C::Stream, B>,
        number: u64,
        expires_at: Instant,
        connection_metrics: Arc<ConnectionMetrics>,
        pool: Weak<Pool<C, B>>,
    ) -> Self {
        Self { http1, number, expires_at, open_guard: OpenGuard(connection_metrics), pool }
    }

    /// The number in the pool. Later connections have larger numbers.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How long the connection may be idle: `pool_timeout`, or less if the upstream announced an earlier close.
    fn idle_timeout(&self, pool_timeout: Duration) -> Duration {
        let announced = self.http1.keep_alive_timeout();
        announced.map_or(pool_timeout, |timeout| pool_timeout.min(timeout.saturating_sub(KEEP_ALIVE_MARGIN)))
    }

    /// The metrics of the connection.
    pub(in crate::upstream) fn connection_metrics(&self) -> &Arc<ConnectionMetrics> {
        &self.open_guard.0
    }

    /// Sets the close reason for a request that failed with `error`.
    pub(crate) fn record_failure(&self, error: &http1::Error) {
        let reason = match error {
            http1::Error::Body(_) | http1::Error::Length => CloseReason::Unfinished,
            http1::Error::Incomplete => CloseReason::Upstream,
            http1::Error::Parse(_) | http1::Error::Invalid(_) | http1::Error::Io(_) => CloseReason::Failed,
        };
        self.connection_metrics().set_close_reason(reason);
    }

    /// Whether the connection is reusable at `now`, given its idle deadline `idle_until`. If not, sets the close reason. Registers `cx` for a
    /// close by the peer.
    pub(super) fn check_reusable(&mut self, cx: &mut Context<'_>, now: Instant, idle_until: Instant) -> bool {
        let reason = match self.http1.poll_closed(cx) {
            Poll::Ready(true) => CloseReason::Upstream,
            Poll::Ready(false) => CloseReason::Failed,
            Poll::Pending if now >= self.expires_at => CloseReason::Age,
            Poll::Pending if now >= idle_until => CloseReason::Idle,
            Poll::Pending => return true,
        };
        self.connection_metrics().set_close_reason(reason);
        false
    }
}

impl<C, B> BodySource for ExclusiveConnection<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, http1::Error>>> {
        let part = self.http1.poll_data(cx);
        if let Poll::Ready(Some(Err(error))) = &part {
            self.record_failure(error);
        }
        part
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.http1.size_hint()
    }

    fn release(mut self: Box<Self>) {
        if !self.http1.is_response_complete() {
            return self.connection_metrics().set_close_reason(CloseReason::Unfinished);
        }
        let Some(pool) = self.pool.upgrade().filter(|_| self.http1.is_reusable()) else { return };
        let metrics = Arc::clone(&pool.metrics);
        pool.insert(|state, now| {
            // From now on, the reaper is woken when the peer closes the connection.
            let reaper_waker = state.reaper_waker.as_ref().unwrap_or(Waker::noop());
            let mut reaper_cx = Context::from_waker(reaper_waker);
            let idle_until = now + self.idle_timeout(pool.idle_timeout);
            if self.check_reusable(&mut reaper_cx, now, idle_until) {
                metrics.upstream().idle().inc();
                if state.next_reap.is_some_and(|next_reap| idle_until < next_reap) {
                    reaper_waker.wake_by_ref();
                }
                state.idle.push_back((self, idle_until));
            }
        });
    }
}
