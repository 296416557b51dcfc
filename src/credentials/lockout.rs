//! The guard against locking the vendor account: which credentials must not be tried (again).
//!
//! Five failed authentications lock the account, and only the vendor's support unlocks it. Three rules keep away from
//! that. Credentials that have not obtained a token yet (*unproven*) are tried only after the attempt was recorded; an attempt
//! of which the outcome stays unknown counts like a rejection (`attempts`). After one rejection the [`Fingerprint`] is
//! *latched*: it is not tried again until the credentials change or an operator resets it. And each id has a *budget*: after
//! three rejections nothing is tried for it until an operator overrides that. All of this outlives the process in a state
//! directory, as keyed hashes, and holds for every process that shares the directory.
//!
//! What tightens holds at once, even when the disk fails; what loosens holds only when it is on the disk. So a fault can
//! cost a token request too few, never one too many.
//!
//! Confirmed rejections never expire: the vendor documents no time after which its count of failures ends.

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

/// Failed authentications at which the vendor locks the account.
pub const VENDOR_LIMIT: u32 = 5;

/// Why the state of an earlier run cannot be gone by. Starting all the same could forget a rejection.
#[derive(Debug, thiserror::Error)]
#[error("the lock-out state {} cannot be used: {}", ShownPath::new(path), source.advice())]
pub struct OpenError {
    path: PathBuf,
    source: StateError,
}

/// Why a change is not on the disk. Of a rejection this process knows all the same; any other change was not made.
#[derive(Debug, thiserror::Error)]
#[error("the lock-out state {} cannot be kept up to date: {}", ShownPath::new(path), source.advice())]
pub struct PersistError {
    path: PathBuf,
    source: StateError,
}

/// What was rejected, by this process and by those that share its state directory.
///
/// All methods block on the disk for a moment, those that change something for a second at most when another process
/// holds the lock: call them from the control plane, never from a worker.
#[derive(Debug)]
pub struct Lockout {
    key: Key,
    /// The rejections that were last read or written, and `unsaved` on top of them.
    rejections: Rejections,
    /// Rejections that could not be written yet. Each took a token request that a decision had allowed, so they are few.
    unsaved: Vec<Fingerprint>,
    /// The attempts of this process, where there is no state directory.
    attempts: Attempts,
    directory: Option<StateDirectory>,
}

impl Lockout {
    /// The state that `dir` holds; `dir` and state are made when they are missing. Without `dir` it lives in memory only, and so
    /// it does where there is no state and the file system is read-only: nothing was ever remembered there.
    ///
    /// # Errors
    ///
    /// When there is a state that cannot be read or understood, or none and it cannot be made.
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

    /// The fingerprint of a token request to `host` in the manner of `scheme`.
    ///
    /// It can be compared only with those of the same state directory.
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

    /// Whether the call may be made, by the newest state on the disk.
    ///
    /// A state that became unreadable since the start stops nothing: this process goes by what it knows, and the next
    /// change tells of it. A damaged file must not end the service of credentials that work.
    pub fn decide(&self, fingerprint: &Fingerprint) -> Decision {
        self.newest_rejections().decide(fingerprint)
    }

    /// Latches it and counts it, on the disk before this returns.
    ///
    /// It is counted even when it is latched already: then two processes tried at once, and the vendor counted both.
    ///
    /// # Errors
    ///
    /// When it is not on the disk. It holds for this process all the same, and the next change writes it, too.
    pub fn record_rejection(&mut self, fingerprint: &Fingerprint) -> Result<(), PersistError> {
        self.rejections.add(fingerprint);
        self.unsaved.push(fingerprint.clone());
        let written = self.update_rejections(|_| {});
        written.and(self.update_attempts(|attempts| attempts.remove_proof(fingerprint)))
    }

    /// What would keep a token request with the credentials from being made at `now`, which counts from the Unix epoch, until an
    /// operator or other credentials change that. Nothing is recorded.
    ///
    /// # Errors
    ///
    /// When the records cannot be read.
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

    /// What counts against the account of `fingerprint` now, at `now` since the Unix epoch: to be taken before a token request is
    /// sent, for [`record_success`](Self::record_success).
    pub fn baseline(&self, fingerprint: &Fingerprint, now: Duration) -> Baseline {
        Baseline { at: now, rejections: self.rejections(fingerprint) }
    }

    /// The credentials obtained a token by the request that was sent at `baseline`: they are proven, and the account was not locked
    /// then, so what counted against it before is void. Latches of other secrets stay.
    ///
    /// # Errors
    ///
    /// When that, or an earlier rejection, cannot be written; then budget and proof stay as they were. Nothing is written, and
    /// so nothing fails, when there is nothing to change.
    pub fn record_success(&mut self, fingerprint: &Fingerprint, baseline: &Baseline) -> Result<(), PersistError> {
        self.update_rejections(|rejections| rejections.clear(fingerprint, baseline.rejections))?;
        self.update_attempts(|attempts| attempts.record_success(fingerprint, baseline.at))
    }

    /// Asks to make one token request with credentials that have not obtained a token in this process, at `now`, which counts
    /// from the Unix epoch. `responded_after` is what [`BeginOutcome::ProbeFirst`] named, once the token endpoint gave a complete response after
    /// that.
    ///
    /// [`BeginOutcome::Recorded`] is returned only once the attempt is on the disk, where there is a state directory.
    ///
    /// # Errors
    ///
    /// When the records cannot be read or written. Then the request must not be sent.
    pub fn begin(
        &mut self,
        fingerprint: &Fingerprint,
        now: Duration,
        responded_after: Option<LastAttempt>,
    ) -> Result<BeginOutcome, PersistError> {
        let decide = |rejections: &Rejections, attempts: &Attempts| {
            attempts.decide(fingerprint, rejections.count_with_budget(fingerprint), now, responded_after)
        };
        // Proven credentials neither wait for a lock nor write.
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
            // A rejection must find its file replaceable, too.
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

    /// The error for an attempt of another process, [`BeginOutcome::InProgress`], that takes longer than any can.
    pub fn busy_error(&self) -> PersistError {
        self.attempts_error(StateError::Busy)
    }

    /// Removes the record of an attempt whose outcome is known: nothing was sent, a complete response other than a rejection was
    /// received, or the rejection is counted.
    ///
    /// # Errors
    ///
    /// When the removal cannot be written. Then the attempt counts as one with an unknown outcome.
    pub fn resolve(&mut self, permit: Permit) -> Result<(), PersistError> {
        self.update_attempts(|attempts| attempts.resolve(&permit.fingerprint, permit.at_ms))
    }

    /// Whether the records show that the credentials obtained the account's last token and were not rejected since.
    pub fn is_proven(&self, fingerprint: &Fingerprint) -> bool {
        self.newest_attempts().is_ok_and(|attempts| attempts.is_proven(fingerprint))
    }

    /// Whether proof that was on record is gone, and credentials of the account were rejected: another process that shares the state
    /// directory tried these.
    pub fn is_disproven(&self, fingerprint: &Fingerprint) -> bool {
        self.rejections(fingerprint) > 0
            && self.newest_attempts().is_ok_and(|attempts| !attempts.has_proof(fingerprint))
    }

    /// Attempts with an unknown outcome that count against the credentials of `fingerprint`.
    pub fn unresolved(&self, fingerprint: &Fingerprint) -> u32 {
        self.newest_attempts().map_or(0, |attempts| attempts.unresolved(fingerprint))
    }

    /// An operator's reset: allows this fingerprint once more. A spent budget and held attempts it leaves alone, unless
    /// `override_budget`, which grants exactly one further attempt. Returns the decision after it, at `now`, which counts from
    /// the Unix epoch.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then nothing is reset.
    pub fn reset(
        &mut self,
        fingerprint: &Fingerprint,
        override_budget: bool,
        now: Duration,
    ) -> Result<Decision, PersistError> {
        // Of a rejection only the first of its two writes may have been made, by a process that was killed or by an earlier
        // release: then the proof is still there.
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

    /// How many rejections count against the id of `fingerprint`.
    pub fn rejections(&self, fingerprint: &Fingerprint) -> u32 {
        self.newest_rejections().count(fingerprint)
    }

    /// Whether the state outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.directory.is_some()
    }

    /// What the disk says now, where it can be read, and else what was last known.
    fn newest_rejections(&self) -> Cow<'_, Rejections> {
        match self.directory.as_ref().map(|directory| directory.read_if_changed(&self.key)) {
            Some(Ok(Some((rejections, _)))) => Cow::Owned(with_unsaved(rejections, &self.unsaved)),
            _ => Cow::Borrowed(&self.rejections),
        }
    }

    /// Applies `update` to the newest rejections, and writes them together with what is still unsaved.
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
        // Almost every token call is accepted and has nothing to clear: it must neither wait for the lock nor write.
        if self.unsaved.is_empty() && updated(&self.rejections) == self.rejections {
            return Ok(());
        }
        let _lock = self.directory.as_ref().map(StateDirectory::lock).transpose()?;
        self.reload()?;
        self.write_rejections(updated(&self.rejections))
    }

    /// Replaces the rejections by `next`, on the disk first. The caller holds the lock.
    fn write_rejections(&mut self, next: Rejections) -> Result<(), StateError> {
        if let Some(directory) = &mut self.directory {
            directory.write_rejections(&self.key, &next)?;
        }
        self.rejections = next;
        self.unsaved.clear();
        Ok(())
    }

    /// The attempts on the disk, or those of this process where there is no state directory.
    fn newest_attempts(&self) -> Result<Cow<'_, Attempts>, PersistError> {
        match &self.directory {
            Some(directory) => {
                directory.read_attempts(&self.key).map(Cow::Owned).map_err(|source| self.attempts_error(source))
            }
            None => Ok(Cow::Borrowed(&self.attempts)),
        }
    }

    /// Applies `update` to the newest attempts, and writes them where they differ.
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

    /// Takes a lock of the state directory, where there is one.
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

/// The rejections on the disk and those that are not written yet.
fn with_unsaved(mut rejections: Rejections, unsaved: &[Fingerprint]) -> Rejections {
    for fingerprint in unsaved {
        rejections.add(fingerprint);
    }
    rejections
}

#[cfg(test)]
mod tests;
