//! Why no token request is made with the credentials, and what an operator does about it: one place for probes, the status, the
//! termination message and the commands.

use super::{Phase, Status, classify::FailureClass};

/// A state in which no token request is made until an operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token endpoint rejected exactly these credentials.
    Rejected,
    /// So many credentials of this id were rejected that none of it is tried.
    BudgetSpent,
    /// So many token requests with credentials that have never obtained a token have an unknown outcome that none is made.
    Held,
}

impl Refusal {
    /// What `status` says now.
    pub fn of(status: &Status) -> Option<Self> {
        match status.phase {
            _ if status.lockout.budget_spent => Some(Self::BudgetSpent),
            // While new credentials wait or are tried, the phase is theirs, and the latch of those in use stays.
            _ if status.lockout.latched => Some(Self::Rejected),
            _ if status.lockout.held => Some(Self::Held),
            Phase::Rejected => Some(Self::Rejected),
            _ => None,
        }
    }

    /// What keeps the start from succeeding after `status`, where `before` did until then: a refusal stays one until a token was
    /// obtained, or an attempt has failed for another reason. So the moments between an operator's reset, or new credentials, and
    /// the outcome of their token request let no probe pass.
    pub fn of_start(before: Option<Self>, status: &Status) -> Option<Self> {
        if status.obtained {
            return None;
        }
        Self::of(status).or(match status.phase {
            Phase::Failed(class) if class != FailureClass::Rejected => None,
            _ => before,
        })
    }

    /// What happened.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Rejected => {
                "the credentials were rejected; they are not tried again, since five rejections lock the vendor account"
            }
            Self::BudgetSpent => {
                "too many credentials of this id were rejected; none of it are tried, since five rejections lock the vendor \
                 account"
            }
            Self::Held => {
                "too many token requests with these credentials have an unknown outcome, and each may count towards the lock-out of \
                 the vendor account; one more is made after 24 hours, and then none"
            }
        }
    }

    /// What an operator does.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Rejected => {
                "correct the Secret, which the running proxy reads again by itself (a file at SIGHUP, a variable at a restart); \
                 if the credentials are right after all, run `finicity-proxy lockout reset`"
            }
            Self::BudgetSpent => {
                "let the vendor confirm the credentials, put them in place, then run `finicity-proxy lockout reset \
                 --override-budget`"
            }
            Self::Held => {
                "verify the credentials and that the token endpoint responds, then run `finicity-proxy lockout reset \
                 --override-budget`, which permits one attempt"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::LockoutStatus;

    fn status(phase: Phase, lockout: LockoutStatus) -> Status {
        Status { phase, scheme: None, attempted: true, obtained: false, next_attempt: None, last_error: None, lockout }
    }

    const NONE: LockoutStatus = LockoutStatus {
        latched: false,
        budget_spent: false,
        rejections: 0,
        unresolved: 0,
        held: false,
        unrecorded: false,
        candidate: None,
    };
    const LATCHED: LockoutStatus = LockoutStatus { latched: true, rejections: 1, ..NONE };
    const SPENT: LockoutStatus = LockoutStatus { budget_spent: true, rejections: 3, ..NONE };
    const HELD: LockoutStatus = LockoutStatus { held: true, unresolved: 3, ..NONE };

    #[test]
    fn a_refusal_is_seen_in_every_phase() {
        for phase in
            [Phase::Idle, Phase::Fetching, Phase::Failed(FailureClass::Rejected), Phase::Rejected, Phase::Quarantined]
        {
            assert_eq!(Refusal::of(&status(phase, LATCHED)), Some(Refusal::Rejected), "{phase:?}");
            assert_eq!(Refusal::of(&status(phase, SPENT)), Some(Refusal::BudgetSpent), "{phase:?}");
            assert_eq!(Refusal::of(&status(phase, HELD)), Some(Refusal::Held), "{phase:?}");
            let alone = (phase == Phase::Rejected).then_some(Refusal::Rejected);
            assert_eq!(Refusal::of(&status(phase, NONE)), alone, "{phase:?}");
        }
    }

    #[test]
    fn a_refused_start_stays_refused_until_an_attempt_ends_otherwise() {
        let refused = Refusal::of_start(None, &status(Phase::Rejected, LATCHED));
        assert_eq!(refused, Some(Refusal::Rejected));
        // A reset allows one more attempt, whose outcome is not known yet.
        for phase in [Phase::Idle, Phase::Fetching, Phase::Failed(FailureClass::Rejected), Phase::Quarantined] {
            assert_eq!(Refusal::of_start(refused, &status(phase, NONE)), refused, "{phase:?}");
            assert_eq!(Refusal::of_start(None, &status(phase, NONE)), None, "{phase:?}");
        }
        assert_eq!(Refusal::of_start(refused, &status(Phase::Failed(FailureClass::Transient), NONE)), None);
        let obtained = Status { obtained: true, ..status(Phase::Idle, NONE) };
        assert_eq!(Refusal::of_start(refused, &obtained), None);
        // Later rejections concern no start.
        assert_eq!(Refusal::of_start(refused, &Status { obtained: true, ..status(Phase::Rejected, LATCHED) }), None);
    }
}
