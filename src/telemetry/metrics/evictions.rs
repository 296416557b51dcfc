//! Connections that were closed to make room.

use prometheus::{IntCounterVec, IntGauge};

use super::factory::Register;

/// Their metrics, and that of what they are closed for.
#[derive(Debug)]
pub(super) struct Evictions {
    connections: IntCounterVec,
    unfinished_heads: IntGauge,
}

impl Evictions {
    pub(super) fn new(add: &Register) -> Self {
        let connections = add.counters(
            "connections_evicted_total",
            "Connections closed to make room for others, by listener and reason.",
            &["listener", "reason"],
        );
        let unfinished_heads =
            add.gauge("unfinished_heads_bytes", "Bytes of request heads that have not arrived in full.");
        Self { connections, unfinished_heads }
    }

    pub(super) fn expect(&self, listener: &str, reason: &str) {
        self.connections.with_label_values(&[listener, reason]);
    }

    pub(super) fn evicted(&self, listener: &str, reason: &str) {
        self.connections.with_label_values(&[listener, reason]).inc();
    }

    pub(super) fn unfinished_heads(&self) -> &IntGauge {
        &self.unfinished_heads
    }
}
