//! The status of the refresher and of the token, and why a request got no token.

use std::{sync::Arc, time::Duration};

use super::{BootInstant, classify::FailureClass};
use crate::credentials::Scheme;

/// What the refresher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No credentials have been read yet.
    AwaitingCredentials,
    /// Waiting for the next scheduled refresh.
    Idle,
    /// A token request or a probe of the token endpoint is in flight.
    Fetching,
    /// The last token request failed; another one is due.
    Failed(FailureClass),
    /// The credentials were rejected; no request is made until they change or an operator resets the lock-out.
    Rejected,
    /// Too many token requests with unproven credentials have an unknown outcome; none is made for now.
    Held,
    /// The record of an attempt with unproven credentials cannot be written; no request is made until it can.
    Unrecorded,
    /// An administrator has quarantined the token.
    Quarantined,
    /// The refresher has stopped.
    Stopped,
}

/// The status of the lock-out guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockoutStatus {
    /// The credentials in use were rejected and are not tried again.
    pub latched: bool,
    /// Too many credentials for this id were rejected, so none are tried.
    pub budget_spent: bool,
    /// Rejections counted for this id.
    pub rejections: u32,
    /// Token requests with an unknown outcome that count against the credentials in use.
    pub unresolved: u32,
    /// Whether unresolved requests and rejections together have reached the limit, so that no request is made for now.
    pub held: bool,
    /// Whether an attempt cannot be recorded, so that no request is made.
    pub unrecorded: bool,
    /// The state of new credentials, if any.
    pub candidate: Option<CandidateState>,
}

labels! {
    /// The state of new credentials that have not obtained a token.
    pub enum CandidateState {
        /// A token request with them is due.
        Waiting = "waiting",
        /// They were rejected and are not tried again.
        Rejected = "rejected",
        /// Too many token requests with them have an unknown outcome.
        Held = "held",
    }
}

/// The last failure of a token request, of a probe of the token endpoint, or of reading the first credentials.
#[derive(Clone, Debug)]
pub struct LastError {
    /// What happened, where, and what to do: one sentence, without secrets and without text from a peer.
    pub message: Arc<str>,
    /// When it happened, since the Unix epoch.
    pub unix_time: Duration,
    /// When it happened, on the token's clock.
    pub at: BootInstant,
    /// Whether a token was obtained since then.
    pub resolved: bool,
}

/// The status of the refresher.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the refresher is doing.
    pub phase: Phase,
    /// The scheme of the credentials in use; `None` before there are any.
    pub scheme: Option<Scheme>,
    /// Whether the first token request has completed, successfully or not.
    pub attempted: bool,
    /// Whether a token was obtained since the process started.
    pub obtained: bool,
    /// When the next token request, or the next attempt to read the first credentials, is due.
    pub next_attempt: Option<BootInstant>,
    /// The last failure since the start.
    pub last_error: Option<LastError>,
    /// The status of the lock-out guard.
    pub lockout: LockoutStatus,
}

labels! {
    /// The state of the token, as a request sees it now.
    pub enum State {
        /// No token yet.
        Empty = "empty",
        /// A usable token; no refresh is in progress.
        Fresh = "fresh",
        /// A usable token, and its successor is being fetched.
        Refreshing = "refreshing",
        /// A usable token, but the last fetch failed.
        Degraded = "degraded",
        /// The token has expired or was dropped; the next one is being fetched or is scheduled.
        Expired = "expired",
        /// No usable token, and the credentials were rejected.
        Rejected = "rejected",
        /// No usable token, and too many token requests with unproven credentials have an unknown outcome.
        Held = "held",
        /// An administrator has quarantined the token.
        Quarantined = "quarantined",
        /// The refresher has stopped.
        Stopped = "stopped",
    }
}

/// Why a request got no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No token arrived in time.
    #[error("there is no usable token")]
    NoToken {
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// The credentials were rejected, so no token will arrive.
    #[error("the upstream rejected the credentials of this proxy")]
    Rejected,
    /// Too many token requests with unproven credentials have an unknown outcome, so none is made for now.
    #[error("token requests are held, because earlier ones have an unknown outcome")]
    Held,
    /// An administrator has quarantined the token.
    #[error("the token is quarantined")]
    Quarantined,
    /// The limit on waiting requests is reached.
    #[error("too many requests are waiting for a token")]
    TooManyWaiters,
}
