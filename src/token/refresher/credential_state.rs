//! One set of credentials, and when it is next tried.

use crate::{
    credentials::{
        Credentials,
        lockout::{Decision, Fingerprint, LastAttempt, Lockout},
    },
    token::{BootInstant, classify::FailureClass, schedule::FailureStreak},
};

/// Which credentials a request is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialSlot {
    Current,
    Candidate,
}

/// Credentials with their history.
#[derive(Debug)]
pub(super) struct CredentialState {
    pub(super) credentials: Credentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) streak: FailureStreak,
    /// The class of the last request, if it failed.
    pub(super) failure: Option<FailureClass>,
    /// Whether they have obtained a token in this process and were not rejected since.
    pub(super) proven: bool,
    /// Whether that was recorded.
    pub(super) proof_recorded: bool,
    /// When the next request is due; `None` when none may be made.
    pub(super) due: Option<BootInstant>,
    /// What the records of attempts say, as far as they keep the credentials from being tried.
    pub(super) obstacle: Option<Obstacle>,
    /// The attempt with an unknown outcome after which the token endpoint is probed.
    pub(super) probed_after: Option<LastAttempt>,
    /// The same, once it responded.
    pub(super) responded_after: Option<LastAttempt>,
    /// Attempts with an unknown outcome, at the time when they began to hold the credentials.
    pub(super) unresolved_at_hold: u32,
    /// Since when another process that shares the state directory makes an attempt.
    pub(super) waiting_since: Option<BootInstant>,
    /// Probes without a response, since the last attempt.
    pub(super) failed_probes: u32,
}

/// Why no attempt with unproven credentials can be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Too many attempts have an unknown outcome.
    Held,
    /// The attempt cannot be recorded, or another process keeps the lock on attempts.
    Unrecorded,
}

impl CredentialState {
    /// Credentials that are due at once.
    pub(super) fn new(credentials: Credentials, lockout: &Lockout, host: &str, now: BootInstant) -> Self {
        let fingerprint = lockout.fingerprint_of(host, &credentials);
        Self {
            credentials,
            fingerprint,
            streak: FailureStreak::default(),
            failure: None,
            proven: false,
            due: Some(now),
            obstacle: None,
            proof_recorded: false,
            probed_after: None,
            responded_after: None,
            unresolved_at_hold: 0,
            waiting_since: None,
            failed_probes: 0,
        }
    }

    /// The decision of the lock-out guard on a request. A spent budget does not stop credentials that the vendor took, in this process or
    /// by the records: it was others of the same id that spent it, and a typing error in those must not become an outage.
    pub(super) fn decide(&self, lockout: &Lockout) -> Decision {
        match lockout.decide(&self.fingerprint) {
            Decision::BudgetSpent if self.proven || lockout.is_proven(&self.fingerprint) => Decision::Allowed,
            decision => decision,
        }
    }

    /// Whether the records changed since they began to hold the credentials: another process that shares them obtained a token or was
    /// rejected, or other credentials of the account work.
    pub(super) fn is_hold_outdated(&self, lockout: &Lockout) -> bool {
        self.obstacle == Some(Obstacle::Held)
            && (lockout.unresolved(&self.fingerprint) < self.unresolved_at_hold
                || self.decide(lockout) != Decision::Allowed)
    }
}
