//! How a connection to the upstream lives and ends, for the metrics.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::telemetry::{CloseReason, Metrics};

/// Counts a connection as open, and remembers why it is going to end. Costs a request nothing.
#[derive(Debug)]
pub(super) struct ConnectionMetrics {
    metrics: Arc<Metrics>,
    reason: OnceLock<CloseReason>,
}

impl ConnectionMetrics {
    /// The life of a connection that took so long to open.
    pub(super) fn begin(metrics: Arc<Metrics>, took: Duration) -> Arc<Self> {
        metrics.upstream().opened(took);
        Arc::new(Self { metrics, reason: OnceLock::new() })
    }

    /// Notes why it ends; the first reason is the one that counts.
    pub(super) fn ends_because(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
    }

    /// To be held while an answer is waited for. Should it be dropped before [`AwaitingResponse::ended`], that ends the connection.
    pub(super) fn pending(self: &Arc<Self>) -> AwaitingResponse {
        AwaitingResponse(Some(Arc::clone(self)))
    }
}

/// Counts the end of a connection when it is dropped. It belongs to whatever the connection belongs to.
#[derive(Debug)]
pub(super) struct OpenGuard(pub(super) Arc<ConnectionMetrics>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let ConnectionMetrics { metrics, reason } = &*self.0;
        metrics.upstream().closed(reason.get().copied().unwrap_or(CloseReason::Upstream));
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct AwaitingResponse(Option<Arc<ConnectionMetrics>>);

impl AwaitingResponse {
    /// It waits no more.
    pub(super) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for AwaitingResponse {
    fn drop(&mut self) {
        if let Some(life) = &self.0 {
            life.ends_because(CloseReason::Unfinished);
        }
    }
}
