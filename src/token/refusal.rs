//! Why no token request is made with the credentials, and what an operator can do. Probes, the status, the termination message and
//! the commands all use these texts.

use super::{Phase, Status, classify::FailureClass};

/// A state in which no token request is made until an operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token endpoint rejected exactly these credentials.
    Rejected,
    /// Too many credentials for this id were rejected, so none are tried.
    BudgetSpent,
    /// Too many token requests with credentials that have never obtained a token have an unknown outcome.
    Held,
}

impl Refusal {
    /// The refusal that `status` shows, if any.
    pub fn of(status: &Status) -> Option<Self> {
        match status.phase {
            _ if status.lockout.budget_spent => Some(Self::BudgetSpent),
            // While new credentials are tried, the phase describes them, but the current ones stay latched.
            _ if status.lockout.latched => Some(Self::Rejected),
            _ if status.lockout.held => Some(Self::Held),
            Phase::Rejected => Some(Self::Rejected),
            _ => None,
        }
    }

    /// The refusal that blocks startup, given the current `status` and the result of the previous call. It stays in force until a
    /// token is obtained or an attempt fails for another reason. So a probe cannot pass between an operator's reset, or new
    /// credentials, and the outcome of the resulting token request.
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
                "the credentials were rejected; they are not tried again, because five rejections lock the vendor account"
            }
            Self::BudgetSpent => {
                "too many credentials for this id were rejected; no more are tried, because five rejections lock the vendor \
                 account"
            }
            Self::Held => {
                "too many token requests with these credentials have an unknown outcome, and each may count towards the lock-out of \
                 the vendor account; one more is made after 24 hours, then no more"
            }
        }
    }

    /// What an operator can do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Rejected => {
                "correct the Secret, which the running proxy reloads by itself (a file on SIGHUP, a variable on restart); \
                 if the credentials are correct after all, run `finicity-proxy lockout reset`"
            }
            Self::BudgetSpent => {
                "have the vendor confirm the credentials, install them, then run `finicity-proxy lockout reset \
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
    fn a_refusal_is_reported_in_every_phase() {
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
    fn a_refusal_blocks_startup_until_another_outcome() {
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
        // Later rejections do not affect startup.
        assert_eq!(Refusal::of_start(refused, &Status { obtained: true, ..status(Phase::Rejected, LATCHED) }), None);
    }
}
