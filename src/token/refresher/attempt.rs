//! One token request: clearance to send it, the request itself, and the handling of its outcome.

use std::{ops::ControlFlow, pin::pin, time::Duration};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    BootInstant, Refresher, TokenSource,
    credential_state::{CredentialSlot, Obstacle},
    report::log_persist_error,
};
use crate::{
    credentials::lockout::{Baseline, BeginOutcome, Decision, Permit},
    telemetry::AUDIT,
    token::{
        STATE_DIRECTORY_STALL,
        classify::{Disposition, FailureClass, TokenFailure},
        endpoint::{PROBE_TIMEOUT, PROVEN_TIMEOUT, UNPROVEN_TIMEOUT},
        schedule::Lifetime,
        scheme::AuthHeaders,
    },
};

/// How long a token request in flight may continue after shutdown has been requested. If its rejection were not recorded, the next
/// process would try the same credentials again.
pub const FINAL_CALL_GRACE: Duration = Duration::from_secs(2);

/// How often the heartbeat is renewed during a request.
pub(in crate::token) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// How often to check whether another process that shares the state directory has finished its attempt.
const SHARED_ATTEMPT_POLL: Duration = Duration::from_secs(1);

/// How long an attempt of another process may last before it is reported: longer than any attempt and its record take, unless that
/// process was suspended.
const SHARED_ATTEMPT_LIMIT: Duration = UNPROVEN_TIMEOUT.saturating_add(STATE_DIRECTORY_STALL);

/// The pause after an attempt could not be recorded. The state directory is at fault, so an operator has to act.
const UNRECORDED_PAUSE: Duration = Duration::from_secs(30);

/// The end of an outage of the token endpoint is detected within this time.
const OUTAGE_END_NOTICED: Duration = Duration::from_secs(60);

/// The bounds of the pause between two probes of the token endpoint.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(40));

/// The maximum random addition to the pause between probes, as a fraction of it, so a fleet spreads out.
const PROBE_JITTER: f64 = 0.1;

const _: () = assert!(
    PROBE_PAUSE.1.as_secs_f64() * (1.0 + PROBE_JITTER) + PROBE_TIMEOUT.as_secs_f64() < OUTAGE_END_NOTICED.as_secs_f64(),
    "the longest pause plus a probe's time limit must be below OUTAGE_END_NOTICED"
);

/// Whether a due token request may be sent.
enum Clearance {
    /// It may be sent. For unproven credentials, with the record of the attempt.
    Send(Option<Permit>),
    /// The token endpoint has to be probed first.
    Probe,
    /// Not now; `due` has been updated.
    Later,
}

impl<S: TokenSource> Refresher<S> {
    /// Makes one token request, if the lock-out guard allows it.
    pub(super) async fn request_token(&mut self, slot: CredentialSlot, stop: &CancellationToken) -> ControlFlow<()> {
        let decision = self.state(slot).decide(&self.lockout);
        if decision != Decision::Allowed {
            self.suspend(slot, decision);
            return ControlFlow::Continue(());
        }
        if stop.is_cancelled() {
            return ControlFlow::Break(());
        }
        let permit = match self.clearance(slot) {
            Clearance::Send(permit) => permit,
            Clearance::Probe => return self.probe(slot, stop).await,
            Clearance::Later => return ControlFlow::Continue(()),
        };
        self.writer.set_fetching();
        let clock = self.writer.clock();
        let sent = clock.now();
        let baseline = self.lockout.baseline(&self.state(slot).fingerprint, clock.unix_time());
        self.last_request = Some(sent);
        self.request_in_flight = true;
        let limit = if permit.is_some() { UNPROVEN_TIMEOUT } else { PROVEN_TIMEOUT };
        let outcome = {
            let request = self.source.fetch(&self.state(slot).credentials, limit);
            let request = async {
                self.with_heartbeat(limit, request).await.unwrap_or_else(|| Err(self.source.timed_out(limit)))
            };
            let mut request = pin!(request);
            select! {
                biased;
                outcome = request.as_mut() => Some(outcome),
                () = stop.cancelled() => timeout(FINAL_CALL_GRACE, request).await.ok(),
            }
        };
        self.request_in_flight = false;
        // Without an outcome, the attempt stays on record as unresolved.
        let Some(outcome) = outcome else { return ControlFlow::Break(()) };
        self.metrics.observe_token_request(self.writer.clock().now().since(sent));
        match outcome {
            Ok(auth) => self.handle_success(slot, auth, sent, &baseline),
            Err(failure) => self.handle_failure(slot, &failure, permit),
        }
        self.publish_status();
        ControlFlow::Continue(())
    }

    /// Decides whether a token request may be sent now. For unproven credentials, the attempt is on record before this returns `Send`.
    fn clearance(&mut self, slot: CredentialSlot) -> Clearance {
        let state = self.state(slot);
        if state.proven {
            if !(state.proof_recorded && self.lockout.is_disproven(&state.fingerprint)) {
                return Clearance::Send(None);
            }
            self.state_mut(slot).proven = false;
        }
        let clock = self.writer.clock();
        let (now, wall_clock) = (clock.now(), clock.unix_time());
        let state = self.state(slot);
        let (fingerprint, responded_after) = (state.fingerprint.clone(), state.responded_after);
        let attempt = self.lockout.begin(&fingerprint, wall_clock, responded_after);
        let unresolved = self.lockout.unresolved(&fingerprint);
        let state = self.state_mut(slot);
        let (obstacle, waiting_since) = (state.obstacle.take(), state.waiting_since.take());
        match attempt {
            Ok(BeginOutcome::Proven) => return Clearance::Send(None),
            Ok(BeginOutcome::Recorded(permit)) => {
                state.failed_probes = 0;
                return Clearance::Send(Some(permit));
            }
            Ok(BeginOutcome::ProbeFirst(last)) => {
                state.probed_after = Some(last);
                return Clearance::Probe;
            }
            Ok(BeginOutcome::InProgress) => {
                let since = waiting_since.unwrap_or(now);
                (state.due, state.waiting_since) = (Some(now + SHARED_ATTEMPT_POLL), Some(since));
                if now.since(since) > SHARED_ATTEMPT_LIMIT {
                    state.obstacle = Some(Obstacle::Unrecorded);
                    if obstacle != state.obstacle {
                        self.report_unrecorded(slot, &self.lockout.busy_error());
                    }
                    self.publish_status();
                }
            }
            Ok(BeginOutcome::NotBefore(wait)) => state.due = Some(now + wait),
            Ok(BeginOutcome::Rejected(decision)) => self.suspend(slot, decision),
            Ok(BeginOutcome::Held(wait)) => {
                state.due = wait.map(|wait| now + wait);
                (state.obstacle, state.unresolved_at_hold) = (Some(Obstacle::Held), unresolved);
                if obstacle != state.obstacle {
                    self.report_held(slot, wait);
                }
                self.publish_status();
            }
            Err(error) => {
                state.due = Some(now + UNRECORDED_PAUSE);
                state.obstacle = Some(Obstacle::Unrecorded);
                if obstacle != state.obstacle {
                    self.report_unrecorded(slot, &error);
                }
                self.publish_status();
            }
        }
        Clearance::Later
    }

    /// Probes the token endpoint without credentials. After a response, the next attempt is due immediately.
    async fn probe(&mut self, slot: CredentialSlot, stop: &CancellationToken) -> ControlFlow<()> {
        self.writer.set_fetching();
        let scheme = self.state(slot).credentials.scheme;
        let outcome = select! {
            biased;
            outcome = self.with_heartbeat(PROBE_TIMEOUT, self.source.probe(scheme)) => {
                outcome.unwrap_or_else(|| Err(self.source.timed_out(PROBE_TIMEOUT)))
            }
            () = stop.cancelled() => return ControlFlow::Break(()),
        };
        let now = self.writer.clock().now();
        let state = self.state_mut(slot);
        match outcome {
            Ok(()) => {
                state.responded_after = state.probed_after;
                state.due = Some(now);
                info!("the token endpoint responds again; retrying with the credentials");
            }
            Err(failure) => {
                let pause = probe_pause(state.failed_probes, fastrand::f64());
                state.failed_probes = state.failed_probes.saturating_add(1);
                state.due = Some(now + pause);
                state.failure = Some(failure.class);
                self.note_error(slot, &failure);
                self.report_failed_probe(slot, &failure, pause);
            }
        }
        self.publish_status();
        ControlFlow::Continue(())
    }

    /// Runs `future` with heartbeats. Returns `None` if a clock check finds that `limit` has passed on the clock, which counts
    /// suspended time: the request's own timer does not, and its connection rarely survives a suspend.
    pub(super) async fn with_heartbeat<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let clock = self.writer.clock();
        let started = clock.now();
        let mut future = pin!(future);
        loop {
            select! {
                biased;
                output = future.as_mut() => return Some(output),
                () = sleep(HEARTBEAT_INTERVAL) => {}
                () = self.writer.clock_check_requested() => {
                    if clock.now().since(started) > limit {
                        return None;
                    }
                }
            }
            self.writer.beat();
        }
    }

    /// Publishes the token that was requested at `sent`. Candidate credentials become the current ones.
    fn handle_success(&mut self, slot: CredentialSlot, auth: AuthHeaders, sent: BootInstant, baseline: &Baseline) {
        let now = self.writer.clock().now();
        let elapsed = now.since(sent);
        if slot == CredentialSlot::Candidate
            && let Some(candidate) = self.candidate.take()
        {
            self.current = candidate;
            self.writer.set_scheme(self.current.credentials.scheme);
            self.metrics.credentials_changed();
            self.scrubber.register("the credentials", self.current.credentials.secrets());
            if let Some(partner) = &self.partner {
                partner.send_replace(self.current.credentials.partner());
            }
            info!(target: AUDIT, "the new credentials obtained a token and are now in use");
        }
        let recorded = self.lockout.record_success(&self.current.fingerprint, baseline);
        self.current.proof_recorded = recorded.is_ok();
        log_persist_error(recorded);
        let lifetime = Lifetime::new(auth.expires_in, self.default_lifetime);
        let next = sent + lifetime.refresh_after(elapsed, fastrand::f64());
        let untyped = auth.untyped;
        self.scrubber.register("the token", vec![auth.token()]);
        let version = self.writer.publish(auth, sent + lifetime.usable_for());
        self.metrics.token_refreshed();
        self.report_success(version, elapsed, next.since(now), untyped);
        self.current.streak.reset();
        self.current.failure = None;
        self.current.obstacle = None;
        self.current.proven = true;
        self.current.due = Some(next);
    }

    /// Records a failed request and schedules the next one, unless the credentials were rejected.
    fn handle_failure(&mut self, slot: CredentialSlot, failure: &TokenFailure, permit: Option<Permit>) {
        let now = self.writer.clock().now();
        let remaining = self.writer.remaining();
        // The vendor may have counted the request as a failed authentication without our knowing.
        let unknown =
            permit.is_some() && failure.class != FailureClass::Rejected && failure.disposition == Disposition::Unknown;
        let state = self.state_mut(slot);
        let mut wait = state.streak.wait_after(failure, now, remaining, fastrand::f64());
        if unknown {
            // The next step is a probe, which decides when the next attempt is made.
            wait = Some(probe_pause(0, fastrand::f64()));
        }
        state.due = wait.map(|wait| now + wait);
        state.failure = Some(failure.class);
        self.metrics.token_refresh_failed(failure.class.as_str());
        self.note_error(slot, failure);
        match permit {
            permit if failure.class == FailureClass::Rejected => self.latch(slot, permit),
            Some(permit) if !unknown => log_persist_error(self.lockout.resolve(permit)),
            // An unknown outcome leaves the attempt on record.
            Some(_) | None => {}
        }
        match wait {
            Some(wait) if unknown => self.report_unknown(slot, failure, wait),
            _ => self.report(slot, failure, wait, remaining),
        }
    }

    /// Records a rejection: no request is made with these credentials until an operator resets the lock-out.
    pub(super) fn latch(&mut self, slot: CredentialSlot, permit: Option<Permit>) {
        let state = self.state_mut(slot);
        state.due = None;
        state.proven = false;
        let fingerprint = state.fingerprint.clone();
        let counted = self.lockout.record_rejection(&fingerprint);
        // Resolve the record of the attempt only after the rejection is on disk.
        let replaced = match permit {
            Some(permit) if counted.is_ok() => self.lockout.resolve(permit),
            _ => Ok(()),
        };
        log_persist_error(counted.and(replaced));
    }
}

/// The pause after a failed probe that followed `failed` other failed ones; `jitter` is uniform in `[0, 1)`.
fn probe_pause(failed: u32, jitter: f64) -> Duration {
    let pause = PROBE_PAUSE.0.saturating_mul(2_u32.saturating_pow(failed.min(31))).min(PROBE_PAUSE.1);
    pause + pause.mul_f64(PROBE_JITTER * jitter)
}

#[cfg(test)]
mod outage;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
