//! One turn of the refresher: a wish is obeyed, or a token call is made.

use std::{ops::ControlFlow, pin::pin, time::Duration};

use tokio::{select, sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Command, Mint, Phase, Refresher, Slot, Stamp};
use crate::{
    credentials::lockout::{PersistError, Verdict},
    telemetry::AUDIT,
    token::{
        Guard,
        classify::{Class, Failure},
        schedule::Lifetime,
        scheme::Grant,
    },
};

/// The least time between two token calls that somebody asked for.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// How long a call that is under way may take once the process ends.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Which credentials a call is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Current,
    Candidate,
}

impl<M: Mint> Refresher<M> {
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
        if let Some(which) = self.due(now) {
            return self.call(which, stop).await;
        }
        let next = self.next_due().unwrap_or(now + Duration::from_secs(3600));
        select! {
            biased;
            () = stop.cancelled() => ControlFlow::Break(()),
            Some(command) = self.commands.recv() => self.obey(command, stop).await,
            () = clock.nap_until(next) => ControlFlow::Continue(()),
        }
    }

    fn due(&self, now: Stamp) -> Option<Which> {
        let is_due = |slot: &Slot| !self.quarantined && slot.due.is_some_and(|due| due <= now);
        if self.candidate.as_ref().is_some_and(is_due) {
            Some(Which::Candidate)
        } else {
            is_due(&self.current).then_some(Which::Current)
        }
    }

    fn next_due(&self) -> Option<Stamp> {
        let due = [self.current.due, self.candidate.as_ref().and_then(|slot| slot.due)].into_iter().flatten().min();
        due.filter(|_| !self.quarantined)
    }

    fn slot(&self, which: Which) -> &Slot {
        match (which, &self.candidate) {
            (Which::Candidate, Some(candidate)) => candidate,
            _ => &self.current,
        }
    }

    fn slot_mut(&mut self, which: Which) -> &mut Slot {
        match (which, &mut self.candidate) {
            (Which::Candidate, Some(candidate)) => candidate,
            _ => &mut self.current,
        }
    }

    /// Makes one token call, if the lock-out guard allows it.
    async fn call(&mut self, which: Which, stop: &CancellationToken) -> ControlFlow<()> {
        let verdict = self.slot(which).verdict(&self.lockout);
        if verdict != Verdict::Allowed {
            self.refused(which, verdict);
            return ControlFlow::Continue(());
        }
        self.writer.fetching();
        let sent = self.writer.clock().now();
        self.last_call = Some(sent);
        self.in_call = true;
        let outcome = {
            let mut minting = pin!(self.mint.mint(&self.slot(which).credentials));
            select! {
                biased;
                outcome = minting.as_mut() => Some(outcome),
                // What was sent may be a rejection, and one that nobody notes would be tried again by the next process.
                () = stop.cancelled() => timeout(LAST_CALL, minting).await.ok(),
            }
        };
        self.in_call = false;
        let Some(outcome) = outcome else { return ControlFlow::Break(()) };
        self.metrics.token_called(self.writer.clock().now().since(sent));
        match outcome {
            Ok(grant) => self.succeeded(which, grant, sent),
            Err(failure) => self.failed(which, &failure),
        }
        self.settle();
        ControlFlow::Continue(())
    }

    /// Publishes the token whose call was sent at `sent`. Candidates take over.
    fn succeeded(&mut self, which: Which, grant: Grant, sent: Stamp) {
        let now = self.writer.clock().now();
        let took = now.since(sent);
        if which == Which::Candidate
            && let Some(candidate) = self.candidate.take()
        {
            self.current = candidate;
            self.metrics.credentials_changed();
            self.scrubber.know("the credentials", self.current.credentials.secrets());
            info!(target: AUDIT, "the new credentials minted a token and have taken over");
        }
        told(self.lockout.accepted(&self.current.fingerprint));
        let lifetime = Lifetime::new(grant.expires_in, self.default_lifetime);
        let next = sent + lifetime.refresh(took, fastrand::f64());
        let untyped = grant.untyped;
        self.scrubber.know("the token", vec![grant.token()]);
        let version = self.writer.publish(grant, sent + lifetime.usable());
        self.metrics.token_refreshed("success");
        info!(
            target: AUDIT,
            scheme = self.current.credentials.scheme.as_str(),
            token.version = version,
            duration_ms = took.as_secs_f64() * 1e3,
            usable_for_s = self.writer.remaining().as_secs(),
            refresh_in_s = next.since(now).as_secs(),
            failures_before = self.current.streak.failures(),
            "token minted"
        );
        if untyped {
            warn!("the token answer has no token_type; it is taken for Bearer");
        }
        self.current.streak.succeeded();
        self.current.failure = None;
        self.current.proven = true;
        self.current.due = Some(next);
    }

    /// Notes a failed call, and when the next one is due: never, when the credentials were rejected.
    fn failed(&mut self, which: Which, failure: &Failure) {
        let now = self.writer.clock().now();
        let remaining = self.writer.remaining();
        let slot = self.slot_mut(which);
        let wait = slot.streak.wait_after(failure, remaining, fastrand::f64());
        slot.due = wait.map(|wait| now + wait);
        slot.failure = Some(failure.class);
        self.metrics.token_refreshed(failure.class.as_str());
        if failure.class == Class::Rejected {
            self.latch(which);
        }
        self.report(which, failure, wait, remaining);
    }

    fn report(&self, which: Which, failure: &Failure, wait: Option<Duration>, remaining: Duration) {
        let slot = self.slot(which);
        let (class, usable_for_s) = (failure.class.as_str(), remaining.as_secs());
        let advice = self.mint.advice(slot.credentials.scheme, failure);
        let rejections = self.lockout.rejections(&slot.fingerprint);
        match (failure.class, wait) {
            (Class::Rejected, _) | (_, None) if which == Which::Candidate => error!(
                target: AUDIT,
                error = %failure,
                class,
                rejections,
                "new credentials rejected; they are not tried again, and the old ones stay in use: correct the new ones"
            ),
            (Class::Rejected, _) | (_, None) => error!(
                target: AUDIT,
                error = %failure,
                class,
                rejections,
                usable_for_s,
                advice,
                "credentials rejected; they are not tried again, since five rejections lock the vendor account: correct \
                 them, or reset the latch on the admin port"
            ),
            (Class::Config | Class::Certificate, Some(wait)) => error!(
                error = %failure,
                class,
                failures = slot.streak.failures(),
                usable_for_s,
                retry_in_s = wait.as_secs(),
                advice,
                "token refresh failed, and somebody has to look at it"
            ),
            (_, Some(wait)) => warn!(
                error = %failure,
                class,
                failures = slot.streak.failures(),
                usable_for_s,
                retry_in_s = wait.as_secs_f64(),
                "token refresh failed"
            ),
        }
    }

    /// The lock-out guard forbids the call that was due.
    fn refused(&mut self, which: Which, verdict: Verdict) {
        self.slot_mut(which).due = None;
        let reason = match verdict {
            Verdict::BudgetSpent => "too many of this id's credentials were rejected",
            Verdict::Latched | Verdict::Allowed => "these credentials were rejected before",
        };
        error!(
            target: AUDIT,
            reason,
            candidate = which == Which::Candidate,
            "no token call is made, since five rejections lock the vendor account: correct the credentials, or reset the \
             latch on the admin port"
        );
        self.settle();
    }

    /// Tells everyone else where things stand.
    pub(super) fn settle(&mut self) {
        let phase = if self.quarantined {
            Phase::Quarantined
        } else if self.current.due.is_none() && self.candidate.as_ref().is_none_or(|slot| slot.due.is_none()) {
            Phase::Rejected
        } else {
            self.current.failure.map_or(Phase::Idle, Phase::Failed)
        };
        let verdict = self.current.verdict(&self.lockout);
        let guard = Guard {
            latched: verdict == Verdict::Latched,
            budget_spent: verdict == Verdict::BudgetSpent,
            rejections: self.lockout.rejections(&self.current.fingerprint),
            candidate: self.candidate.as_ref().map(|slot| if slot.due.is_some() { "waiting" } else { "rejected" }),
        };
        self.writer.settle(phase, self.next_due(), guard);
    }

    async fn obey(&mut self, command: Command, stop: &CancellationToken) -> ControlFlow<()> {
        let now = self.writer.clock().now();
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
                let mut verdict = Verdict::Allowed;
                for slot in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
                    if slot.due.is_some() {
                        continue;
                    }
                    match self.lockout.reset(&slot.fingerprint, override_budget) {
                        Ok(Verdict::Allowed) => slot.due = Some(now),
                        Ok(forbidden) => verdict = forbidden,
                        Err(error) => {
                            told(Err(error));
                            verdict = Verdict::Latched;
                        }
                    }
                }
                warn!(target: AUDIT, override_budget, ?verdict, "latch reset asked for");
                let _ = reply.send(verdict);
            }
            Command::Rotate(credentials) => {
                let candidate = Slot::new(*credentials, &self.lockout, self.mint.host(), now);
                let known = |slot: &Slot| slot.fingerprint == candidate.fingerprint;
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
            self.call(Which::Current, stop).await?;
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
        if self.current.verdict(&self.lockout) != Verdict::Allowed {
            return;
        }
        let (_, value) = &token.headers()[1];
        let revoked = select! {
            revoked = self.mint.revoke(&self.current.credentials, value) => revoked,
            () = stop.cancelled() => return,
        };
        match revoked {
            None => {}
            Some(Ok(())) => info!(target: AUDIT, "the dropped token was revoked"),
            Some(Err(failure)) => {
                warn!(target: AUDIT, error = %failure, "the dropped token was not revoked");
                if failure.class == Class::Rejected {
                    self.latch(Which::Current);
                }
            }
        }
    }

    /// The credentials were rejected: no call is made with them any more.
    fn latch(&mut self, which: Which) {
        let slot = self.slot_mut(which);
        slot.due = None;
        slot.proven = false;
        let fingerprint = slot.fingerprint.clone();
        told(self.lockout.rejected(&fingerprint));
    }

    /// Makes the next call due as soon as the last one allows, unless none may be made.
    fn due_soon(&mut self, now: Stamp) {
        let earliest = self.last_call.map_or(now, |last| now.max(last + LEAST_PAUSE));
        self.current.due = self.current.due.map(|_| earliest);
    }
}

/// A state that could not be written is told; what it says holds for this process all the same.
fn told(written: Result<(), PersistError>) {
    if let Err(error) = written {
        error!(target: AUDIT, error = crate::cause::line(&error), "the lock-out state could not be written");
    }
}
