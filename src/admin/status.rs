//! `GET /api/status`, which `finicity-proxy status` shows.

use std::{borrow::Cow, time::UNIX_EPOCH};

use axum::{Json, extract::State};
use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use super::AdminState;
use crate::{credentials::Scheme, token::Refusal};

/// The state of the process. Fields are only ever added, so a command can read the status of a newer or older proxy.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Status {
    /// The version of the program.
    pub version: Cow<'static, str>,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The URL that requests are forwarded to.
    pub upstream: Cow<'static, str>,
    /// The scheme of the credentials in use: `oauth2` or `partner`. Empty before they have been read.
    pub scheme: Cow<'static, str>,
    /// The kind of source that the credentials come from, such as `environment` or `directory`.
    pub credentials_source: Cow<'static, str>,
    /// A description of that source, worded to follow "from": `the directory /etc/finicity-proxy/credentials`.
    pub credentials_description: Cow<'static, str>,
    /// Whether the process is shutting down.
    pub draining: bool,
    /// The token.
    pub token: Token,
    /// The lock-out guard.
    pub lock_out: LockOut,
}

/// The token.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Token {
    /// The state of the token, as in docs/operations.md.
    pub state: Cow<'static, str>,
    /// The number of the current token in this process; 0 when there is none.
    pub version: u64,
    /// Whether a token was obtained since the process started.
    pub obtained: bool,
    /// For how many seconds the token may still be used.
    pub usable_for_s: u64,
    /// Seconds until the next token request, if one is scheduled.
    pub next_attempt_in_s: Option<u64>,
    /// The last failure of a token request since the process started.
    pub last_error: Option<TokenError>,
}

/// A token request that failed.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TokenError {
    /// The time of the failure (RFC 3339, UTC).
    pub at: String,
    /// The seconds since the failure.
    pub age_s: u64,
    /// What happened, where, and what to do: one sentence.
    pub message: String,
    /// Whether a token was obtained since then.
    pub resolved: bool,
}

/// The lock-out guard.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct LockOut {
    /// Whether the credentials in use were rejected and are not tried again.
    pub latched: bool,
    /// Whether too many credentials for this id were rejected, so that none are tried.
    pub budget_spent: bool,
    /// Rejections counted for this id.
    pub rejections: u32,
    /// Token requests with an unknown outcome that count against the credentials in use.
    pub unresolved_attempts: u32,
    /// Whether no token request is made because too many have an unknown outcome.
    pub held: bool,
    /// Whether no token request is made because the attempt cannot be recorded.
    pub unrecorded: bool,
    /// The state of new credentials, if any: `waiting`, `rejected` or `held`.
    pub new_credentials: Option<Cow<'static, str>>,
    /// The storage of this state: `directory`, `overlay` (lost when the container ends) or `memory` (lost when the process ends).
    pub remembered_in: Cow<'static, str>,
    /// Why no token request is made until an operator acts, if that is the case.
    pub reason: Option<Cow<'static, str>>,
    /// What the operator can do, if `reason` is set.
    pub remedy: Option<Cow<'static, str>>,
}

pub(super) async fn get_status(State(state): State<AdminState>) -> Json<Status> {
    let status = state.token.status();
    let (guard, refusal) = (status.lockout, Refusal::of(&status));
    Json(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: state.started.elapsed().as_secs(),
        upstream: state.upstream.into(),
        scheme: status.scheme.map_or("", Scheme::as_str).into(),
        credentials_source: state.credentials_source.into(),
        credentials_description: state.credentials_description.into(),
        draining: state.draining.is_cancelled(),
        token: Token {
            state: state.token.state().as_str().into(),
            version: state.token.version(),
            obtained: status.obtained,
            usable_for_s: state.token.remaining().as_secs(),
            next_attempt_in_s: state.token.until_next_attempt().map(|wait| wait.as_secs()),
            last_error: status.last_error.map(|error| TokenError {
                at: format_rfc3339_seconds(UNIX_EPOCH + error.unix_time).to_string(),
                age_s: state.token.error_age(&error).as_secs(),
                message: error.message.to_string(),
                resolved: error.resolved,
            }),
        },
        lock_out: LockOut {
            latched: guard.latched,
            budget_spent: guard.budget_spent,
            rejections: guard.rejections,
            unresolved_attempts: guard.unresolved,
            held: guard.held,
            unrecorded: guard.unrecorded,
            new_credentials: guard.candidate.map(|state| Cow::Borrowed(state.as_str())),
            remembered_in: state.lockout_storage.into(),
            reason: refusal.map(|refusal| refusal.reason().into()),
            remedy: refusal.map(|refusal| refusal.remedy().into()),
        },
    })
}
