//! The listeners for callers and their connections.

use prometheus::{IntCounterVec, IntGauge};

use super::factory::MetricFactory;

/// The metrics of the listeners for callers.
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
            connections: factory.gauge("connections", "Open connections from callers."),
            connections_limit: factory.gauge("connections_limit", "The maximum number of connections from callers."),
            accept_problems: factory.counter_vec(
                "accept_problems_total",
                "Connections that found no free slot, were refused, or could not be accepted, by listener.",
                &["listener", "problem"],
            ),
            evictions: factory.counter_vec(
                "connections_evicted_total",
                "Connections closed to make room for others, by listener and reason.",
                &["listener", "reason"],
            ),
            unfinished_heads: factory
                .gauge("unfinished_heads_bytes", "Bytes of request heads that have not arrived in full."),
        }
    }
}
