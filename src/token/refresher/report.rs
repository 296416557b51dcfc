//! Log messages about token requests.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{Refresher, TokenSource, credential_state::CredentialSlot};
use crate::{
    credentials::lockout::{Decision, PersistError},
    error_chain,
    telemetry::AUDIT,
    token::classify::{FailureClass, TokenFailure},
};

/// Logs a failure to write the lock-out state, if there is one. The state in memory stays in force for this process.
pub(super) fn log_persist_error(written: Result<(), PersistError>) {
    if let Err(error) = written {
        error!(target: AUDIT, error = error_chain::one_line(&error), "cannot write the lock-out state");
    }
}

pub(super) fn log_quarantine() {
    warn!(target: AUDIT, "quarantine started: no token is used or fetched until it is lifted");
}

pub(super) fn log_lift() {
    info!(target: AUDIT, "the quarantine was lifted");
}

impl<S: TokenSource> Refresher<S> {
    pub(super) fn report_success(&self, version: u64, elapsed: Duration, next: Duration, untyped: bool) {
        info!(
            target: AUDIT,
            scheme = self.current.credentials.scheme.as_str(),
            token.version = version,
            duration_ms = elapsed.as_secs_f64() * 1e3,
            usable_for_s = self.writer.remaining().as_secs(),
            refresh_in_s = next.as_secs(),
            failures_before = self.current.streak.failures(),
            "token obtained"
        );
        if untyped {
            warn!("the token response has no token_type; assuming Bearer");
        }
    }

    pub(super) fn report(
        &self,
        slot: CredentialSlot,
        failure: &TokenFailure,
        wait: Option<Duration>,
        remaining: Duration,
    ) {
        let state = self.state(slot);
        let (class, usable_for_s) = (failure.class.as_str(), remaining.as_secs());
        let advice = self.source.advice(state.credentials.scheme, failure);
        let rejections = self.lockout.rejections(&state.fingerprint);
        match (failure.class, wait) {
            (FailureClass::Rejected, _) | (_, None) if slot == CredentialSlot::Candidate => error!(
                target: AUDIT,
                error = %failure,
                class,
                rejections,
                "new credentials rejected; they are not tried again, and the old ones stay in use: correct the new credentials"
            ),
            (FailureClass::Rejected, _) | (_, None) => error!(
                target: AUDIT,
                error = %failure,
                class,
                rejections,
                usable_for_s,
                advice,
                "credentials rejected; they are not tried again, because five rejections lock the vendor account: correct \
                 them, or run finicity-proxy lockout reset"
            ),
            (FailureClass::Misconfigured | FailureClass::Certificate, Some(wait)) => error!(
                error = %failure,
                class,
                failures = state.streak.failures(),
                usable_for_s,
                retry_in_s = wait.as_secs(),
                advice,
                "token refresh failed: operator action required"
            ),
            (_, Some(wait)) => warn!(
                error = %failure,
                class,
                failures = state.streak.failures(),
                usable_for_s,
                retry_in_s = wait.as_secs_f64(),
                "token refresh failed"
            ),
        }
    }

    /// Records `failure` for probes, the status and error responses.
    pub(super) fn note_error(&mut self, slot: CredentialSlot, failure: &TokenFailure) {
        let which = if slot == CredentialSlot::Candidate { "with the new credentials: " } else { "" };
        self.writer.set_last_error(&format!("{which}{failure}"));
    }

    /// Logs a failed attempt with unproven credentials that the vendor may have counted as a rejection.
    pub(super) fn report_unknown(&self, slot: CredentialSlot, failure: &TokenFailure, pause: Duration) {
        error!(
            target: AUDIT,
            error = %failure,
            class = failure.class.as_str(),
            unresolved = self.lockout.unresolved(&self.state(slot).fingerprint),
            candidate = slot == CredentialSlot::Candidate,
            retry_in_s = pause.as_secs_f64(),
            "token refresh failed with an unknown outcome; the credentials have never obtained a token, so they are not tried again \
             until the token endpoint responds to a request without credentials"
        );
    }

    /// Suspends requests with these credentials, because the lock-out guard forbids them.
    pub(super) fn suspend(&mut self, slot: CredentialSlot, decision: Decision) {
        let state = self.state_mut(slot);
        (state.due, state.obstacle) = (None, None);
        if decision == Decision::Latched {
            // Another process that shares the state directory may have recorded the rejection.
            state.proven = false;
        }
        let reason = match decision {
            Decision::BudgetSpent => "too many credentials for this id were rejected",
            Decision::Latched | Decision::Allowed | Decision::Held => "these credentials were rejected before",
        };
        error!(
            target: AUDIT,
            reason,
            candidate = slot == CredentialSlot::Candidate,
            "token requests suspended to avoid account lock-out: correct the credentials, or run \
             finicity-proxy lockout reset"
        );
        self.publish_status();
    }

    pub(super) fn report_held(&self, slot: CredentialSlot, wait: Option<Duration>) {
        let state = self.state(slot);
        error!(
            target: AUDIT,
            unresolved = self.lockout.unresolved(&state.fingerprint),
            rejections = self.lockout.rejections(&state.fingerprint),
            candidate = slot == CredentialSlot::Candidate,
            retry_in_s = wait.map(|wait| wait.as_secs()),
            "token requests held: too many attempts with credentials that have never obtained a token have an unknown outcome, and \
             each may count towards the vendor's lock-out; verify the credentials, then run finicity-proxy lockout reset \
             --override-budget"
        );
    }

    pub(super) fn report_unrecorded(&self, slot: CredentialSlot, error: &PersistError) {
        error!(
            target: AUDIT,
            error = error_chain::one_line(error),
            candidate = slot == CredentialSlot::Candidate,
            "token request not sent: the attempt cannot be recorded, and the credentials have never obtained a token"
        );
    }

    pub(super) fn report_failed_probe(&self, slot: CredentialSlot, failure: &TokenFailure, pause: Duration) {
        warn!(
            error = %failure,
            failures = self.state(slot).failed_probes,
            candidate = slot == CredentialSlot::Candidate,
            retry_in_s = pause.as_secs_f64(),
            "the token endpoint does not respond to a request without credentials; not sending the credentials"
        );
    }
}
