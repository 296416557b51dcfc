//! Evictions of connections: what is counted and logged.

use std::sync::Arc;

use tracing::warn;

use crate::telemetry::{LogLimiter, Metrics};

labels! {
    /// Why a connection was evicted.
    pub(super) enum EvictionReason {
        /// At the limit of connections: nothing of a request had arrived.
        Idle = "idle",
        /// At the limit of connections: the head of a request had not arrived in full.
        UnfinishedHead = "unfinished_head",
        /// At the limit of connections: it was closing.
        Closing = "closing",
        /// At the limit of connections: the client did not read the response.
        StalledResponse = "stalled_response",
        /// There were too many bytes of unfinished heads.
        UnfinishedHeadBytes = "unfinished_heads_bytes",
    }
}

/// The evictions of one kind of listener.
#[derive(Debug)]
pub(super) struct Evictions {
    listener: &'static str,
    metrics: Arc<Metrics>,
    limit_log: LogLimiter,
    head_log: LogLimiter,
}

impl Evictions {
    /// Logs and metrics call the listener `listener`.
    pub(super) fn new(listener: &'static str, metrics: Arc<Metrics>) -> Self {
        for reason in EvictionReason::LABELS {
            metrics.init_eviction(listener, reason);
        }
        let (limit_log, head_log) = Default::default();
        Self { listener, metrics, limit_log, head_log }
    }

    /// Counts an eviction, and logs it at most once a second.
    pub(super) fn record(&self, reason: EvictionReason) {
        let Self { listener, metrics, .. } = self;
        metrics.connection_evicted(listener, reason.as_str());
        if reason == EvictionReason::UnfinishedHeadBytes {
            if let Some(times) = self.head_log.count() {
                warn!(
                    listener,
                    times,
                    "limits.unfinished_heads_bytes reached; closed the connection with the oldest unfinished head"
                );
            }
        } else if let Some(times) = self.limit_log.count() {
            let reason = reason.as_str();
            warn!(
                listener,
                reason, times, "connection limit reached; closed the longest idle connection for a new one"
            );
        }
    }
}
