//! One set of credentials, and when it is next tried.

use crate::{
    credentials::{
        Credentials,
        lockout::{Fingerprint, Lockout, Verdict},
    },
    token::{Stamp, classify::Class, schedule::Streak},
};

/// Credentials with their history.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) credentials: Credentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) streak: Streak,
    /// The class of the last call, if it failed.
    pub(super) failure: Option<Class>,
    /// Whether they have minted a token in this process and were not rejected since.
    pub(super) proven: bool,
    /// When the next call is due; `None` when none may be made.
    pub(super) due: Option<Stamp>,
    /// What the records of attempts say, as far as they keep the credentials from being tried.
    pub(super) obstacle: Option<Obstacle>,
    /// Whether the token endpoint responded to a probe since the last attempt with an unknown outcome.
    pub(super) endpoint_responded: bool,
    /// Probes without a response, since the last attempt.
    pub(super) failed_probes: u32,
}

/// Why no attempt with unproven credentials can be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Too many attempts have an unknown outcome.
    Held,
    /// The attempt cannot be recorded.
    Unrecorded,
}

impl Slot {
    /// Credentials that are due at once.
    pub(super) fn new(credentials: Credentials, lockout: &Lockout, host: &str, now: Stamp) -> Self {
        let fingerprint = lockout.fingerprint(
            credentials.scheme.as_str(),
            host,
            &credentials.id,
            &credentials.secret,
            credentials.app_key.expose(),
        );
        Self {
            credentials,
            fingerprint,
            streak: Streak::default(),
            failure: None,
            proven: false,
            due: Some(now),
            obstacle: None,
            endpoint_responded: false,
            failed_probes: 0,
        }
    }

    /// What the lock-out guard says of a call. A spent budget does not stop credentials that the vendor took in this process:
    /// it was others of the same id that spent it, and a typing error in those must not become an outage.
    pub(super) fn verdict(&self, lockout: &Lockout) -> Verdict {
        match lockout.verdict(&self.fingerprint) {
            Verdict::BudgetSpent if self.proven => Verdict::Allowed,
            verdict => verdict,
        }
    }
}
