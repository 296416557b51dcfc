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
        body_source::Source,
        connect::Connect,
        http1::{self, Http1Connection},
        lifecycle::{ConnectionMetrics, OpenGuard},
    },
};

/// A connection over HTTP/1.1, which belongs to one request at a time.
pub(crate) struct Exclusive<C: Connect, B> {
    pub(in crate::upstream) line: Http1Connection<C::Stream, B>,
    /// When it has served long enough.
    ends: Instant,
    open: OpenGuard,
    pool: Weak<Pool<C, B>>,
}

impl<C, B> Exclusive<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// `line`, in `pool`, until `ends`.
    pub(super) fn new(
        line: Http1Connection<C::Stream, B>,
        ends: Instant,
        life: Arc<ConnectionMetrics>,
        pool: Weak<Pool<C, B>>,
    ) -> Self {
        Self { line, ends, open: OpenGuard(life), pool }
    }

    /// How it lives and ends.
    pub(in crate::upstream) fn life(&self) -> &Arc<ConnectionMetrics> {
        &self.open.0
    }

    /// Notes that it ends because a request failed with `error`.
    pub(crate) fn note(&self, error: &http1::Error) {
        let reason = match error {
            http1::Error::Body(_) | http1::Error::Length => CloseReason::Unfinished,
            http1::Error::Incomplete => CloseReason::Upstream,
            http1::Error::Parse(_) | http1::Error::Invalid(_) | http1::Error::Io(_) => CloseReason::Failed,
        };
        self.life().ends_because(reason);
    }

    /// Whether it may be kept, and used, when it is idle and has been since a time that ends with `idle_until`. If not, it ends, and
    /// this is the place that knows why. Wakes `cx` when that changes by itself.
    pub(super) fn stays(&mut self, cx: &mut Context<'_>, now: Instant, idle_until: Instant) -> bool {
        let reason = match self.line.poll_ended(cx) {
            Poll::Ready(true) => CloseReason::Upstream,
            Poll::Ready(false) => CloseReason::Failed,
            Poll::Pending if now >= self.ends => CloseReason::Age,
            Poll::Pending if now >= idle_until => CloseReason::Idle,
            Poll::Pending => return true,
        };
        self.life().ends_because(reason);
        false
    }
}

impl<C, B> Source for Exclusive<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, http1::Error>>> {
        let part = self.line.poll_data(cx);
        if let Poll::Ready(Some(Err(error))) = &part {
            self.note(error);
        }
        part
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.line.size_hint()
    }

    fn give_back(mut self: Box<Self>) {
        if !self.line.is_answered() {
            return self.life().ends_because(CloseReason::Unfinished);
        }
        let Some(pool) = self.pool.upgrade().filter(|_| self.line.is_reusable()) else { return };
        let metrics = Arc::clone(&pool.metrics);
        pool.keep(|kept, now| {
            // Whoever looks after it hears from now on how it fares.
            let mut watched = Context::from_waker(kept.waker.as_ref().unwrap_or(Waker::noop()));
            if self.stays(&mut watched, now, now + pool.idle_timeout) {
                metrics.upstream().idle().inc();
                kept.idle.push_back((self, now));
            }
        });
    }
}
