//! What is counted of the connections to the upstream.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{factory::MetricFactory, requests::LATENCY_BUCKETS_S};
use crate::tls::TlsFailure;

labels! {
    /// Why a connection to the upstream was closed.
    pub enum CloseReason {
        /// By the proxy: nobody had used it for `upstream.pool_idle_timeout`.
        Idle = "idle",
        /// By the proxy: it had served for `upstream.connection_age`.
        Age = "age",
        /// By the proxy: a request on it was given up before its answer had been taken whole.
        Unfinished = "unfinished",
        /// By the upstream, whether or not an answer was still to come.
        Upstream = "upstream",
        /// By an error of the connection itself: what came was no HTTP, or a write failed.
        Failed = "failed",
    }
}

labels! {
    /// Why a connection to the upstream could not be opened.
    pub enum ConnectFailure {
        /// The name cannot be resolved.
        Dns = "name",
        /// No address can be reached.
        Tcp = "tcp",
        /// The egress proxy makes no tunnel.
        Egress = "egress",
        /// The TLS handshake failed.
        Tls = "tls",
        /// HTTP cannot be begun.
        Http = "http",
        /// It elapsed too long.
        Timeout = "timeout",
    }
}

/// The counters of all connections to the upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    open: IntGauge,
    idle: IntGauge,
    opened: IntCounter,
    closed: [IntCounter; CloseReason::LABELS.len()],
    /// On a new connection, and on one that had served before.
    requests: [IntCounter; 2],
    connect_duration: Histogram,
    connect_failures: [IntCounter; ConnectFailure::LABELS.len()],
    tls_failures: [IntCounter; TlsFailure::LABELS.len() + 1],
    throttled: IntCounter,
}

impl UpstreamMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let mut faults = ["other"; TlsFailure::LABELS.len() + 1];
        faults[..TlsFailure::LABELS.len()].copy_from_slice(&TlsFailure::LABELS);
        Self {
            open: factory.gauge("upstream_connections", "Open connections to the upstream."),
            idle: factory.gauge("upstream_connections_idle", "Those over HTTP/1.1 that wait for a request."),
            opened: factory.counter("upstream_connections_opened_total", "Connections to the upstream that were opened."),
            closed: factory.counters_by_label(
                "upstream_connections_closed_total",
                "Connections to the upstream that were closed, by reason.",
                "reason",
                CloseReason::LABELS,
            ),
            requests: factory.counters_by_label(
                "upstream_requests_total",
                "Requests handed to a connection to the upstream, each sending counted: new, or one that had served before.",
                "connection",
                ["new", "reused"],
            ),
            connect_duration: factory.histogram(
                "upstream_connect_seconds",
                "Time to open a connection to the upstream: name, TCP, egress proxy and TLS.",
                &LATENCY_BUCKETS_S,
            ),
            connect_failures: factory.counters_by_label(
                "upstream_connect_failures_total",
                "Connections to the upstream that could not be opened, by reason.",
                "reason",
                ConnectFailure::LABELS,
            ),
            tls_failures: factory.counters_by_label(
                "upstream_tls_failures_total",
                "TLS handshakes with the upstream that failed, by what was wrong.",
                "fault",
                faults,
            ),
            throttled: factory.counter("upstream_throttled_total", "Answers of the upstream with status 429."),
        }
    }

    /// Counts a connection that was opened within `elapsed`.
    pub fn opened(&self, elapsed: Duration) {
        self.opened.inc();
        self.open.inc();
        self.connect_duration.observe(elapsed.as_secs_f64());
    }

    /// Counts the end of a connection.
    pub fn closed(&self, reason: CloseReason) {
        self.open.dec();
        self.closed[reason as usize].inc();
    }

    /// Counts a connection that could not be opened; `fault` is what was wrong with its TLS handshake, where that is known.
    pub fn connect_failed(&self, failure: ConnectFailure, fault: Option<TlsFailure>) {
        self.connect_failures[failure as usize].inc();
        if failure == ConnectFailure::Tls {
            self.tls_failures[fault.map_or(TlsFailure::LABELS.len(), |fault| fault as usize)].inc();
        }
    }

    /// Counts a request that is sent, on a connection that served before or on a new one.
    pub fn request_sent(&self, reused: bool) {
        self.requests[usize::from(reused)].inc();
    }

    /// Connections over HTTP/1.1 that wait for a request.
    pub fn idle(&self) -> &IntGauge {
        &self.idle
    }

    /// Counts an answer that says that there were too many requests.
    pub fn throttled(&self) {
        self.throttled.inc();
    }
}
