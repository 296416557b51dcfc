//! One token request under the lock-out guard, in a separate process, for `credentials test` and `doctor`.
//!
//! Shares the guard's records and their lock with the running proxy. Deliberately absent: retries, revocation, and any use of the token.

use std::{borrow::Cow, fmt};

use super::output::eprint;
use crate::{
    credentials::{
        Credentials,
        lockout::{self, Baseline, BeginOutcome, Decision, Fingerprint, LastAttempt, Lockout, Permit, PersistError},
    },
    error_chain,
    telemetry::logging,
    token::{
        Clock, TokenEndpoint, TokenSource as _, UNPROVEN_TIMEOUT,
        classify::{Disposition, FailureClass, TokenFailure},
        scheme::AuthHeaders,
    },
};

/// Why a request obtained no token, or was not made.
#[derive(Debug)]
pub(super) struct NoToken {
    /// Whether nothing was sent, and the same request can be made later.
    pub(super) is_temporary: bool,
    /// What happened.
    pub(super) reason: String,
    /// What an operator has to do, as a phrase that follows a semicolon; may be empty.
    pub(super) remedy: String,
    /// How close the account is to being locked, as sentences; may be empty.
    pub(super) attempts_left: String,
}

impl NoToken {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { is_temporary: false, reason: reason.into(), remedy: remedy.into(), attempts_left: String::new() }
    }

    /// A temporary reason.
    pub(super) fn later(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { is_temporary: true, ..Self::new(reason, remedy) }
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        for (separator, part) in [("; ", &self.remedy), (". ", &self.attempts_left)] {
            if !part.is_empty() {
                write!(f, "{separator}{part}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for NoToken {}

/// The records cannot be read or written, so nothing was sent.
impl From<PersistError> for NoToken {
    fn from(error: PersistError) -> Self {
        Self::new(error_chain::one_line(&error), "")
    }
}

/// One attempt to obtain a token with given credentials.
pub(super) struct TokenAttempt {
    endpoint: TokenEndpoint,
    lockout: Lockout,
    fingerprint: Fingerprint,
    credentials: Credentials,
}

impl TokenAttempt {
    /// An attempt with `credentials` at `endpoint`, guarded by `lockout`.
    pub(super) fn new(endpoint: TokenEndpoint, lockout: Lockout, credentials: Credentials) -> Self {
        let fingerprint = lockout.fingerprint_of(endpoint.host(), &credentials);
        Self { endpoint, lockout, fingerprint, credentials }
    }

    /// The host of the token endpoint.
    pub(super) fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// Checks whether the guard forbids the request until an operator acts or the credentials change. Sends and records nothing.
    ///
    /// # Errors
    ///
    /// Why the request is forbidden.
    pub(super) fn outlook(&self) -> Result<(), NoToken> {
        match self.lockout.outlook(&self.fingerprint, Clock::Boot.unix_time())? {
            Decision::Allowed => Ok(()),
            decision => Err(self.forbidden(decision)),
        }
    }

    /// Requests a permit from the lock-out guard, which records the attempt before it returns one. `None`: the credentials are proven
    /// and need no permit.
    ///
    /// # Errors
    ///
    /// Why the credentials must not be tried now. Nothing was sent with them.
    pub(super) async fn clearance(&mut self) -> Result<Option<Permit>, NoToken> {
        match self.lockout.decide(&self.fingerprint) {
            Decision::Allowed => {}
            Decision::BudgetSpent if self.lockout.is_proven(&self.fingerprint) => {}
            decision => return Err(self.forbidden(decision)),
        }
        let last = match self.begin(None)? {
            Ok(permit) => return Ok(permit),
            Err(last) => last,
        };
        // An earlier attempt has an unknown outcome: check that the endpoint responds before spending another one.
        self.endpoint.probe(self.credentials.scheme).await.map_err(|failure| {
            let (failure, remedy) = parts(&failure);
            let reason = format!(
                "not tried: an earlier attempt has an unknown outcome, and the token endpoint does not respond to a request without \
                 credentials either: {failure}"
            );
            NoToken::new(reason, remedy)
        })?;
        let meanwhile = |_| NoToken::later("not tried: another process has made an attempt since", "run this again");
        self.begin(Some(last))?.map_err(meanwhile)
    }

    /// Makes the token request that `permit` is for, and records its outcome.
    ///
    /// # Errors
    ///
    /// Why there is no token.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the attempt remains recorded and counts as a rejection.
    pub(super) async fn send(&mut self, permit: Option<Permit>) -> Result<(), NoToken> {
        let baseline = self.lockout.baseline(&self.fingerprint, Clock::Boot.unix_time());
        match self.endpoint.fetch(&self.credentials, UNPROVEN_TIMEOUT).await {
            Ok(auth) => {
                self.record_success(&auth, &baseline);
                Ok(())
            }
            Err(failure) => Err(self.failed(&failure, permit)),
        }
    }

    /// Asks the guard once. Returns a permit, or the last attempt, after which the token endpoint must respond to a probe first.
    fn begin(&mut self, responded_after: Option<LastAttempt>) -> Result<Result<Option<Permit>, LastAttempt>, NoToken> {
        match self.lockout.begin(&self.fingerprint, Clock::Boot.unix_time(), responded_after)? {
            BeginOutcome::Proven => Ok(Ok(None)),
            BeginOutcome::Recorded(permit) => Ok(Ok(Some(permit))),
            BeginOutcome::ProbeFirst(last) => Ok(Err(last)),
            BeginOutcome::InProgress => Err(NoToken::later(
                "not tried: another process that shares auth.state_dir is making an attempt",
                "run this again in a minute",
            )),
            BeginOutcome::NotBefore(wait) => {
                let wait = wait.as_secs() + 1;
                let reason = format!(
                    "not tried: an earlier attempt has an unknown outcome, and the next one is permitted in {wait} s"
                );
                Err(NoToken::later(reason, "run this again then"))
            }
            BeginOutcome::Held(_) => Err(self.forbidden(Decision::Held)),
            BeginOutcome::Rejected(decision) => Err(self.forbidden(decision)),
        }
    }

    /// The error when the guard's `decision` forbids the attempt.
    fn forbidden(&self, decision: Decision) -> NoToken {
        let (reason, remedy) = match decision {
            Decision::Latched => (
                "exactly these credentials were rejected before",
                "correct them and test again; if they are correct after all, run `finicity-proxy lockout reset` to allow a running proxy \
                 that uses them one more attempt",
            ),
            Decision::BudgetSpent => (
                "too many credentials for this id were rejected",
                "have the vendor confirm id, secret and App Key, then run `finicity-proxy lockout reset --override-budget` against the \
                 running proxy that uses them",
            ),
            Decision::Held | Decision::Allowed => (
                "too many attempts for this id have an unknown outcome, and each may count as a rejection",
                "verify the credentials with the vendor, then run `finicity-proxy lockout reset --override-budget` against the running \
                 proxy that uses them, or test again after 24 hours",
            ),
        };
        NoToken { attempts_left: self.attempts_left(), ..NoToken::new(format!("not tried: {reason}"), remedy) }
    }

    /// Records that the credentials obtained a token.
    fn record_success(&mut self, auth: &AuthHeaders, baseline: &Baseline) {
        logging::scrubber().register("the token", vec![auth.token()]);
        if let Err(error) = self.lockout.record_success(&self.fingerprint, baseline) {
            eprint(format_args!("cannot record the success: {}", error_chain::one_line(&error)));
        }
    }

    /// Records the outcome of a request that obtained no token, and returns it as an error.
    fn failed(&mut self, failure: &TokenFailure, permit: Option<Permit>) -> NoToken {
        let is_rejected = failure.class == FailureClass::Rejected;
        let is_unknown = !is_rejected && failure.disposition == Disposition::Unknown;
        let counted = if is_rejected { self.lockout.record_rejection(&self.fingerprint) } else { Ok(()) };
        // The record of the attempt is removed only after its rejection is on disk.
        let recorded = match permit {
            Some(permit) if counted.is_ok() && !is_unknown => counted.and(self.lockout.resolve(permit)),
            _ => counted,
        };
        if let Err(error) = recorded {
            eprint(format_args!("cannot record the outcome: {}", error_chain::one_line(&error)));
        }
        let advice = self.endpoint.advice(self.credentials.scheme, failure);
        let advice = advice.map(|advice| format!(" ({advice})")).unwrap_or_default();
        let verdict = match failure.disposition {
            _ if is_rejected => "rejected, do not roll out",
            Disposition::NotSent => "not tried, nothing was sent",
            Disposition::Responded => "neither accepted nor rejected",
            Disposition::Unknown => "outcome unknown, which counts as a rejection",
        };
        let (failure, remedy) = parts(failure);
        // The advice follows the last part.
        let (failure, remedy) =
            if remedy.is_empty() { (failure + &advice, remedy) } else { (failure, remedy + &advice) };
        NoToken { attempts_left: self.attempts_left(), ..NoToken::new(format!("{verdict}: {failure}"), remedy) }
    }

    /// How close the account is to being locked, as far as the records show.
    pub(super) fn attempts_left(&self) -> String {
        let (limit, stop) = (lockout::VENDOR_LIMIT, lockout::BUDGET);
        if !self.lockout.is_persistent() {
            return format!(
                "The vendor locks the account after {limit} failed authentications; how many are left is unknown, because \
                 auth.state_dir is not set"
            );
        }
        let (rejections, unresolved) =
            (self.lockout.rejections(&self.fingerprint), self.lockout.unresolved(&self.fingerprint));
        let used = rejections.saturating_add(unresolved);
        format!(
            "Counted for this id: {rejections} rejected, {unresolved} with an unknown outcome. The vendor locks the account at {limit} ({} \
             left), finicity-proxy stops at {stop} ({} left)",
            limit.saturating_sub(used),
            stop.saturating_sub(used)
        )
    }
}

/// What happened, and the remedy.
fn parts(failure: &TokenFailure) -> (String, String) {
    let happened = TokenFailure { remedy: Cow::Borrowed(""), ..failure.clone() };
    (happened.to_string(), failure.remedy.to_string())
}
