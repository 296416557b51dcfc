//! One iteration of the refresher: handles one command, or makes the token request that is due.

use std::{ops::ControlFlow, time::Duration};

use tokio::{select, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    BootInstant, Command, CredentialState, Phase, Refresher, TokenSource,
    credential_state::{CredentialSlot, Obstacle},
    report,
};
use crate::{
    credentials::lockout::Decision,
    telemetry::AUDIT,
    token::{CandidateState, LockoutStatus, classify::FailureClass, endpoint::PROVEN_TIMEOUT},
};

/// The minimum time between a token request and one that a command makes due early.
const MIN_REQUEST_INTERVAL: Duration = Duration::from_secs(5);

/// The wait when no token request is scheduled, for example after a rejection. It only keeps simulated clocks from waking up needlessly:
/// on any other clock, [`sleep_until_capped`](crate::token::Clock::sleep_until_capped) limits each sleep to ten seconds.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

impl<S: TokenSource> Refresher<S> {
    /// Handles one command or makes one due token request, and waits for it first, for at most ten seconds. Breaks when `stop` is
    /// cancelled.
    pub(super) async fn tick(&mut self, stop: &CancellationToken) -> ControlFlow<()> {
        let clock = self.writer.clock();
        self.writer.beat();
        let now = clock.now();
        // Commands and due requests alternate, so neither can starve the other.
        if !self.handled_command_last
            && let Ok(command) = self.commands.try_recv()
        {
            self.handled_command_last = true;
            return self.handle(command, stop).await;
        }
        self.handled_command_last = false;
        for state in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
            if state.is_hold_outdated(&self.lockout) {
                state.due = Some(now);
            }
        }
        if let Some(slot) = self.due_slot(now) {
            return self.request_token(slot, stop).await;
        }
        let next = self.next_due().unwrap_or(now + NOTHING_DUE);
        select! {
            biased;
            () = stop.cancelled() => ControlFlow::Break(()),
            Some(command) = self.commands.recv() => self.handle(command, stop).await,
            () = self.writer.clock_check_requested() => ControlFlow::Continue(()),
            () = clock.sleep_until_capped(next) => ControlFlow::Continue(()),
        }
    }

    fn due_slot(&self, now: BootInstant) -> Option<CredentialSlot> {
        let is_due = |state: &CredentialState| !self.quarantined && state.due.is_some_and(|due| due <= now);
        if self.candidate.as_ref().is_some_and(is_due) {
            Some(CredentialSlot::Candidate)
        } else {
            is_due(&self.current).then_some(CredentialSlot::Current)
        }
    }

    fn next_due(&self) -> Option<BootInstant> {
        let due = [self.current.due, self.candidate.as_ref().and_then(|state| state.due)].into_iter().flatten().min();
        due.filter(|_| !self.quarantined)
    }

    pub(super) fn state(&self, slot: CredentialSlot) -> &CredentialState {
        match (slot, &self.candidate) {
            (CredentialSlot::Candidate, Some(candidate)) => candidate,
            _ => &self.current,
        }
    }

    pub(super) fn state_mut(&mut self, slot: CredentialSlot) -> &mut CredentialState {
        match (slot, &mut self.candidate) {
            (CredentialSlot::Candidate, Some(candidate)) => candidate,
            _ => &mut self.current,
        }
    }

    /// Publishes the status of the refresher.
    pub(super) fn publish_status(&mut self) {
        let phase = if self.quarantined {
            Phase::Quarantined
        } else if let Some(obstacle) = self.current.obstacle {
            match obstacle {
                Obstacle::Held => Phase::Held,
                Obstacle::Unrecorded => Phase::Unrecorded,
            }
        } else if self.current.due.is_none() && self.candidate.as_ref().is_none_or(|state| state.due.is_none()) {
            Phase::Rejected
        } else {
            self.current.failure.map_or(Phase::Idle, Phase::Failed)
        };
        let decision = self.current.decide(&self.lockout);
        let lockout = LockoutStatus {
            latched: decision == Decision::Latched,
            budget_spent: decision == Decision::BudgetSpent,
            rejections: self.lockout.rejections(&self.current.fingerprint),
            unresolved: self.lockout.unresolved(&self.current.fingerprint),
            held: self.current.obstacle == Some(Obstacle::Held),
            unrecorded: self.current.obstacle == Some(Obstacle::Unrecorded),
            candidate: self.candidate.as_ref().map(|state| match (state.obstacle, state.due) {
                (Some(Obstacle::Held), _) => CandidateState::Held,
                (_, Some(_)) => CandidateState::Waiting,
                (_, None) => CandidateState::Rejected,
            }),
        };
        self.writer.set_status(phase, self.next_due(), lockout);
    }

    async fn handle(&mut self, command: Command, stop: &CancellationToken) -> ControlFlow<()> {
        let clock = self.writer.clock();
        let now = clock.now();
        match command {
            Command::ReplaceRefused(version, reply) => return self.replace_refused(version, reply, stop).await,
            Command::Invalidate(reply) => {
                info!(target: AUDIT, "the token was invalidated");
                self.schedule_soon(now);
                self.drop_token(stop).await;
                let _ = reply.send(());
            }
            Command::Quarantine(reply) => {
                report::log_quarantine();
                self.quarantined = true;
                self.drop_token(stop).await;
                let _ = reply.send(());
            }
            Command::Lift(reply) => {
                if self.quarantined {
                    report::log_lift();
                    self.quarantined = false;
                    self.schedule_soon(now);
                }
                let _ = reply.send(());
            }
            Command::ResetLatch(override_budget, reply) => {
                let mut decision = Decision::Allowed;
                for state in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
                    if state.due.is_some() && state.obstacle != Some(Obstacle::Held) {
                        continue;
                    }
                    match self.lockout.reset(&state.fingerprint, override_budget, clock.unix_time()) {
                        Ok(Decision::Allowed) => (state.due, state.obstacle) = (Some(now), None),
                        Ok(forbidden) => decision = forbidden,
                        Err(error) => {
                            report::log_persist_error(Err(error));
                            decision = Decision::Latched;
                        }
                    }
                }
                warn!(target: AUDIT, override_budget, ?decision, "lock-out reset requested");
                let _ = reply.send(Ok(decision));
            }
            // Cannot happen: the first credentials have been read.
            Command::FirstLoadFailed(..) => {}
            Command::Rotate(credentials) => {
                let candidate = CredentialState::new(*credentials, &self.lockout, self.source.host(), now);
                let known = |state: &CredentialState| state.fingerprint == candidate.fingerprint;
                if known(&self.current) {
                    self.candidate = None;
                } else if !self.candidate.as_ref().is_some_and(known) {
                    info!(target: AUDIT, "new credentials loaded; switching to them once they have obtained a token");
                    self.candidate = Some(candidate);
                }
            }
        }
        self.publish_status();
        ControlFlow::Continue(())
    }

    /// Replaces the token of `version`, which the upstream refused. Sends `reply` when there is a newer token, and drops it otherwise.
    async fn replace_refused(
        &mut self,
        version: u64,
        reply: oneshot::Sender<()>,
        stop: &CancellationToken,
    ) -> ControlFlow<()> {
        let now = self.writer.clock().now();
        // After a failure, the next token request is scheduled already, and the server may have requested the pause before it.
        let can = !self.quarantined && self.current.due.is_some() && self.current.failure.is_none();
        if self.writer.version() == version && can && self.early_refreshes.allows(now) {
            info!(target: AUDIT, { token.version = version }, "the upstream refused the token; fetching a new one");
            self.request_token(CredentialSlot::Current, stop).await?;
        }
        if self.writer.version() > version && !self.quarantined {
            let _ = reply.send(());
        }
        ControlFlow::Continue(())
    }

    /// Withdraws the token immediately, then revokes it if the scheme and the lock-out guard allow it.
    async fn drop_token(&mut self, stop: &CancellationToken) {
        let token = self.writer.withdraw();
        self.publish_status();
        let Some(token) = token else { return };
        // A revocation carries the client secret, so with unproven credentials it would be an unrecorded attempt.
        if !self.current.proven || self.current.decide(&self.lockout) != Decision::Allowed {
            return;
        }
        let (_, value) = &token.headers()[1];
        let revoked = select! {
            revoked = self.with_heartbeat(PROVEN_TIMEOUT, self.source.revoke(&self.current.credentials, value)) => {
                revoked.unwrap_or_else(|| Some(Err(self.source.timed_out(PROVEN_TIMEOUT))))
            }
            () = stop.cancelled() => return,
        };
        match revoked {
            None => {}
            Some(Ok(())) => info!(target: AUDIT, "the dropped token was revoked"),
            Some(Err(failure)) => {
                warn!(target: AUDIT, error = %failure, "cannot revoke the dropped token");
                if failure.class == FailureClass::Rejected {
                    self.latch(CredentialSlot::Current, None);
                }
            }
        }
    }

    /// Makes the next token request due as soon as [`MIN_REQUEST_INTERVAL`] allows, unless token requests are suspended.
    fn schedule_soon(&mut self, now: BootInstant) {
        let earliest = self.last_request.map_or(now, |last| now.max(last + MIN_REQUEST_INTERVAL));
        self.current.due = self.current.due.map(|_| earliest);
    }
}
