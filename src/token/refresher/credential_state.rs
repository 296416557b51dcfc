//! One set of credentials, its history, and its next request.

use crate::{
    credentials::{
        Credentials,
        lockout::{Decision, Fingerprint, LastAttempt, Lockout},
    },
    token::{BootInstant, classify::FailureClass, schedule::FailureStreak},
};

/// The credentials that a request is made with.
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
    /// Whether they have obtained a token in this process and have not been rejected since.
    pub(super) proven: bool,
    /// Whether that success was recorded on disk.
    pub(super) proof_recorded: bool,
    /// When the next request is due; `None` when none may be made.
    pub(super) due: Option<BootInstant>,
    /// Why the records of attempts do not allow a request, if they do not.
    pub(super) obstacle: Option<Obstacle>,
    /// The attempt with an unknown outcome that requires a probe of the token endpoint.
    pub(super) probed_after: Option<LastAttempt>,
    /// That attempt, once the token endpoint has responded to the probe.
    pub(super) responded_after: Option<LastAttempt>,
    /// The number of attempts with an unknown outcome when the credentials were held.
    pub(super) unresolved_at_hold: u32,
    /// When this process began to wait for the attempt of another one that shares the state directory.
    pub(super) waiting_since: Option<BootInstant>,
    /// The number of failed probes since the last attempt.
    pub(super) failed_probes: u32,
}

/// Why no attempt with unproven credentials may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Too many attempts have an unknown outcome.
    Held,
    /// The attempt cannot be recorded, or another process holds the lock on attempts.
    Unrecorded,
}

impl CredentialState {
    /// The initial state of `credentials`: a request is due immediately.
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

    /// The decision of the lock-out guard on a request. A spent budget does not stop credentials that the vendor has accepted, in this
    /// process or according to the records: other credentials for the same id spent it, and a typo in those must not cause an outage.
    pub(super) fn decide(&self, lockout: &Lockout) -> Decision {
        match lockout.decide(&self.fingerprint) {
            Decision::BudgetSpent if self.proven || lockout.is_proven(&self.fingerprint) => Decision::Allowed,
            decision => decision,
        }
    }

    /// Whether the records have changed since the credentials were held: another process that shares them obtained a token or was
    /// rejected, or other credentials of the account were accepted.
    pub(super) fn is_hold_outdated(&self, lockout: &Lockout) -> bool {
        self.obstacle == Some(Obstacle::Held)
            && (lockout.unresolved(&self.fingerprint) < self.unresolved_at_hold
                || self.decide(lockout) != Decision::Allowed)
    }
}
