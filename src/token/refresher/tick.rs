//! One turn of the refresher: a wish is obeyed, or a token call is made.

use std::{ops::ControlFlow, time::Duration};

use tokio::{select, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{BootInstant, Command, CredentialState, Phase, Refresher, TokenSource, credential_state::Obstacle};
use crate::{
    credentials::lockout::{Decision, PersistError},
    telemetry::AUDIT,
    token::{CandidateState, LockoutStatus, classify::Class},
};

/// The least time between two token calls that somebody asked for.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// Which credentials a request is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialSlot {
    Current,
    Candidate,
}

impl<M: TokenSource> Refresher<M> {
    /// Waits for the next thing to do, ten seconds at most, and does it.
    pub(super) async fn turn(&mut self, stop: &CancellationToken) -> ControlFlow<()> {
        let clock = self.writer.clock();
        self.writer.beat();
        let now = clock.now();
        // One wish between two calls: a quarantine must not wait for all that is due, nor a call for all that wish.
        if !self.obeyed_last
            && let Ok(command) = self.commands.try_recv()
        {
            self.obeyed_last = true;
            return self.obey(command, stop).await;
        }
        self.obeyed_last = false;
        for slot in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
            if slot.is_hold_outdated(&self.lockout) {
                slot.due = Some(now);
            }
        }
        if let Some(which) = self.due(now) {
            return self.call(which, stop).await;
        }
        let next = self.next_due().unwrap_or(now + Duration::from_secs(3600));
        select! {
            biased;
            () = stop.cancelled() => ControlFlow::Break(()),
            Some(command) = self.commands.recv() => self.obey(command, stop).await,
            () = clock.sleep_until_capped(next) => ControlFlow::Continue(()),
        }
    }

    fn due(&self, now: BootInstant) -> Option<CredentialSlot> {
        let is_due = |slot: &CredentialState| !self.quarantined && slot.due.is_some_and(|due| due <= now);
        if self.candidate.as_ref().is_some_and(is_due) {
            Some(CredentialSlot::Candidate)
        } else {
            is_due(&self.current).then_some(CredentialSlot::Current)
        }
    }

    fn next_due(&self) -> Option<BootInstant> {
        let due = [self.current.due, self.candidate.as_ref().and_then(|slot| slot.due)].into_iter().flatten().min();
        due.filter(|_| !self.quarantined)
    }

    pub(super) fn slot(&self, which: CredentialSlot) -> &CredentialState {
        match (which, &self.candidate) {
            (CredentialSlot::Candidate, Some(candidate)) => candidate,
            _ => &self.current,
        }
    }

    pub(super) fn slot_mut(&mut self, which: CredentialSlot) -> &mut CredentialState {
        match (which, &mut self.candidate) {
            (CredentialSlot::Candidate, Some(candidate)) => candidate,
            _ => &mut self.current,
        }
    }

    /// Tells everyone else where things stand.
    pub(super) fn settle(&mut self) {
        let phase = if self.quarantined {
            Phase::Quarantined
        } else if let Some(obstacle) = self.current.obstacle {
            match obstacle {
                Obstacle::Held => Phase::Held,
                Obstacle::Unrecorded => Phase::Unrecorded,
            }
        } else if self.current.due.is_none() && self.candidate.as_ref().is_none_or(|slot| slot.due.is_none()) {
            Phase::Rejected
        } else {
            self.current.failure.map_or(Phase::Idle, Phase::Failed)
        };
        let decision = self.current.decide(&self.lockout);
        let guard = LockoutStatus {
            latched: decision == Decision::Latched,
            budget_spent: decision == Decision::BudgetSpent,
            rejections: self.lockout.rejections(&self.current.fingerprint),
            unresolved: self.lockout.unresolved(&self.current.fingerprint),
            held: self.current.obstacle == Some(Obstacle::Held),
            unrecorded: self.current.obstacle == Some(Obstacle::Unrecorded),
            candidate: self.candidate.as_ref().map(|slot| match (slot.obstacle, slot.due) {
                (Some(Obstacle::Held), _) => CandidateState::Held,
                (_, Some(_)) => CandidateState::Waiting,
                (_, None) => CandidateState::Rejected,
            }),
        };
        self.writer.settle(phase, self.next_due(), guard);
    }

    async fn obey(&mut self, command: Command, stop: &CancellationToken) -> ControlFlow<()> {
        let clock = self.writer.clock();
        let now = clock.now();
        match command {
            Command::Heal(version, reply) => return self.heal(version, reply, stop).await,
            Command::Invalidate(reply) => {
                info!(target: AUDIT, "the token was invalidated");
                self.due_soon(now);
                self.drop_token(stop).await;
                let _ = reply.send(());
            }
            Command::Quarantine(reply) => {
                warn!(target: AUDIT, "quarantine: no token until it is lifted");
                self.quarantined = true;
                self.drop_token(stop).await;
                let _ = reply.send(());
            }
            Command::Lift(reply) => {
                if self.quarantined {
                    info!(target: AUDIT, "the quarantine was lifted");
                    self.quarantined = false;
                    self.due_soon(now);
                }
                let _ = reply.send(());
            }
            Command::ResetLatch(override_budget, reply) => {
                let mut decision = Decision::Allowed;
                for slot in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
                    if slot.due.is_some() && slot.obstacle != Some(Obstacle::Held) {
                        continue;
                    }
                    match self.lockout.reset(&slot.fingerprint, override_budget, clock.unix_time()) {
                        Ok(Decision::Allowed) => (slot.due, slot.obstacle) = (Some(now), None),
                        Ok(forbidden) => decision = forbidden,
                        Err(error) => {
                            told(Err(error));
                            decision = Decision::Latched;
                        }
                    }
                }
                warn!(target: AUDIT, override_budget, ?decision, "latch reset asked for");
                let _ = reply.send(decision);
            }
            Command::Rotate(credentials) => {
                let candidate = CredentialState::new(*credentials, &self.lockout, self.mint.host(), now);
                let known = |slot: &CredentialState| slot.fingerprint == candidate.fingerprint;
                if known(&self.current) {
                    self.candidate = None;
                } else if !self.candidate.as_ref().is_some_and(known) {
                    info!(target: AUDIT, "new credentials were loaded; they take over once they have minted a token");
                    self.candidate = Some(candidate);
                }
            }
        }
        self.settle();
        ControlFlow::Continue(())
    }

    /// The upstream refused the token of `version`. The reply is sent when a newer one is there, and dropped when none will come
    /// of this.
    async fn heal(&mut self, version: u64, reply: oneshot::Sender<()>, stop: &CancellationToken) -> ControlFlow<()> {
        let now = self.writer.clock().now();
        // After a failure a call is due anyway, and the pause until then is the server's wish.
        let can = !self.quarantined && self.current.due.is_some() && self.current.failure.is_none();
        if self.writer.version() == version && can && self.healing.allows(now) {
            info!(target: AUDIT, { token.version = version }, "the upstream refused the token; a new one is fetched");
            self.call(CredentialSlot::Current, stop).await?;
        }
        if self.writer.version() > version && !self.quarantined {
            let _ = reply.send(());
        }
        ControlFlow::Continue(())
    }

    /// Takes the token away at once, and then revokes it, where that can be done.
    async fn drop_token(&mut self, stop: &CancellationToken) {
        let token = self.writer.withdraw();
        self.settle();
        let Some(token) = token else { return };
        // The request would carry the secret, and be an attempt that is not on record.
        if !self.current.proven || self.current.decide(&self.lockout) != Decision::Allowed {
            return;
        }
        let (_, value) = &token.headers()[1];
        let revoked = select! {
            revoked = self.beating(self.mint.revoke(&self.current.credentials, value)) => revoked,
            () = stop.cancelled() => return,
        };
        match revoked {
            None => {}
            Some(Ok(())) => info!(target: AUDIT, "the dropped token was revoked"),
            Some(Err(failure)) => {
                warn!(target: AUDIT, error = %failure, "the dropped token was not revoked");
                if failure.class == Class::Rejected {
                    self.latch(CredentialSlot::Current, None);
                }
            }
        }
    }

    /// Makes the next call due as soon as the last one allows, unless none may be made.
    fn due_soon(&mut self, now: BootInstant) {
        let earliest = self.last_call.map_or(now, |last| now.max(last + LEAST_PAUSE));
        self.current.due = self.current.due.map(|_| earliest);
    }
}

/// Logs that the state could not be written. What it says holds for this process all the same.
pub(super) fn told(written: Result<(), PersistError>) {
    if let Err(error) = written {
        error!(target: AUDIT, error = crate::error_chain::one_line(&error), "the lock-out state could not be written");
    }
}
