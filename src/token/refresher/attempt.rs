//! One token request: whether it may be sent, sending it, and what follows from its outcome.

use std::{ops::ControlFlow, pin::pin, time::Duration};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    BootInstant, Refresher, TokenSource,
    credential_state::Obstacle,
    tick::{CredentialSlot, told},
};
use crate::{
    credentials::lockout::{Baseline, BeginOutcome, Decision, Permit},
    telemetry::AUDIT,
    token::{
        STATE_DIRECTORY_STALL,
        classify::{Class, Disposition, Failure},
        endpoint::{PROBE_TIMEOUT, PROVEN_TIMEOUT, UNPROVEN_TIMEOUT},
        schedule::Lifetime,
        scheme::AuthHeaders,
    },
};

/// How long a token request that is in flight may take once the process shuts down. What was sent may be a rejection, and one
/// that is not recorded would be tried again by the next process.
pub const FINAL_CALL_GRACE: Duration = Duration::from_secs(2);

/// How often the heartbeat is renewed during a request.
pub(in crate::token) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// How often to look whether another process that shares the state directory has finished its attempt.
const SHARED_ATTEMPT_POLL: Duration = Duration::from_secs(1);

/// How long an attempt of another process may last before that is reported: more than any attempt and its record take, unless its
/// process was stopped.
const SHARED_ATTEMPT_LIMIT: Duration = UNPROVEN_TIMEOUT.saturating_add(STATE_DIRECTORY_STALL);

/// The pause after an attempt could not be recorded. The cause is a disk, and an operator has to correct it.
const UNRECORDED_PAUSE: Duration = Duration::from_secs(30);

/// The end of an outage of the token endpoint is noticed within this time.
const OUTAGE_END_NOTICED: Duration = Duration::from_secs(60);

/// The bounds of the pause between two probes of the token endpoint.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(40));

/// The largest part of the pause between probes that is added to it at random, so that a fleet spreads out.
const PROBE_JITTER: f64 = 0.1;

const _: () = assert!(
    PROBE_PAUSE.1.as_secs_f64() * (1.0 + PROBE_JITTER) + PROBE_TIMEOUT.as_secs_f64() < OUTAGE_END_NOTICED.as_secs_f64(),
    "the longest pause and a probe's time limit exceed the time in which the end of an outage is noticed"
);

/// How a due token request may go on.
enum Clearance {
    /// It may be sent; unproven credentials come with the record of the attempt.
    Send(Option<Permit>),
    /// The token endpoint is probed first.
    Probe,
    /// Not now. When it is due again is noted.
    Later,
}

impl<M: TokenSource> Refresher<M> {
    /// Makes one token request, if the lock-out guard allows it.
    pub(super) async fn call(&mut self, which: CredentialSlot, stop: &CancellationToken) -> ControlFlow<()> {
        let decision = self.slot(which).decide(&self.lockout);
        if decision != Decision::Allowed {
            self.refused(which, decision);
            return ControlFlow::Continue(());
        }
        if stop.is_cancelled() {
            return ControlFlow::Break(());
        }
        let permit = match self.clearance(which) {
            Clearance::Send(permit) => permit,
            Clearance::Probe => return self.probe(which, stop).await,
            Clearance::Later => return ControlFlow::Continue(()),
        };
        self.writer.fetching();
        let clock = self.writer.clock();
        let sent = clock.now();
        let baseline = self.lockout.baseline(&self.slot(which).fingerprint, clock.unix_time());
        self.last_call = Some(sent);
        self.in_call = true;
        let limit = if permit.is_some() { UNPROVEN_TIMEOUT } else { PROVEN_TIMEOUT };
        let outcome = {
            let mut minting = pin!(self.beating(self.mint.mint(&self.slot(which).credentials, limit)));
            select! {
                biased;
                outcome = minting.as_mut() => Some(outcome),
                () = stop.cancelled() => timeout(FINAL_CALL_GRACE, minting).await.ok(),
            }
        };
        self.in_call = false;
        // Without an outcome the attempt stays on record as outstanding.
        let Some(outcome) = outcome else { return ControlFlow::Break(()) };
        self.metrics.token_called(self.writer.clock().now().since(sent));
        match outcome {
            Ok(grant) => self.succeeded(which, grant, sent, &baseline),
            Err(failure) => self.failed(which, &failure, permit),
        }
        self.settle();
        ControlFlow::Continue(())
    }

    /// Whether a token request may be sent now. For unproven credentials the attempt is on record when this returns.
    fn clearance(&mut self, which: CredentialSlot) -> Clearance {
        let slot = self.slot(which);
        if slot.proven {
            if !(slot.proof_recorded && self.lockout.is_disproven(&slot.fingerprint)) {
                return Clearance::Send(None);
            }
            self.slot_mut(which).proven = false;
        }
        let clock = self.writer.clock();
        let (now, wall_clock) = (clock.now(), clock.unix_time());
        let slot = self.slot(which);
        let (fingerprint, responded) = (slot.fingerprint.clone(), slot.responded_after);
        let attempt = self.lockout.begin(&fingerprint, wall_clock, responded);
        let unresolved = self.lockout.unresolved(&fingerprint);
        let slot = self.slot_mut(which);
        let (obstacle, waiting_since) = (slot.obstacle.take(), slot.waiting_since.take());
        match attempt {
            Ok(BeginOutcome::Proven) => return Clearance::Send(None),
            Ok(BeginOutcome::Recorded(permit)) => {
                slot.failed_probes = 0;
                return Clearance::Send(Some(permit));
            }
            Ok(BeginOutcome::ProbeFirst(last)) => {
                slot.probed_after = Some(last);
                return Clearance::Probe;
            }
            Ok(BeginOutcome::InProgress) => {
                let since = waiting_since.unwrap_or(now);
                (slot.due, slot.waiting_since) = (Some(now + SHARED_ATTEMPT_POLL), Some(since));
                if now.since(since) > SHARED_ATTEMPT_LIMIT {
                    slot.obstacle = Some(Obstacle::Unrecorded);
                    if obstacle != slot.obstacle {
                        self.report_unrecorded(which, &self.lockout.busy_error());
                    }
                    self.settle();
                }
            }
            Ok(BeginOutcome::NotBefore(wait)) => slot.due = Some(now + wait),
            Ok(BeginOutcome::Rejected(decision)) => self.refused(which, decision),
            Ok(BeginOutcome::Held(wait)) => {
                slot.due = wait.map(|wait| now + wait);
                (slot.obstacle, slot.held_by) = (Some(Obstacle::Held), unresolved);
                if obstacle != slot.obstacle {
                    self.report_held(which, wait);
                }
                self.settle();
            }
            Err(error) => {
                slot.due = Some(now + UNRECORDED_PAUSE);
                slot.obstacle = Some(Obstacle::Unrecorded);
                if obstacle != slot.obstacle {
                    self.report_unrecorded(which, &error);
                }
                self.settle();
            }
        }
        Clearance::Later
    }

    /// Asks the token endpoint for a response, without credentials. Once there is one, the next attempt is due.
    async fn probe(&mut self, which: CredentialSlot, stop: &CancellationToken) -> ControlFlow<()> {
        self.writer.fetching();
        let scheme = self.slot(which).credentials.scheme;
        let outcome = select! {
            biased;
            outcome = self.beating(self.mint.probe(scheme)) => outcome,
            () = stop.cancelled() => return ControlFlow::Break(()),
        };
        let now = self.writer.clock().now();
        let slot = self.slot_mut(which);
        match outcome {
            Ok(()) => {
                slot.responded_after = slot.probed_after;
                slot.due = Some(now);
                info!("the token endpoint responds again; the credentials are tried again");
            }
            Err(failure) => {
                let pause = probe_pause(slot.failed_probes, fastrand::f64());
                slot.failed_probes = slot.failed_probes.saturating_add(1);
                slot.due = Some(now + pause);
                slot.failure = Some(failure.class);
                self.report_failed_probe(which, &failure, pause);
            }
        }
        self.settle();
        ControlFlow::Continue(())
    }

    /// `future`, during which the heartbeat continues.
    pub(super) async fn beating<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            select! {
                biased;
                output = future.as_mut() => return output,
                () = sleep(HEARTBEAT_INTERVAL) => self.writer.beat(),
            }
        }
    }

    /// Publishes the token whose request was sent at `sent`. Candidates take over.
    fn succeeded(&mut self, which: CredentialSlot, grant: AuthHeaders, sent: BootInstant, baseline: &Baseline) {
        let now = self.writer.clock().now();
        let took = now.since(sent);
        if which == CredentialSlot::Candidate
            && let Some(candidate) = self.candidate.take()
        {
            self.current = candidate;
            self.metrics.credentials_changed();
            self.scrubber.know("the credentials", self.current.credentials.secrets());
            info!(target: AUDIT, "the new credentials minted a token and have taken over");
        }
        let recorded = self.lockout.record_success(&self.current.fingerprint, baseline);
        self.current.proof_recorded = recorded.is_ok();
        told(recorded);
        let lifetime = Lifetime::new(grant.expires_in, self.default_lifetime);
        let next = sent + lifetime.refresh(took, fastrand::f64());
        let untyped = grant.untyped;
        self.scrubber.know("the token", vec![grant.token()]);
        let version = self.writer.publish(grant, sent + lifetime.usable());
        self.metrics.token_refreshed();
        self.report_success(version, took, next.since(now), untyped);
        self.current.streak.succeeded();
        self.current.failure = None;
        self.current.obstacle = None;
        self.current.proven = true;
        self.current.due = Some(next);
    }

    /// Notes a failed request, and when the next one is due: never, when the credentials were rejected.
    fn failed(&mut self, which: CredentialSlot, failure: &Failure, permit: Option<Permit>) {
        let now = self.writer.clock().now();
        let remaining = self.writer.remaining();
        // The vendor may have counted the request as a failed authentication, and nothing says so.
        let unknown =
            permit.is_some() && failure.class != Class::Rejected && failure.disposition == Disposition::Unknown;
        let slot = self.slot_mut(which);
        let mut wait = slot.streak.wait_after(failure, now, remaining, fastrand::f64());
        if unknown {
            // Probes decide when the next attempt is made.
            wait = Some(probe_pause(0, fastrand::f64()));
        }
        slot.due = wait.map(|wait| now + wait);
        slot.failure = Some(failure.class);
        self.metrics.token_refresh_failed(failure.class.as_str());
        match permit {
            permit if failure.class == Class::Rejected => self.latch(which, permit),
            Some(permit) if !unknown => told(self.lockout.resolve(permit)),
            // An unknown outcome leaves the attempt on record.
            Some(_) | None => {}
        }
        match wait {
            Some(wait) if unknown => self.report_unknown(which, failure, wait),
            _ => self.report(which, failure, wait, remaining),
        }
    }

    /// The credentials were rejected: no request is made with them until an operator or new credentials allow one.
    pub(super) fn latch(&mut self, which: CredentialSlot, permit: Option<Permit>) {
        let slot = self.slot_mut(which);
        slot.due = None;
        slot.proven = false;
        let fingerprint = slot.fingerprint.clone();
        let counted = self.lockout.record_rejection(&fingerprint);
        // Only a rejection that is on the disk replaces the record of the attempt.
        let replaced = match permit {
            Some(permit) if counted.is_ok() => self.lockout.resolve(permit),
            _ => Ok(()),
        };
        told(counted.and(replaced));
    }
}

/// The pause after `failed` probes before the one that just failed; `u` is uniform in `[0, 1)`.
fn probe_pause(failed: u32, u: f64) -> Duration {
    let pause = PROBE_PAUSE.0.saturating_mul(2_u32.saturating_pow(failed.min(31))).min(PROBE_PAUSE.1);
    pause + pause.mul_f64(PROBE_JITTER * u)
}

#[cfg(test)]
mod outage;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
