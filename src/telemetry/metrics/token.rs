//! What is known of the token, of the credentials, and of the guard against a lock-out.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{factory::MetricFactory, requests::LATENCY_BUCKETS_S};

/// How a successful token request is counted.
pub(super) const SUCCESS: &str = "success";

/// The state of new credentials when there are none.
const NO_CANDIDATE: &str = "none";

labels! {
    /// What became of a request whose token the upstream refused.
    pub enum ReauthOutcome {
        /// It was sent again with a newer token, which was accepted.
        Accepted = "healed",
        /// It was sent again, and refused again.
        RefusedAgain = "refused_again",
        /// It was sent again, and got no response.
        Failed = "failed",
        /// There was no newer token in time.
        NoToken = "no_token",
        /// Not enough of it was buffered to send it again.
        NotReplayable = "not_replayable",
    }
}

/// The gauges and counters of the token.
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

/// Where the token and its credentials stand, when the metrics are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenSnapshot<'a> {
    /// Until the token is no longer sent.
    pub remaining: Duration,
    /// Since the token was obtained.
    pub age: Duration,
    /// Until the next token request.
    pub next_request: Duration,
    /// The number of the token.
    pub version: u64,
    /// Every state.
    pub states: &'a [&'static str],
    /// The present one of them.
    pub state: &'a str,
    /// Whether the credentials in use were rejected.
    pub latched: bool,
    /// Whether too many of this id's credentials were rejected.
    pub budget_spent: bool,
    /// Rejections counted for this id.
    pub rejections: u32,
    /// Token requests with an unknown outcome that count against the credentials in use.
    pub unresolved: u32,
    /// Whether so many are unresolved that no token request is made.
    pub held: bool,
    /// Whether no token request is made, since the attempt cannot be recorded.
    pub unrecorded: bool,
    /// Every state of new credentials.
    pub candidates: &'a [&'static str],
    /// The present one of them; `None` without new credentials.
    pub candidate: Option<&'a str>,
}

impl TokenMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let metrics = Self {
            refreshes: factory.counter_vec("token_refreshes_total", "Token calls, by outcome.", &["outcome"]),
            request_duration: factory.histogram("token_call_duration_seconds", "Time that a token call took.", &LATENCY_BUCKETS_S),
            refusals: factory.counter("token_refusals_total", "Answers of the upstream that refused the token."),
            replays: factory
                .counter("replays_total", "Requests sent once more, since the upstream had refused their token."),
            reauths: factory.counters_by_label(
                "heals_total",
                "What became of requests whose token the upstream had refused.",
                "outcome",
                ReauthOutcome::LABELS,
            ),
            expiry: factory.float_gauge("token_expiry_seconds", "Time until the token is no longer sent; 0 without one."),
            age: factory.float_gauge("token_age_seconds", "Time since the token was minted; 0 without one."),
            next_request: factory.float_gauge(
                "token_next_call_seconds",
                "Time until the next token call; 0 when it is due, under way, or none will be made.",
            ),
            version: factory.gauge("token_version", "The number of the current token; 0 before the first."),
            state: factory.gauge_vec("token_state", "1 for the state that the token is in, 0 for the others.", &["state"]),
            lockout_latched: factory
                .gauge("lockout_latched", "1 while the credentials in use were rejected and are not tried again."),
            lockout_budget_spent: factory.gauge(
                "lockout_budget_spent",
                "1 while so many credentials of this id were rejected that none is tried.",
            ),
            lockout_rejections: factory
                .gauge("lockout_rejections", "Rejections counted for this id; five lock the vendor account."),
            lockout_unresolved: factory.gauge(
                "lockout_unresolved_attempts",
                "Token requests with unproven credentials of which the outcome is unknown; each may count towards the lock-out.",
            ),
            lockout_unrecorded: factory.gauge(
                "lockout_unrecorded",
                "1 while no token request is made, since the attempt cannot be recorded in auth.state_dir.",
            ),
            lockout_held: factory.gauge(
                "lockout_held",
                "1 while no token request is made, since too many have an unknown outcome.",
            ),
            candidate: factory.gauge_vec(
                "credentials_candidate",
                "1 for the state that new credentials are in, 0 for the others.",
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
