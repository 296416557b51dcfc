//! Metrics of the connections to the upstream.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::{factory::MetricFactory, requests::LATENCY_BUCKETS_S};
use crate::tls::TlsFailure;

labels! {
    /// Why a connection to the upstream was closed.
    pub enum CloseReason {
        /// By the proxy, after `upstream.pool_idle_timeout` without use.
        Idle = "idle",
        /// By the proxy, after `upstream.connection_age`.
        Age = "age",
        /// By the proxy, because a request was aborted before its response was fully read.
        Unfinished = "unfinished",
        /// By the upstream, whether or not a response was outstanding.
        Upstream = "upstream",
        /// By an error of the connection: invalid HTTP, or a failed write.
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
        /// The egress proxy did not open a tunnel.
        Egress = "egress",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The HTTP/2 handshake failed.
        Http = "http",
        /// `upstream.connect_timeout` elapsed.
        Timeout = "timeout",
    }
}

/// Metrics of all connections to the upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    open: IntGauge,
    idle: IntGauge,
    opened: IntCounter,
    closed: [IntCounter; CloseReason::LABELS.len()],
    /// On a new connection, and on a reused one.
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
            idle: factory.gauge("upstream_connections_idle", "Idle HTTP/1.1 connections to the upstream."),
            opened: factory.counter("upstream_connections_opened_total", "Connections opened to the upstream."),
            closed: factory.counters_by_label(
                "upstream_connections_closed_total",
                "Closed connections to the upstream, by reason.",
                "reason",
                CloseReason::LABELS,
            ),
            requests: factory.counters_by_label(
                "upstream_requests_total",
                "Requests sent to the upstream, resends included, by whether the connection was new or reused.",
                "connection",
                ["new", "reused"],
            ),
            connect_duration: factory.histogram(
                "upstream_connect_seconds",
                "Time to open a connection to the upstream: DNS, TCP, egress proxy and TLS.",
                &LATENCY_BUCKETS_S,
            ),
            connect_failures: factory.counters_by_label(
                "upstream_connect_failures_total",
                "Failed attempts to connect to the upstream, by reason.",
                "reason",
                ConnectFailure::LABELS,
            ),
            tls_failures: factory.counters_by_label(
                "upstream_tls_failures_total",
                "Failed TLS handshakes with the upstream, by fault.",
                "fault",
                faults,
            ),
            throttled: factory.counter("upstream_throttled_total", "Upstream responses with status 429."),
        }
    }

    /// Counts a connection that took `elapsed` to open.
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

    /// Counts a failed attempt to connect. `fault` is the cause of a failed TLS handshake, if known.
    pub fn connect_failed(&self, failure: ConnectFailure, fault: Option<TlsFailure>) {
        self.connect_failures[failure as usize].inc();
        if failure == ConnectFailure::Tls {
            self.tls_failures[fault.map_or(TlsFailure::LABELS.len(), |fault| fault as usize)].inc();
        }
    }

    /// Counts a request that is sent on a reused or new connection.
    pub fn request_sent(&self, reused: bool) {
        self.requests[usize::from(reused)].inc();
    }

    /// Idle HTTP/1.1 connections.
    pub fn idle(&self) -> &IntGauge {
        &self.idle
    }

    /// Counts a 429 response.
    pub fn throttled(&self) {
        self.throttled.inc();
    }
}
