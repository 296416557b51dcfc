//! Metrics of the token, the credentials and the lock-out guard.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{factory::MetricFactory, requests::LATENCY_BUCKETS_S};

/// The outcome of a successful token request.
pub(super) const SUCCESS: &str = "success";

/// The candidate state if there are no new credentials.
const NO_CANDIDATE: &str = "none";

labels! {
    /// The outcome of a request after the upstream refused its token.
    pub enum ReauthOutcome {
        /// The request was sent again with a newer token, which was accepted.
        Accepted = "healed",
        /// The request was sent again, and its token was refused again.
        RefusedAgain = "refused_again",
        /// The request was sent again, and got no response.
        Failed = "failed",
        /// There was no newer token in time.
        NoToken = "no_token",
        /// The request was not fully buffered, so it could not be sent again.
        NotReplayable = "not_replayable",
    }
}

/// Metrics of the token.
#[derive(Debug)]
pub(super) struct TokenMetrics {
    pub(super) refreshes: IntCounterVec,
    pub(super) request_duration: Histogram,
    pub(super) refusals: IntCounter,
    pub(super) replays: IntCounter,
    pub(super) reauths: [IntCounter; ReauthOutcome::LABELS.len()],
    expiry: Gauge,
    age: Gauge,
    next_request: Gauge,
    version: IntGauge,
    state: IntGaugeVec,
    lockout_latched: IntGauge,
    lockout_budget_spent: IntGauge,
    lockout_rejections: IntGauge,
    lockout_unresolved: IntGauge,
    lockout_held: IntGauge,
    lockout_unrecorded: IntGauge,
    candidate: IntGaugeVec,
}

/// The state of the token and its credentials at a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenSnapshot<'a> {
    /// Time until the token is no longer sent.
    pub remaining: Duration,
    /// Time since the token was obtained.
    pub age: Duration,
    /// Time until the next token request.
    pub next_request: Duration,
    /// Number of the token.
    pub version: u64,
    /// All states.
    pub states: &'a [&'static str],
    /// The current state.
    pub state: &'a str,
    /// Whether the credentials in use were rejected.
    pub latched: bool,
    /// Whether too many credentials of this client or partner ID were rejected.
    pub budget_spent: bool,
    /// Rejections counted for this ID.
    pub rejections: u32,
    /// Token requests with an unknown outcome that count against the credentials in use.
    pub unresolved: u32,
    /// Whether token requests are suspended because too many have an unknown outcome.
    pub held: bool,
    /// Whether token requests are suspended because the attempt cannot be recorded.
    pub unrecorded: bool,
    /// All states of new credentials.
    pub candidates: &'a [&'static str],
    /// The current state of new credentials. `None` if there are none.
    pub candidate: Option<&'a str>,
}

impl TokenMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let metrics = Self {
            refreshes: factory.counter_vec("token_refreshes_total", "Token requests, by outcome.", &["outcome"]),
            request_duration: factory.histogram(
                "token_call_duration_seconds",
                "Duration of token requests.",
                &LATENCY_BUCKETS_S,
            ),
            refusals: factory.counter("token_refusals_total", "Upstream responses that refused the token."),
            replays: factory.counter("replays_total", "Requests sent again because the upstream refused their token."),
            reauths: factory.counters_by_label(
                "heals_total",
                "Requests with a token that the upstream refused, by outcome.",
                "outcome",
                ReauthOutcome::LABELS,
            ),
            expiry: factory
                .float_gauge("token_expiry_seconds", "Time until the token is no longer sent; 0 without one."),
            age: factory.float_gauge("token_age_seconds", "Time since the token was obtained; 0 without one."),
            next_request: factory.float_gauge(
                "token_next_call_seconds",
                "Time until the next token request; 0 if it is due, in progress, or suspended.",
            ),
            version: factory.gauge("token_version", "Number of the current token; 0 before the first one."),
            state: factory.gauge_vec(
                "token_state",
                "1 for the current state of the token, 0 for the others.",
                &["state"],
            ),
            lockout_latched: factory
                .gauge("lockout_latched", "1 while the credentials in use were rejected and are not tried again."),
            lockout_budget_spent: factory.gauge(
                "lockout_budget_spent",
                "1 while no credentials are tried because too many of this ID were rejected.",
            ),
            lockout_rejections: factory
                .gauge("lockout_rejections", "Rejections counted for this ID; five lock the vendor account."),
            lockout_unresolved: factory.gauge(
                "lockout_unresolved_attempts",
                "Token requests with unproven credentials and an unknown outcome; each may count towards the lock-out.",
            ),
            lockout_unrecorded: factory.gauge(
                "lockout_unrecorded",
                "1 while token requests are suspended because the attempt cannot be recorded in auth.state_dir.",
            ),
            lockout_held: factory.gauge(
                "lockout_held",
                "1 while token requests are suspended because too many have an unknown outcome.",
            ),
            candidate: factory.gauge_vec(
                "credentials_candidate",
                "1 for the current state of new credentials, 0 for the others.",
                &["state"],
            ),
        };
        metrics.refreshes.with_label_values(&[SUCCESS]);
        metrics
    }

    /// Sets the gauges.
    pub(super) fn set(&self, snapshot: &TokenSnapshot<'_>) {
        self.expiry.set(snapshot.remaining.as_secs_f64());
        self.age.set(snapshot.age.as_secs_f64());
        self.next_request.set(snapshot.next_request.as_secs_f64());
        self.version.set(i64::try_from(snapshot.version).unwrap_or(i64::MAX));
        for state in snapshot.states {
            self.state.with_label_values(&[state]).set(i64::from(*state == snapshot.state));
        }
        self.lockout_latched.set(snapshot.latched.into());
        self.lockout_budget_spent.set(snapshot.budget_spent.into());
        self.lockout_rejections.set(snapshot.rejections.into());
        self.lockout_unresolved.set(snapshot.unresolved.into());
        self.lockout_held.set(snapshot.held.into());
        self.lockout_unrecorded.set(snapshot.unrecorded.into());
        let candidate = snapshot.candidate.unwrap_or(NO_CANDIDATE);
        for state in snapshot.candidates.iter().chain([&NO_CANDIDATE]) {
            self.candidate.with_label_values(&[state]).set(i64::from(*state == candidate));
        }
    }
}
