//! Metrics, in Prometheus' text format.
//!
//! The label values are bounded: routes come from the catalogue, everything else is this program's own words. What a request
//! counts was looked up when its route was first used, so that it costs some atomic additions and no lookup.
//!
//! Deliberately absent: any label that a caller or the vendor could choose, and the OpenMetrics format, which says nothing
//! more of these metrics than the text format that every scraper takes.

mod concurrency;
mod factory;
mod health;
mod listener;
mod output;
mod process;
mod reload;
mod requests;
mod token;
mod upstream;
mod webhook;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Encoder as _, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use self::{
    concurrency::ConcurrencyMetrics, factory::MetricFactory, health::HealthMetrics, listener::ListenerMetrics,
    output::OutputMetrics, process::ProcessCollector, reload::ReloadMetrics, requests::RequestMetrics,
    token::TokenMetrics, webhook::WebhookMetrics,
};
pub use self::{
    factory::MetricFamily,
    reload::ReloadTarget,
    requests::RouteMetrics,
    token::{ReauthOutcome, TokenSnapshot},
    upstream::{CloseReason, ConnectFailure, UpstreamMetrics},
    webhook::WebhookOutcome,
};
use crate::process::build_info;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Vec<MetricFamily>,
    requests: RequestMetrics,
    upstream: UpstreamMetrics,
    token: TokenMetrics,
    listener: ListenerMetrics,
    concurrency: ConcurrencyMetrics,
    reloads: ReloadMetrics,
    health: HealthMetrics,
    output: OutputMetrics,
    webhooks: WebhookMetrics,
    errors: IntCounterVec,
    caller_credentials: IntCounter,
    policy_denials: IntCounterVec,
    billable_budget: [IntGauge; 2],
    panics: IntCounter,
    retries: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register_build_info(factory: &MetricFactory) {
    let labels = ["version", "revision", "date", "target", "features"];
    let build_info = factory.gauge_vec("build_info", "What runs, and what it was built from; always 1.", &labels);
    let values =
        [build_info::VERSION, build_info::REVISION, build_info::DATE, build_info::TARGET, build_info::FEATURES];
    build_info.with_label_values(&values).set(1);
}

impl Metrics {
    /// A registry of its own, with every metric at zero.
    pub fn new() -> Self {
        let factory = MetricFactory::new();
        ProcessCollector::register(&factory);
        register_build_info(&factory);
        let requests = RequestMetrics::new(&factory);
        let upstream = UpstreamMetrics::new(&factory);
        let token = TokenMetrics::new(&factory);
        let listener = ListenerMetrics::new(&factory);
        let concurrency = ConcurrencyMetrics::new(&factory);
        let reloads = ReloadMetrics::new(&factory);
        let health = HealthMetrics::new(&factory);
        let output = OutputMetrics::new(&factory);
        let webhooks = WebhookMetrics::new(&factory);
        let errors =
            factory.counter_vec("errors_total", "Answers that the proxy made itself, by error code.", &["code"]);
        let caller_credentials = factory.counter(
            "caller_credentials_total",
            "Requests that came with credentials of their caller's own, which were removed.",
        );
        let policy_denials = factory.counter_vec(
            "policy_denials_total",
            "Requests that the operator's policy denies, enforced or not, by reason.",
            &["reason"],
        );
        let billable_budget = [
            factory.gauge(
                "billable_budget",
                "Calls that may be billed on one day (policy.billable_per_day); 0 without a limit.",
            ),
            factory.gauge("billable_budget_left", "Those that are left on this day of UTC; 0 without a limit."),
        ];
        let panics = factory.counter("panics_total", "Panics of requests and of the refresher, each of them a bug.");
        let retries =
            factory.counter("retries_total", "Requests sent once more, since their connection had failed them.");
        let (registry, families) = factory.finish();
        Self {
            registry,
            families,
            requests,
            upstream,
            token,
            listener,
            concurrency,
            reloads,
            health,
            output,
            webhooks,
            errors,
            caller_credentials,
            policy_denials,
            billable_budget,
            panics,
            retries,
        }
    }

    /// Every family that the page can show: what documents, alerts and dashboards are held to.
    pub fn families(&self) -> &[MetricFamily] {
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

    /// Counts an error response of the proxy itself, by its code.
    pub fn proxy_error(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// Shows `code` at zero before it is first counted.
    pub fn init_error(&self, code: &str) {
        self.errors.with_label_values(&[code]);
    }

    /// Counts a request that the operator's policy denies for `reason`.
    pub fn policy_denied(&self, reason: &str) {
        self.policy_denials.with_label_values(&[reason]).inc();
    }

    /// Shows `reason` at zero before it is first counted.
    pub fn init_policy_denial(&self, reason: &str) {
        self.policy_denials.with_label_values(&[reason]);
    }

    /// Shows how many calls may be billed on one day, and how many of them are left.
    pub fn set_billable_budget(&self, per_day: u64, left: u64) {
        for (gauge, value) in self.billable_budget.iter().zip([per_day, left]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> &IntGauge {
        &self.concurrency.in_flight
    }

    /// Open connections from callers.
    pub fn connections(&self) -> &IntGauge {
        &self.listener.connections
    }

    /// The maximum number of connections from callers.
    pub fn connections_limit(&self) -> &IntGauge {
        &self.listener.connections_limit
    }

    /// Counts a connection to `listener` that was closed to make room, by `reason`.
    pub fn connection_evicted(&self, listener: &str, reason: &str) {
        self.listener.evictions.with_label_values(&[listener, reason]).inc();
    }

    /// Shows `reason` at zero for `listener` before it is first counted.
    pub fn init_eviction(&self, listener: &str, reason: &str) {
        self.listener.evictions.with_label_values(&[listener, reason]);
    }

    /// The bytes of request heads that have not ended.
    pub fn unfinished_heads(&self) -> &IntGauge {
        &self.listener.unfinished_heads
    }

    /// Counts a connection to `listener` that had a `problem` before it was served.
    pub fn accept_problem(&self, listener: &str, problem: &str) {
        self.listener.accept_problems.with_label_values(&[listener, problem]).inc();
    }

    /// Shows `problem` at zero for `listener` before it is first counted.
    pub fn init_accept_problem(&self, listener: &str, problem: &str) {
        self.listener.accept_problems.with_label_values(&[listener, problem]);
    }

    /// Requests that wait for a permit.
    pub fn queued(&self) -> &IntGauge {
        &self.concurrency.queued
    }

    /// Records how long a request waited in the queue, whether it got a permit or not.
    pub fn observe_queue_wait(&self, elapsed: Duration) {
        self.concurrency.queue_wait.observe(elapsed.as_secs_f64());
    }

    /// Counts a request that was rejected without a permit, by `reason`.
    pub fn shed(&self, reason: &str) {
        self.concurrency.shed.with_label_values(&[reason]).inc();
    }

    /// Shows `reason` at zero before it is first counted.
    pub fn init_shed(&self, reason: &str) {
        self.concurrency.shed.with_label_values(&[reason]);
    }

    /// Counts a request that came with credentials of its caller's own.
    pub fn caller_credentials(&self) {
        self.caller_credentials.inc();
    }

    /// Counts a request to the webhook listener.
    pub fn webhook(&self, outcome: WebhookOutcome) {
        self.webhooks.count(outcome);
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
    pub fn reauthenticated(&self, outcome: ReauthOutcome) {
        self.token.reauths[outcome as usize].inc();
    }

    /// Counts a request that is sent once more over another connection.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Records how long a token request took.
    pub fn observe_token_request(&self, elapsed: Duration) {
        self.token.request_duration.observe(elapsed.as_secs_f64());
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
    pub fn init_token_failure(&self, class: &str) {
        self.token.refreshes.with_label_values(&[class]);
    }

    /// Sets the gauges of the token and its credentials, when the metrics are read.
    pub fn set_token(&self, snapshot: &TokenSnapshot<'_>) {
        self.token.set(snapshot);
    }

    /// Records that other credentials came into use.
    pub fn credentials_changed(&self) {
        self.reloads.credentials_changed();
    }

    /// Shows `fault` at zero, for a source of credentials that is a secret store.
    pub fn init_store_error(&self, fault: &str) {
        self.reloads.init_store_error(fault);
    }

    /// Counts a failure of the secret store.
    pub fn store_failed(&self, fault: &str) {
        self.reloads.store_failed(fault);
    }

    /// Counts a reload of `target`, and whether it succeeded.
    pub fn reloaded(&self, target: ReloadTarget, succeeded: bool) {
        self.reloads.reloaded(target, succeeded);
    }

    /// Sets the results of the probes, when the metrics are read.
    pub fn set_probes(&self, live: bool, ready: bool, draining: bool) {
        self.health.set(live, ready, draining);
    }

    /// All metrics in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.output.update();
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

#[cfg(test)]
mod tests;
