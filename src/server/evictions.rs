//! Counts and logs evictions of connections.

use std::sync::Arc;

use tracing::warn;

use crate::telemetry::{LogLimiter, Metrics};

labels! {
    /// Why a connection was evicted.
    pub(super) enum EvictionReason {
        /// At the connection limit: no byte of a request had arrived.
        Idle = "idle",
        /// At the connection limit: the head of a request was incomplete.
        UnfinishedHead = "unfinished_head",
        /// At the connection limit: it was closing.
        Closing = "closing",
        /// At the connection limit: the client did not read the response.
        StalledResponse = "stalled_response",
        /// The unfinished heads exceeded `limits.unfinished_heads_bytes`.
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
    /// `listener` is the listener's name in logs and metrics.
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
