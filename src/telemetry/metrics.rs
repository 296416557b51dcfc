//! Metrics, in Prometheus' text format.
//!
//! The label values are bounded: routes come from the catalogue, everything else is this program's own words. What a request
//! counts was looked up when its route was first used, so that it costs some atomic additions and no lookup.
//!
//! Deliberately absent: any label that a caller or the vendor could choose, and the OpenMetrics format, which says nothing
//! more of these metrics than the text format that every scraper takes.

mod evictions;
mod factory;
mod process;
mod requests;
mod token;
mod upstream;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Encoder as _, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use self::{evictions::Evictions, factory::Register, process::Process, requests::Requests, token::TokenMetrics};
pub use self::{
    factory::Family,
    requests::RouteMetrics,
    token::{Heal, TokenReading},
    upstream::{Closed, ConnectFailure, UpstreamMetrics},
};

/// The optional parts of the program that are compiled in.
const FEATURES: &str = if cfg!(feature = "sandbox") { "sandbox" } else { "none" };

/// Times in the queue: `limits.queue_timeout` is a second unless somebody changes it, and a minute would be a mistake.
const QUEUE_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

labels! {
    /// Something that is read again while the process runs.
    pub enum ReloadTarget {
        /// The vendor's credentials.
        Credentials = "credentials",
        /// The certificate authorities of `upstream.ca_file`.
        CaFile = "ca_file",
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    requests: Requests,
    upstream: UpstreamMetrics,
    token: TokenMetrics,
    errors: IntCounterVec,
    in_flight: IntGauge,
    connections: IntGauge,
    connections_limit: IntGauge,
    accept_problems: IntCounterVec,
    evictions: Evictions,
    queued: IntGauge,
    queue_wait: Histogram,
    shed: IntCounterVec,
    caller_credentials: IntCounter,
    policy_denials: IntCounterVec,
    panics: IntCounter,
    retries: IntCounter,
    reloads: [Reloads; ReloadTarget::ALL.len()],
    credentials_changed: Gauge,
    live: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
    log_lines_dropped: IntCounter,
    scrubber_catches: IntCounter,
}

/// The readings of one subject.
#[derive(Debug)]
struct Reloads {
    succeeded: IntCounter,
    failed: IntCounter,
    last_successful: IntGauge,
    last_success: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, with every metric at zero.
    pub fn new() -> Self {
        let add = Register::new();
        Process::register(&add);
        let build_info = add.gauges("build_info", "The version that runs; always 1.", &["version", "features"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), FEATURES]).set(1);
        let (requests, upstream, token) = (Requests::new(&add), UpstreamMetrics::new(&add), TokenMetrics::new(&add));
        let reloads = reloads(&add);
        let errors = add.counters("errors_total", "Answers that the proxy made itself, by error code.", &["code"]);
        let in_flight = add.gauge("requests_in_flight", "Requests being worked on, answers being streamed included.");
        let connections = add.gauge("connections", "Open connections from callers.");
        let connections_limit = add.gauge("connections_limit", "The maximum number of connections from callers.");
        let accept_problems = add.counters(
            "accept_problems_total",
            "Connections that found no free slot, were refused, or could not be accepted, by listener.",
            &["listener", "problem"],
        );
        let evictions = Evictions::new(&add);
        let queued = add.gauge("requests_queued", "Requests that wait, since limits.concurrency are being worked on.");
        let queue_wait =
            add.histogram("queue_wait_seconds", "Time that a request waited for a place, if it did.", &QUEUE_BUCKETS_S);
        let shed = add.counters("requests_shed_total", "Requests that found no place in time, by reason.", &["reason"]);
        let caller_credentials = add.counter(
            "caller_credentials_total",
            "Requests that came with credentials of their caller's own, which were removed.",
        );
        let policy_denials = add.counters(
            "policy_denials_total",
            "Requests that the operator's policy denies, enforced or not, by reason.",
            &["reason"],
        );
        let panics = add.counter("panics_total", "Panics of requests and of the refresher, each of them a bug.");
        let retries = add.counter("retries_total", "Requests sent once more, since their connection had failed them.");
        let credentials_changed = add.float(
            "credentials_changed_timestamp_seconds",
            "When the credentials in use came into use, in seconds since the Unix epoch.",
        );
        credentials_changed.set(unix_time());
        let live = add.gauge("live", "1 while /livez passes: the event loops answer.");
        let ready = add.gauge("ready", "1 while /readyz passes: a token was obtained and nothing drains.");
        let draining = add.gauge("draining", "1 while the process ends and finishes what is in flight.");
        let log_lines_dropped = add.counter("log_lines_dropped_total", "Log lines that nobody read in time.");
        let scrubber_catches =
            add.counter("scrubber_catches_total", "Secrets that were about to leave by an output, each of them a bug.");
        let (registry, families) = add.done();
        Self {
            registry,
            families,
            requests,
            upstream,
            token,
            errors,
            in_flight,
            connections,
            connections_limit,
            accept_problems,
            evictions,
            queued,
            queue_wait,
            shed,
            caller_credentials,
            policy_denials,
            panics,
            retries,
            reloads,
            credentials_changed,
            live,
            ready,
            draining,
            log_lines_dropped,
            scrubber_catches,
        }
    }

    /// Every family that the page can show: what documents, alerts and dashboards are held to.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The counters of the operation at `index` of the catalogue, or of all requests that are not in it. `method` and `route` are its
    /// labels, and `billable` says whether the vendor may bill it.
    pub fn route(&self, index: Option<usize>, method: &str, route: &str, billable: bool) -> &RouteMetrics {
        self.requests.route(index, method, route, billable)
    }

    /// The counters of the connections to the upstream.
    pub fn upstream(&self) -> &UpstreamMetrics {
        &self.upstream
    }

    /// Counts an answer that the proxy made itself.
    pub fn own_error(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// Shows `code` at zero before it is first counted.
    pub fn expect_error(&self, code: &str) {
        self.errors.with_label_values(&[code]);
    }

    /// Counts a request that the operator's policy denies for `reason`.
    pub fn policy_denied(&self, reason: &str) {
        self.policy_denials.with_label_values(&[reason]).inc();
    }

    /// Shows `reason` at zero before it is first counted.
    pub fn expect_policy_denial(&self, reason: &str) {
        self.policy_denials.with_label_values(&[reason]);
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

    /// Counts a connection to `listener` that was closed to make room, by `reason`.
    pub fn connection_evicted(&self, listener: &str, reason: &str) {
        self.evictions.evicted(listener, reason);
    }

    /// Shows `reason` at zero for `listener` before it is first counted.
    pub fn expect_eviction(&self, listener: &str, reason: &str) {
        self.evictions.expect(listener, reason);
    }

    /// The bytes of request heads that have not ended.
    pub fn unfinished_heads(&self) -> &IntGauge {
        self.evictions.unfinished_heads()
    }

    /// Counts a connection to `listener` that had a `problem` before it was served.
    pub fn accept_problem(&self, listener: &str, problem: &str) {
        self.accept_problems.with_label_values(&[listener, problem]).inc();
    }

    /// Shows `problem` at zero for `listener` before it is first counted.
    pub fn expect_accept_problem(&self, listener: &str, problem: &str) {
        self.accept_problems.with_label_values(&[listener, problem]);
    }

    /// Requests that wait for a place.
    pub fn queued(&self) -> &IntGauge {
        &self.queued
    }

    /// Notes how long a request waited for a place, whether it got one or not.
    pub fn queue_waited(&self, waited: Duration) {
        self.queue_wait.observe(waited.as_secs_f64());
    }

    /// Counts a request that was turned away for want of a place.
    pub fn shed(&self, reason: &str) {
        self.shed.with_label_values(&[reason]).inc();
    }

    /// Shows `reason` at zero before it is first counted.
    pub fn expect_shed(&self, reason: &str) {
        self.shed.with_label_values(&[reason]);
    }

    /// Counts a request that came with credentials of its caller's own.
    pub fn caller_credentials(&self) {
        self.caller_credentials.inc();
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts an answer that refused the token.
    pub fn token_refused(&self) {
        self.token.refusals.inc();
    }

    /// Counts a request that is sent once more.
    pub fn replayed(&self) {
        self.token.replays.inc();
    }

    /// Counts what became of a request whose token was refused.
    pub fn healed(&self, outcome: Heal) {
        self.token.heals[outcome as usize].inc();
    }

    /// Counts a request that is sent once more over another connection.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Notes how long a token call took.
    pub fn token_called(&self, took: Duration) {
        self.token.call.observe(took.as_secs_f64());
    }

    /// Counts a token request that obtained a token.
    pub fn token_refreshed(&self) {
        self.token.refreshes.with_label_values(&[token::SUCCESS]).inc();
    }

    /// Counts a token request that failed, by the class of failure.
    pub fn token_refresh_failed(&self, class: &str) {
        self.token.refreshes.with_label_values(&[class]).inc();
    }

    /// Shows `class` at zero before it is first counted.
    pub fn expect_token_failure(&self, class: &str) {
        self.token.refreshes.with_label_values(&[class]);
    }

    /// Notes where the token and its credentials stand, when the metrics are read.
    pub fn token(&self, reading: &TokenReading<'_>) {
        self.token.read(reading);
    }

    /// Notes that other credentials came into use.
    pub fn credentials_changed(&self) {
        self.credentials_changed.set(unix_time());
    }

    /// Counts a reading of `subject`, good or not.
    pub fn reloaded(&self, subject: ReloadTarget, good: bool) {
        let reloads = &self.reloads[subject as usize];
        reloads.last_successful.set(good.into());
        if good {
            reloads.succeeded.inc();
            reloads.last_success.set(unix_time());
        } else {
            reloads.failed.inc();
        }
    }

    /// Notes what the probes would say, when the metrics are read.
    pub fn probes(&self, live: bool, ready: bool, draining: bool) {
        self.live.set(live.into());
        self.ready.set(ready.into());
        self.draining.set(draining.into());
    }

    /// All metrics in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        let dropped = super::logging::dropped_lines();
        self.log_lines_dropped.inc_by(dropped.saturating_sub(self.log_lines_dropped.get()));
        let catches = super::logging::scrubber().catches();
        self.scrubber_catches.inc_by(catches.saturating_sub(self.scrubber_catches.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// Now, in seconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "Prometheus compares timestamps with the wall clock")]
fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The counters of what is read again. All of it was read once, and well, or the process would not have started.
fn reloads(add: &Register) -> [Reloads; ReloadTarget::ALL.len()] {
    let reloads = add.counters(
        "reloads_total",
        "Times that something was read again while the process ran, by outcome.",
        &["subject", "outcome"],
    );
    let last_successful =
        add.gauges("reload_last_successful", "Whether the last reading was good; 1 before any.", &["subject"]);
    let last_success = add.floats(
        "reload_last_success_timestamp_seconds",
        "When the last good reading was, the one at the start included, in seconds since the Unix epoch.",
        &["subject"],
    );
    ReloadTarget::ALL.map(|subject| {
        let subject = subject.as_str();
        let reloads = Reloads {
            succeeded: reloads.with_label_values(&[subject, "success"]),
            failed: reloads.with_label_values(&[subject, "failure"]),
            last_successful: last_successful.with_label_values(&[subject]),
            last_success: last_success.with_label_values(&[subject]),
        };
        reloads.last_successful.set(1);
        reloads.last_success.set(unix_time());
        reloads
    })
}

#[cfg(test)]
mod tests;
