//! The metrics of one connection to the upstream: opening, closing, and the reason of the latter.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::telemetry::{CloseReason, Metrics};

/// Counts a connection as opened, and keeps the reason of its close.
#[derive(Debug)]
pub(super) struct ConnectionMetrics {
    metrics: Arc<Metrics>,
    close_reason: OnceLock<CloseReason>,
}

impl ConnectionMetrics {
    /// Counts a connection that took `connect_time` to open.
    pub(super) fn opened(metrics: Arc<Metrics>, connect_time: Duration) -> Arc<Self> {
        metrics.upstream().opened(connect_time);
        Arc::new(Self { metrics, close_reason: OnceLock::new() })
    }

    /// Sets the reason of its close. The first reason is kept.
    pub(super) fn set_close_reason(&self, reason: CloseReason) {
        let _ = self.close_reason.set(reason);
    }

    /// To be held while a response is awaited. If it is dropped before [`AwaitingResponse::received`], it sets the close reason
    /// [`CloseReason::Unfinished`].
    pub(super) fn await_response(self: &Arc<Self>) -> AwaitingResponse {
        AwaitingResponse(Some(Arc::clone(self)))
    }
}

/// Counts the close of a connection when it is dropped. The owner of the connection owns it.
#[derive(Debug)]
pub(super) struct OpenGuard(pub(super) Arc<ConnectionMetrics>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let ConnectionMetrics { metrics, close_reason } = &*self.0;
        metrics.upstream().closed(close_reason.get().copied().unwrap_or(CloseReason::Upstream));
    }
}

/// A request that awaits its response.
#[derive(Debug)]
pub(super) struct AwaitingResponse(Option<Arc<ConnectionMetrics>>);

impl AwaitingResponse {
    /// The response has come, or has failed.
    pub(super) fn received(mut self) {
        self.0 = None;
    }
}

impl Drop for AwaitingResponse {
    fn drop(&mut self) {
        if let Some(metrics) = &self.0 {
            metrics.set_close_reason(CloseReason::Unfinished);
        }
    }
}
