//! Evictions of connections: what is counted, logged and sent as a response.

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

impl EvictionReason {
    /// Whether the client gets a response, since it has sent a part of a request.
    pub(super) fn needs_response(self) -> bool {
        matches!(self, Self::UnfinishedHead | Self::UnfinishedHeadBytes)
    }
}

/// The evictions of one kind of listener.
#[derive(Debug)]
pub(super) struct Evictions {
    listener: &'static str,
    response: &'static str,
    /// The code by which responses are counted among the proxy's own errors.
    code: Option<&'static str>,
    metrics: Arc<Metrics>,
    limit_log: LogLimiter,
    head_log: LogLimiter,
}

impl Evictions {
    /// Logs and metrics call the listener `listener`. An evicted head gets `response`, a whole response as text, which counts
    /// as an error with `code` where there is one.
    pub(super) fn new(
        listener: &'static str,
        response: &'static str,
        code: Option<&'static str>,
        metrics: Arc<Metrics>,
    ) -> Self {
        for reason in EvictionReason::LABELS {
            metrics.init_eviction(listener, reason);
        }
        let (limit_log, head_log) = Default::default();
        Self { listener, response, code, metrics, limit_log, head_log }
    }

    /// The response to an evicted head.
    pub(super) fn response(&self) -> &'static [u8] {
        self.response.as_bytes()
    }

    /// Counts an eviction, and logs it at most once a second.
    pub(super) fn record(&self, reason: EvictionReason) {
        let Self { listener, code, metrics, .. } = self;
        metrics.connection_evicted(listener, reason.as_str());
        if let Some(code) = code.filter(|_| reason.needs_response()) {
            metrics.proxy_error(code);
        }
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
