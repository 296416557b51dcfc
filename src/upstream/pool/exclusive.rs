//! A connection over HTTP/1.1 of the pool.

use std::{
    error::Error as StdError,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
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

/// A connection over HTTP/1.1, which belongs to one request at a time.
pub(crate) struct ExclusiveConnection<C: Connect, B> {
    pub(in crate::upstream) http1: Http1Connection<C::Stream, B>,
    /// When it stops taking requests.
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
    /// `http1`, in `pool`, until `expires_at`.
    pub(super) fn new(
        http1: Http1Connection<C::Stream, B>,
        expires_at: Instant,
        connection_metrics: Arc<ConnectionMetrics>,
        pool: Weak<Pool<C, B>>,
    ) -> Self {
        Self { http1, expires_at, open_guard: OpenGuard(connection_metrics), pool }
    }

    /// Its metrics.
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

    /// Whether it is reusable at `now`, when it may stay idle until `idle_until`. If not, sets the close reason. Registers `cx` for a
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
            // From now on the reaper is woken when the peer closes it.
            let mut reaper_cx = Context::from_waker(state.reaper_waker.as_ref().unwrap_or(Waker::noop()));
            if self.check_reusable(&mut reaper_cx, now, now + pool.idle_timeout) {
                metrics.upstream().idle().inc();
                state.idle.push_back((self, now));
            }
        });
    }
}
