//! Listeners and their connections.

use prometheus::{IntCounterVec, IntGauge};

use super::factory::MetricFactory;

/// Metrics of the listeners.
#[derive(Debug)]
pub(super) struct ListenerMetrics {
    pub(super) connections: IntGauge,
    pub(super) connections_limit: IntGauge,
    /// By listener and problem.
    pub(super) accept_problems: IntCounterVec,
    /// By listener and reason.
    pub(super) evictions: IntCounterVec,
    pub(super) unfinished_heads: IntGauge,
}

impl ListenerMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        Self {
            connections: factory.gauge("connections", "Open client connections."),
            connections_limit: factory.gauge("connections_limit", "Maximum number of client connections."),
            accept_problems: factory.counter_vec(
                "accept_problems_total",
                "Connections that had to wait for a slot, were rejected, or could not be accepted, by listener and problem.",
                &["listener", "problem"],
            ),
            evictions: factory.counter_vec(
                "connections_evicted_total",
                "Connections closed to free a slot for another one, by listener and reason.",
                &["listener", "reason"],
            ),
            unfinished_heads: factory
                .gauge("unfinished_heads_bytes", "Bytes of incomplete request heads."),
        }
    }
}
