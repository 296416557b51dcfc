//! Metrics, in Prometheus' text format.
//!
//! The label values are bounded: routes come from the catalogue, codes and outcomes are this program's own words. The
//! counters of a route are looked up once and then kept, so that a request costs a few atomic additions.

use std::{sync::OnceLock, time::Duration};

use http::StatusCode;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::{Collector, GenericCounter, GenericGauge},
};

/// From one millisecond to the 240 s that the slowest calls may take.
const LATENCY_BUCKETS_S: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 90.0, 240.0];

/// Status classes: `1xx` to `5xx`, and `aborted` for a request that ended without an answer.
const CLASSES: [&str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// More routes than the catalogue will ever have; the last place takes all beyond it.
const MAX_ROUTES: usize = 512;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: Box<[OnceLock<RouteMetrics>]>,
    requests: IntCounterVec,
    first_byte: HistogramVec,
    errors: IntCounterVec,
    in_flight: IntGauge,
    connections: IntGauge,
    connections_limit: IntGauge,
    accept_problems: IntCounterVec,
    queued: IntGauge,
    shed: IntCounterVec,
    panics: IntCounter,
    replays: IntCounter,
    retries: IntCounter,
    token_refreshes: IntCounterVec,
    token_expiry: Gauge,
    token_version: IntGauge,
    token_state: IntGaugeVec,
    lockout_latched: IntGauge,
    lockout_budget_spent: IntGauge,
    lockout_rejections: IntGauge,
    log_lines_dropped: IntCounter,
}

/// The counters of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    by_class: [IntCounter; CLASSES.len()],
    first_byte: Histogram,
}

impl RouteMetrics {
    /// Counts a request that was answered with `status`, or that ended without an answer.
    pub fn finished(&self, status: Option<StatusCode>) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(CLASSES.len() - 1));
        self.by_class[class].inc();
    }

    /// Notes how long the upstream took to the first byte of its answer.
    pub fn first_byte(&self, took: Duration) {
        self.first_byte.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, with every metric at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let add = Register(&registry);
        let build_info = add.gauges("build_info", "The version that runs; always 1.", &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            routes: (0..MAX_ROUTES).map(|_| OnceLock::new()).collect(),
            requests: add.counters(
                "requests_total",
                "Requests that ended, by operation of the vendor's API and by class of the status answered.",
                &["method", "route", "status_class"],
            ),
            first_byte: add.histogram(
                "upstream_first_byte_seconds",
                "Time from handing a request to the upstream connection until the head of its answer.",
                &["method", "route"],
            ),
            errors: add.counters("errors_total", "Answers that the proxy made itself, by error code.", &["code"]),
            in_flight: add.gauge("requests_in_flight", "Requests being worked on, answers being streamed included."),
            connections: add.gauge("connections", "Open connections from callers."),
            connections_limit: add.gauge("connections_limit", "The most connections from callers; further ones wait."),
            accept_problems: add.counters(
                "accept_problems_total",
                "Connections that waited for a place, were refused, or could not be accepted, by listener.",
                &["listener", "problem"],
            ),
            queued: add.gauge("requests_queued", "Requests that wait, since limits.concurrency are being worked on."),
            shed: add.counters("requests_shed_total", "Requests that found no place in time, by reason.", &["reason"]),
            panics: add.counter("panics_total", "Requests that ended in a panic, each of them a bug."),
            replays: add
                .counter("replays_total", "Requests sent once more, since the upstream had refused their token."),
            retries: add.counter("retries_total", "Requests sent once more, since their connection had failed them."),
            token_refreshes: add.counters("token_refreshes_total", "Token calls, by outcome.", &["outcome"]),
            token_expiry: add.float("token_expiry_seconds", "Time until the token is no longer sent; 0 without one."),
            token_version: add.gauge("token_version", "The number of the current token; 0 before the first."),
            token_state: add.gauges(
                "token_state",
                "1 for the state that the token is in, 0 for the others.",
                &["state"],
            ),
            lockout_latched: add
                .gauge("lockout_latched", "1 while the credentials in use were rejected and are not tried again."),
            lockout_budget_spent: add.gauge(
                "lockout_budget_spent",
                "1 while so many credentials of this id were rejected that none is tried.",
            ),
            lockout_rejections: add
                .gauge("lockout_rejections", "Rejections counted for this id; five lock the vendor account."),
            log_lines_dropped: add.counter("log_lines_dropped_total", "Log lines that nobody read in time."),
            registry,
        };
        for outcome in
            ["success", "rejected", "config", "throttled", "transient", "certificate", "redirect", "malformed"]
        {
            metrics.token_refreshes.with_label_values(&[outcome]);
        }
        for problem in ["full", "refused", "failed"] {
            metrics.accept_problems.with_label_values(&["proxy", problem]);
        }
        for reason in ["queue_full", "queue_timeout"] {
            metrics.shed.with_label_values(&[reason]);
        }
        metrics
    }

    /// The counters of the route with the number `index`; `method` and `route` are its labels.
    pub fn route(&self, index: usize, method: &str, route: &str) -> &RouteMetrics {
        self.routes[index.min(MAX_ROUTES - 1)].get_or_init(|| RouteMetrics {
            by_class: CLASSES.map(|class| self.requests.with_label_values(&[method, route, class])),
            first_byte: self.first_byte.with_label_values(&[method, route]),
        })
    }

    /// Counts an answer that the proxy made itself.
    pub fn own_error(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// Requests being worked on.
    pub fn in_flight(&self) -> &IntGauge {
        &self.in_flight
    }

    /// Open connections from callers.
    pub fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// The most connections from callers.
    pub fn connections_limit(&self) -> &IntGauge {
        &self.connections_limit
    }

    /// Counts a connection to `listener` that waited (`full`), that was closed at once (`refused`), or that could not be accepted
    /// (`failed`).
    pub fn accept_problem(&self, listener: &str, problem: &str) {
        self.accept_problems.with_label_values(&[listener, problem]).inc();
    }

    /// Requests that wait for a place.
    pub fn queued(&self) -> &IntGauge {
        &self.queued
    }

    /// Counts a request that was turned away for want of a place.
    pub fn shed(&self, reason: &str) {
        self.shed.with_label_values(&[reason]).inc();
    }

    /// Counts a request that ended in a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts a request that is sent once more.
    pub fn replayed(&self) {
        self.replays.inc();
    }

    /// Counts a request that is sent once more over another connection.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Counts a token call.
    pub fn token_refreshed(&self, outcome: &str) {
        self.token_refreshes.with_label_values(&[outcome]).inc();
    }

    /// Notes where the token stands, when the metrics are read. `states` holds every state, and whether it is the present one.
    pub fn token(&self, remaining: Duration, version: u64, states: impl Iterator<Item = (&'static str, bool)>) {
        self.token_expiry.set(remaining.as_secs_f64());
        self.token_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        for (state, present) in states {
            self.token_state.with_label_values(&[state]).set(i64::from(present));
        }
    }

    /// Notes what the lock-out guard says, when the metrics are read.
    pub fn lockout(&self, latched: bool, budget_spent: bool, rejections: u32) {
        self.lockout_latched.set(latched.into());
        self.lockout_budget_spent.set(budget_spent.into());
        self.lockout_rejections.set(rejections.into());
    }

    /// All metrics in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        let dropped = super::logging::dropped_lines();
        self.log_lines_dropped.inc_by(dropped.saturating_sub(self.log_lines_dropped.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// Makes metrics and registers them, all under one prefix.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn add<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("names and labels are constant and valid");
        self.0.register(Box::new(collector.clone())).expect("every name is registered once");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(GenericCounter::with_opts(opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(GenericGauge::with_opts(opts(name, help)))
    }

    fn float(&self, name: &str, help: &str) -> Gauge {
        self.add(GenericGauge::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(LATENCY_BUCKETS_S.to_vec());
        self.add(HistogramVec::new(opts, labels))
    }
}

const NAMESPACE: &str = "finicity_proxy";

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_route_and_class() {
        let metrics = Metrics::new();
        let route = metrics.route(3, "GET", "/a/{b}");
        route.finished(Some(StatusCode::OK));
        route.finished(Some(StatusCode::NOT_FOUND));
        route.finished(None);
        route.first_byte(Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            r#"finicity_proxy_requests_total{method="GET",route="/a/{b}",status_class="2xx"} 1"#,
            r#"finicity_proxy_requests_total{method="GET",route="/a/{b}",status_class="4xx"} 1"#,
            r#"finicity_proxy_requests_total{method="GET",route="/a/{b}",status_class="aborted"} 1"#,
            r#"finicity_proxy_upstream_first_byte_seconds_bucket{method="GET",route="/a/{b}",le="0.005"} 1"#,
            r#"finicity_proxy_token_refreshes_total{outcome="rejected"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_status_outside_the_classes_and_a_route_outside_the_table_are_counted_all_the_same() {
        let metrics = Metrics::new();
        metrics.route(100_000, "_OTHER", "other").finished(StatusCode::from_u16(999).ok());
        assert!(metrics.render().contains(r#"route="other",status_class="5xx"} 1"#));
    }
}
