//! The metrics of an upstream connection: its opening, its close and the close reason.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::telemetry::{CloseReason, Metrics};

/// Counts a connection as opened and keeps its close reason.
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

    /// Sets the close reason. The first one is kept.
    pub(super) fn set_close_reason(&self, reason: CloseReason) {
        let _ = self.close_reason.set(reason);
    }

    /// Returns a guard to hold while a response is awaited. If the guard is dropped before [`AwaitingResponse::received`], it sets the close
    /// reason [`CloseReason::Unfinished`].
    pub(super) fn await_response(self: &Arc<Self>) -> AwaitingResponse {
        AwaitingResponse(Some(Arc::clone(self)))
    }
}

/// Counts the close of a connection on drop. Held by the owner of the connection.
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
    /// Records that the head of the response has arrived, or the request has failed.
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
