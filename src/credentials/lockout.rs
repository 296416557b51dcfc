//! Protects the vendor account against lock-out: decides which credentials must not be tried.
//!
//! Five failed authentications lock the account, and only the vendor's support unlocks it. Three rules prevent this:
//!
//! - Credentials that have not obtained a token yet (*unproven*) are tried only after the attempt has been recorded. An attempt
//!   with an unknown outcome counts as a rejection (`attempts`).
//! - After one rejection, the [`Fingerprint`] is *latched*: it is not tried again until the credentials change or an operator
//!   resets it.
//! - Each id (client or partner ID) has a *budget*: after three rejections, nothing is tried for it until an operator overrides the
//!   budget.
//!
//! The state survives restarts in a state directory, as keyed hashes, and applies to all processes that share the directory.
//!
//! A change that tightens the rules takes effect immediately, even if the disk fails. A change that loosens them takes effect only
//! once it is on disk. A fault can therefore cause too few token requests, never too many.
//!
//! Confirmed rejections never expire, because the vendor documents no time after which it resets its count of failures.

mod attempts;
mod decision;
mod fingerprint;
mod inspect;
mod rejections;
mod state_directory;
mod state_error;
mod state_file;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    time::Duration,
};

pub use attempts::{LastAttempt, MAX_CONNECT_TIME};
pub use decision::{Baseline, BeginOutcome, Decision, Permit};
pub use fingerprint::Fingerprint;
pub use inspect::{StateOutlook, check_lock, inspect};
pub use rejections::BUDGET;

use self::{
    attempts::{AttemptDecision, Attempts},
    fingerprint::Key,
    rejections::Rejections,
    state_directory::StateDirectory,
    state_error::StateError,
};
use super::Credentials;
use crate::secret::{Secret, ShownPath};

/// The number of failed authentications at which the vendor locks the account.
pub const VENDOR_LIMIT: u32 = 5;

/// Why the persisted lock-out state cannot be loaded. Starting without it could lose a rejection.
#[derive(Debug, thiserror::Error)]
#[error("the lock-out state {} cannot be used: {}", ShownPath::new(path), source.advice())]
pub struct OpenError {
    path: PathBuf,
    source: StateError,
}

/// Why a change is not on disk. A rejection still applies in this process; any other change was not made.
#[derive(Debug, thiserror::Error)]
#[error("the lock-out state {} cannot be updated: {}", ShownPath::new(path), source.advice())]
pub struct PersistError {
    path: PathBuf,
    source: StateError,
}

/// The rejections and attempts of this process and of those that share its state directory.
///
/// All methods block on disk I/O briefly. Those that change the state block for up to a second while another process holds the
/// lock. Call them from the control plane, never from a worker.
#[derive(Debug)]
pub struct Lockout {
    key: Key,
    /// The rejections that were last read or written, plus `unsaved`.
    rejections: Rejections,
    /// Rejections that could not be written yet. Each results from a token request that a decision allowed, so there are few.
    unsaved: Vec<Fingerprint>,
    /// The attempts of this process, if there is no state directory.
    attempts: Attempts,
    directory: Option<StateDirectory>,
}

impl Lockout {
    /// Opens the state in `dir`; creates directory and state if they are missing. The state is kept in memory only if `dir` is
    /// `None`, or if the file system is read-only and holds no state, because then nothing was ever recorded there.
    ///
    /// # Errors
    ///
    /// If a state exists but cannot be read or parsed, or if it is missing and cannot be created.
    pub fn open(dir: Option<&Path>) -> Result<Self, OpenError> {
        let failed = |source| OpenError { path: dir.map(state_directory::rejections_path).unwrap_or_default(), source };
        let (directory, key, rejections) = match dir {
            Some(dir) => match StateDirectory::open(dir) {
                Ok((directory, key, rejections)) => {
                    let attempts = directory.read_attempts(&key);
                    attempts.map_err(|source| OpenError { path: directory.attempts_path(), source })?;
                    (Some(directory), key, rejections)
                }
                Err(error) if error.is_read_only() => (None, Key::generate().map_err(failed)?, Rejections::default()),
                Err(error) => return Err(failed(error)),
            },
            None => (None, Key::generate().map_err(failed)?, Rejections::default()),
        };
        Ok(Self { key, rejections, unsaved: Vec::new(), attempts: Attempts::default(), directory })
    }

    /// The fingerprint of a token request to `host` that authenticates by `scheme`.
    ///
    /// It is comparable only with fingerprints of the same state directory.
    pub fn fingerprint(
        &self,
        scheme: &str,
        host: &str,
        id: &Secret<String>,
        secret: &Secret<String>,
        app_key: &[u8],
    ) -> Fingerprint {
        self.key.fingerprint(scheme, host, id, secret, app_key)
    }

    /// The fingerprint of a token request to `host` with `credentials`.
    pub fn fingerprint_of(&self, host: &str, credentials: &Credentials) -> Fingerprint {
        let Credentials { scheme, id, secret, app_key } = credentials;
        self.fingerprint(scheme.as_str(), host, id, secret, app_key.expose())
    }

    /// Whether the token request may be made, according to the newest state on disk.
    ///
    /// If the state has become unreadable since startup, this uses the last state that this process knows, and the next change
    /// reports the error: a damaged file must not interrupt credentials that work.
    pub fn decide(&self, fingerprint: &Fingerprint) -> Decision {
        self.newest_rejections().decide(fingerprint)
    }

    /// Latches `fingerprint` and counts its rejection, on disk before this returns.
    ///
    /// A rejection of a latched fingerprint is counted too: two processes tried it concurrently, and the vendor counted both.
    ///
    /// # Errors
    ///
    /// If the rejection is not on disk. It still applies in this process, and the next change writes it.
    pub fn record_rejection(&mut self, fingerprint: &Fingerprint) -> Result<(), PersistError> {
        self.rejections.add(fingerprint);
        self.unsaved.push(fingerprint.clone());
        let written = self.update_rejections(|_| {});
        written.and(self.update_attempts(|attempts| attempts.remove_proof(fingerprint)))
    }

    /// What would prevent a token request with `fingerprint` at `now` (since the Unix epoch), until an operator acts or the credentials
    /// change. Records nothing.
    ///
    /// # Errors
    ///
    /// If the records cannot be read.
    pub fn outlook(&self, fingerprint: &Fingerprint, now: Duration) -> Result<Decision, PersistError> {
        let (rejections, attempts) = (self.newest_rejections(), self.newest_attempts()?);
        Ok(match rejections.decide(fingerprint) {
            Decision::BudgetSpent if attempts.is_proven(fingerprint) => Decision::Allowed,
            Decision::Allowed => {
                match attempts.decide(fingerprint, rejections.count_with_budget(fingerprint), now, None) {
                    AttemptDecision::Held(_) => Decision::Held,
                    _ => Decision::Allowed,
                }
            }
            decision => decision,
        })
    }

    /// What counts against the account of `fingerprint` at `now` (since the Unix epoch). Take it before a token request is sent, for
    /// [`record_success`](Self::record_success).
    pub fn baseline(&self, fingerprint: &Fingerprint, now: Duration) -> Baseline {
        Baseline { at: now, rejections: self.rejections(fingerprint) }
    }

    /// Records that the request sent at `baseline` obtained a token. This proves the credentials. It also shows that the account was
    /// not locked at that time, so earlier rejections and attempts no longer count against it. Latches of other secrets remain.
    ///
    /// # Errors
    ///
    /// If the state cannot be read, or if this change or an earlier rejection cannot be written. A part that is not on disk then
    /// remains unchanged. Writes nothing if nothing changes.
    pub fn record_success(&mut self, fingerprint: &Fingerprint, baseline: &Baseline) -> Result<(), PersistError> {
        self.update_rejections(|rejections| rejections.clear(fingerprint, baseline.rejections))?;
        self.update_attempts(|attempts| attempts.record_success(fingerprint, baseline.at))
    }

    /// Requests permission for one token request, at `now` (since the Unix epoch), with credentials that have not obtained a token
    /// in this process. `responded_after` is the attempt in [`BeginOutcome::ProbeFirst`], once the token endpoint has sent a complete
    /// response after it.
    ///
    /// If there is a state directory, [`BeginOutcome::Recorded`] is returned only once the attempt is on disk.
    ///
    /// # Errors
    ///
    /// If the records cannot be read or written. The request must then not be sent.
    pub fn begin(
        &mut self,
        fingerprint: &Fingerprint,
        now: Duration,
        responded_after: Option<LastAttempt>,
    ) -> Result<BeginOutcome, PersistError> {
        let decide = |rejections: &Rejections, attempts: &Attempts| {
            attempts.decide(fingerprint, rejections.count_with_budget(fingerprint), now, responded_after)
        };
        // Proven credentials need no lock and no write.
        if decide(&self.rejections, &*self.newest_attempts()?) == AttemptDecision::Proven {
            return Ok(BeginOutcome::Proven);
        }
        let attempt_lock = match self.lock_directory(StateDirectory::try_lock_attempt)? {
            Some(None) => return Ok(BeginOutcome::InProgress),
            lock => lock.flatten(),
        };
        let _lock = self.lock_directory(StateDirectory::lock)?;
        self.reload().map_err(|source| self.rejections_error(source))?;
        let decision = self.rejections.decide(fingerprint);
        if decision != Decision::Allowed {
            return Ok(BeginOutcome::Rejected(decision));
        }
        let before = self.newest_attempts()?.into_owned();
        let mut attempts = before.clone();
        attempts.clamp(now);
        let attempt_decision = decide(&self.rejections, &attempts);
        let recorded = (attempt_decision == AttemptDecision::Permitted).then(|| attempts.record(fingerprint, now));
        if recorded.is_some() {
            // Proves that a rejection can be written as well.
            self.write_rejections(self.rejections.clone()).map_err(|source| self.rejections_error(source))?;
        }
        if attempts != before {
            self.write_attempts(attempts)?;
        }
        Ok(match (attempt_decision, recorded) {
            (_, Some(at_ms)) => {
                BeginOutcome::Recorded(Permit { fingerprint: fingerprint.clone(), at_ms, _lock: attempt_lock })
            }
            (AttemptDecision::Proven | AttemptDecision::Permitted, None) => BeginOutcome::Proven,
            (AttemptDecision::ProbeFirst(last), None) => BeginOutcome::ProbeFirst(last),
            (AttemptDecision::NotBefore(wait), None) => BeginOutcome::NotBefore(wait),
            (AttemptDecision::Held(wait), None) => BeginOutcome::Held(wait),
        })
    }

    /// The error for [`BeginOutcome::InProgress`] that lasts longer than any attempt can take.
    pub fn busy_error(&self) -> PersistError {
        self.attempts_error(StateError::Busy)
    }

    /// Removes the record of an attempt with a known outcome: nothing was sent, a complete response other than a rejection was
    /// received, or the rejection has been counted.
    ///
    /// # Errors
    ///
    /// If the removal cannot be written. The attempt then counts as one with an unknown outcome.
    pub fn resolve(&mut self, permit: Permit) -> Result<(), PersistError> {
        self.update_attempts(|attempts| attempts.resolve(&permit.fingerprint, permit.at_ms))
    }

    /// Whether the records show that the credentials obtained the account's last token and have not been rejected since.
    pub fn is_proven(&self, fingerprint: &Fingerprint) -> bool {
        self.newest_attempts().is_ok_and(|attempts| attempts.is_proven(fingerprint))
    }

    /// Whether the account has rejections and no proof on record. If these credentials were proven, another process that shares the
    /// state directory had them rejected.
    pub fn is_disproven(&self, fingerprint: &Fingerprint) -> bool {
        self.rejections(fingerprint) > 0
            && self.newest_attempts().is_ok_and(|attempts| !attempts.has_proof(fingerprint))
    }

    /// The number of attempts with an unknown outcome that count against the credentials of `fingerprint`.
    pub fn unresolved(&self, fingerprint: &Fingerprint) -> u32 {
        self.newest_attempts().map_or(0, |attempts| attempts.unresolved(fingerprint))
    }

    /// Resets the latch of `fingerprint` for an operator, which allows one more attempt. Leaves a spent budget and held attempts
    /// unchanged, unless `override_budget` is set, which grants exactly one further attempt. Returns the resulting decision at `now`
    /// (since the Unix epoch).
    ///
    /// # Errors
    ///
    /// If a change cannot be written. A part that is not on disk is then not reset.
    pub fn reset(
        &mut self,
        fingerprint: &Fingerprint,
        override_budget: bool,
        now: Duration,
    ) -> Result<Decision, PersistError> {
        // A process that was killed, or an earlier release, may have made only the first of a rejection's two writes. The proof is
        // then still on record.
        if self.newest_rejections().is_latched(fingerprint) {
            self.update_attempts(|attempts| attempts.remove_proof(fingerprint))?;
        }
        self.update_rejections(|rejections| rejections.reset(fingerprint, override_budget))?;
        let rejections = self.rejections.count_with_budget(fingerprint);
        if override_budget {
            self.update_attempts(|attempts| attempts.permit_one(fingerprint, rejections))?;
        }
        let decision = self.rejections.decide(fingerprint);
        Ok(match self.newest_attempts()?.decide(fingerprint, rejections, now, None) {
            AttemptDecision::Held(_) if decision == Decision::Allowed => Decision::Held,
            _ => decision,
        })
    }

    /// The number of rejections that count against the id in `fingerprint`.
    pub fn rejections(&self, fingerprint: &Fingerprint) -> u32 {
        self.newest_rejections().count(fingerprint)
    }

    /// Whether the state survives a restart.
    pub fn is_persistent(&self) -> bool {
        self.directory.is_some()
    }

    /// The rejections on disk if they can be read, otherwise those last known.
    fn newest_rejections(&self) -> Cow<'_, Rejections> {
        match self.directory.as_ref().map(|directory| directory.read_if_changed(&self.key)) {
            Some(Ok(Some((rejections, _)))) => Cow::Owned(with_unsaved(rejections, &self.unsaved)),
            _ => Cow::Borrowed(&self.rejections),
        }
    }

    /// Applies `update` to the newest rejections, and writes them together with those still unsaved.
    fn update_rejections(&mut self, update: impl Fn(&mut Rejections)) -> Result<(), PersistError> {
        self.try_update_rejections(update).map_err(|source| self.rejections_error(source))
    }

    fn try_update_rejections(&mut self, update: impl Fn(&mut Rejections)) -> Result<(), StateError> {
        let updated = |rejections: &Rejections| {
            let mut next = rejections.clone();
            update(&mut next);
            next
        };
        self.reload()?;
        // Almost every token request succeeds and has nothing to clear, so it must not wait for the lock or write.
        if self.unsaved.is_empty() && updated(&self.rejections) == self.rejections {
            return Ok(());
        }
        let _lock = self.directory.as_ref().map(StateDirectory::lock).transpose()?;
        self.reload()?;
        self.write_rejections(updated(&self.rejections))
    }

    /// Replaces the rejections by `next`, on disk first. The caller must hold the lock.
    fn write_rejections(&mut self, next: Rejections) -> Result<(), StateError> {
        if let Some(directory) = &mut self.directory {
            directory.write_rejections(&self.key, &next)?;
        }
        self.rejections = next;
        self.unsaved.clear();
        Ok(())
    }

    /// The attempts on disk, or those of this process if there is no state directory.
    fn newest_attempts(&self) -> Result<Cow<'_, Attempts>, PersistError> {
        match &self.directory {
            Some(directory) => {
                directory.read_attempts(&self.key).map(Cow::Owned).map_err(|source| self.attempts_error(source))
            }
            None => Ok(Cow::Borrowed(&self.attempts)),
        }
    }

    /// Applies `update` to the newest attempts, and writes them if they changed.
    fn update_attempts(&mut self, update: impl Fn(&mut Attempts)) -> Result<(), PersistError> {
        let updated = |attempts: &Attempts| {
            let mut next = attempts.clone();
            update(&mut next);
            (next != *attempts).then_some(next)
        };
        if updated(&*self.newest_attempts()?).is_none() {
            return Ok(());
        }
        let _lock = self.lock_directory(StateDirectory::lock)?;
        match updated(&*self.newest_attempts()?) {
            Some(next) => self.write_attempts(next),
            None => Ok(()),
        }
    }

    fn write_attempts(&mut self, attempts: Attempts) -> Result<(), PersistError> {
        match &self.directory {
            Some(directory) => {
                directory.write_attempts(&self.key, &attempts).map_err(|source| self.attempts_error(source))
            }
            None => {
                self.attempts = attempts;
                Ok(())
            }
        }
    }

    /// Takes a lock in the state directory, if there is one.
    fn lock_directory<T>(
        &self,
        lock: impl FnOnce(&StateDirectory) -> Result<T, StateError>,
    ) -> Result<Option<T>, PersistError> {
        self.directory.as_ref().map(lock).transpose().map_err(|source| self.attempts_error(source))
    }

    fn attempts_error(&self, source: StateError) -> PersistError {
        PersistError { path: self.directory.as_ref().map(StateDirectory::attempts_path).unwrap_or_default(), source }
    }

    fn rejections_error(&self, source: StateError) -> PersistError {
        PersistError { path: self.directory.as_ref().map(StateDirectory::rejections_path).unwrap_or_default(), source }
    }

    fn reload(&mut self) -> Result<(), StateError> {
        let Some(directory) = &mut self.directory else { return Ok(()) };
        if let Some((rejections, snapshot)) = directory.read_if_changed(&self.key)? {
            directory.remember(snapshot);
            self.rejections = with_unsaved(rejections, &self.unsaved);
        }
        Ok(())
    }
}

/// `rejections` plus those in `unsaved`.
fn with_unsaved(mut rejections: Rejections, unsaved: &[Fingerprint]) -> Rejections {
    for fingerprint in unsaved {
        rejections.add(fingerprint);
    }
    rejections
}

#[cfg(test)]
mod tests;
