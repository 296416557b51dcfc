//! The guard against locking the vendor account: which credentials must not be tried (again).
//!
//! Five failed authentications lock the account, and only the vendor's support unlocks it. Two rules keep away from
//! that. After one rejection its [`Fingerprint`] is *latched*: it is not tried again until the credentials change or an
//! operator resets it. And each id has a *budget*: after three rejections nothing is tried for it until an operator
//! overrides that. Both outlive the process in a state directory, as keyed hashes, and every process that shares the
//! directory obeys them.
//!
//! What tightens holds at once, even when the disk fails; what loosens holds only when it is on the disk. So a fault can
//! cost a token call too few, never one too many.
//!
//! Deliberately absent: time. The vendor documents no moment at which its count of failures ends, so nothing here wears
//! off by itself.

mod fingerprint;
mod state;
mod store;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

pub use fingerprint::Fingerprint;

use self::{
    fingerprint::Key,
    state::State,
    store::{Failure, Store},
};
use crate::secret::Secret;

/// Whether a token call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known against it.
    Allowed,
    /// Exactly these credentials were rejected. Others of the same id may be tried.
    Latched,
    /// The id was rejected too often: no credentials of it may be tried.
    BudgetSpent,
}

/// Why the state of an earlier run cannot be gone by. Starting all the same could forget a rejection.
#[derive(Debug, thiserror::Error)]
#[error("the lock-out state {} cannot be used: {}", path.display(), source.advice())]
pub struct OpenError {
    path: PathBuf,
    source: Failure,
}

/// Why a change is not on the disk. Of a rejection this process knows all the same; any other change was not made.
#[derive(Debug, thiserror::Error)]
#[error("the lock-out state {} cannot be kept up to date: {}", path.display(), source.advice())]
pub struct PersistError {
    path: PathBuf,
    source: Failure,
}

/// What was rejected, by this process and by those that share its state directory.
///
/// All methods block on the disk for a moment, those that change something for a second at most when another process
/// holds the lock: call them from the control plane, never from a worker.
#[derive(Debug)]
pub struct Lockout {
    key: Key,
    /// What was last read or written, and `unsaved` on top of it.
    state: State,
    /// Rejections that could not be written yet. Each took a token call that a verdict had allowed, so they are few.
    unsaved: Vec<Fingerprint>,
    store: Option<Store>,
}

impl Lockout {
    /// The state that `dir` holds; `dir` and state are made when they are missing. Without `dir` it lives in memory only, and so
    /// it does where there is no state and the file system is read-only: nothing was ever remembered there.
    ///
    /// # Errors
    ///
    /// When there is a state that cannot be read or understood, or none and it cannot be made.
    pub fn open(dir: Option<&Path>) -> Result<Self, OpenError> {
        let failed = |source| OpenError { path: dir.map(store::path).unwrap_or_default(), source };
        let (store, key, state) = match dir {
            Some(dir) => match Store::open(dir) {
                Ok((store, key, state)) => (Some(store), key, state),
                Err(failure) if failure.is_read_only() => (None, Key::generate().map_err(failed)?, State::default()),
                Err(failure) => return Err(failed(failure)),
            },
            None => (None, Key::generate().map_err(failed)?, State::default()),
        };
        Ok(Self { key, state, unsaved: Vec::new(), store })
    }

    /// The fingerprint of a token call to `host` in the manner of `scheme`.
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

    /// Whether the call may be made, by the newest state on the disk.
    ///
    /// A state that became unreadable since the start stops nothing: this process goes by what it knows, and the next
    /// change tells of it. A damaged file must not end the service of credentials that work.
    pub fn verdict(&self, fingerprint: &Fingerprint) -> Verdict {
        self.newest().verdict(fingerprint)
    }

    /// Latches it and counts it, on the disk before this returns.
    ///
    /// It is counted even when it is latched already: then two processes tried at once, and the vendor counted both.
    ///
    /// # Errors
    ///
    /// When it is not on the disk. It holds for this process all the same, and the next change writes it, too.
    pub fn rejected(&mut self, fingerprint: &Fingerprint) -> Result<(), PersistError> {
        self.state.rejected(fingerprint);
        self.unsaved.push(fingerprint.clone());
        self.change(|_| {})
    }

    /// The vendor took them, so the account is not locked: the budget of that id starts anew. Latches of other secrets
    /// stay.
    ///
    /// # Errors
    ///
    /// When that, or an earlier rejection, cannot be written; then the budget stays as it was. Nothing is written, and
    /// so nothing fails, when there is nothing to change.
    pub fn accepted(&mut self, fingerprint: &Fingerprint) -> Result<(), PersistError> {
        self.change(|state| state.accepted(fingerprint))
    }

    /// An operator's reset: allows this fingerprint once more. A spent budget it leaves alone, unless `override_budget`,
    /// which grants exactly one further rejection. Returns the verdict after it.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then nothing is reset.
    pub fn reset(&mut self, fingerprint: &Fingerprint, override_budget: bool) -> Result<Verdict, PersistError> {
        self.change(|state| state.reset(fingerprint, override_budget))?;
        Ok(self.state.verdict(fingerprint))
    }

    /// How many rejections count against the id of `fingerprint`.
    pub fn rejections(&self, fingerprint: &Fingerprint) -> u32 {
        self.newest().rejections(fingerprint)
    }

    /// Whether the state outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.store.is_some()
    }

    /// What the disk says now, where it can be read, and else what was last known.
    fn newest(&self) -> Cow<'_, State> {
        match self.store.as_ref().map(|store| store.newer(&self.key)) {
            Some(Ok(Some((state, _)))) => Cow::Owned(with(state, &self.unsaved)),
            _ => Cow::Borrowed(&self.state),
        }
    }

    /// Makes `change` to the newest state, and writes it together with what is still unsaved.
    fn change(&mut self, change: impl Fn(&mut State)) -> Result<(), PersistError> {
        self.try_change(change)
            .map_err(|source| PersistError { path: self.store.as_ref().map(Store::path).unwrap_or_default(), source })
    }

    fn try_change(&mut self, change: impl Fn(&mut State)) -> Result<(), Failure> {
        let changed = |state: &State| {
            let mut next = state.clone();
            change(&mut next);
            next
        };
        self.refresh()?;
        // Almost every token call is accepted and has nothing to clear: it must neither wait for the lock nor write.
        if self.unsaved.is_empty() && changed(&self.state) == self.state {
            return Ok(());
        }
        let _lock = self.store.as_ref().map(Store::lock).transpose()?;
        self.refresh()?;
        let next = changed(&self.state);
        if let Some(store) = &mut self.store {
            store.write(&self.key, &next)?;
        }
        self.state = next;
        self.unsaved.clear();
        Ok(())
    }

    fn refresh(&mut self) -> Result<(), Failure> {
        let Some(store) = &mut self.store else { return Ok(()) };
        if let Some((state, seen)) = store.newer(&self.key)? {
            store.saw(seen);
            self.state = with(state, &self.unsaved);
        }
        Ok(())
    }
}

/// The state on the disk and the rejections that are not in it.
fn with(mut state: State, unsaved: &[Fingerprint]) -> State {
    for fingerprint in unsaved {
        state.rejected(fingerprint);
    }
    state
}

#[cfg(test)]
mod tests;
