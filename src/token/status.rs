//! The status of the refresher and of the token, and why a request got no token.

use std::{sync::Arc, time::Duration};

use super::{BootInstant, classify::FailureClass};
use crate::credentials::Scheme;

/// What the refresher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The source of the credentials has not given any yet.
    AwaitingCredentials,
    /// Waiting for the next scheduled refresh.
    Idle,
    /// A token call is under way.
    Fetching,
    /// The last token call failed; another one is due.
    Failed(FailureClass),
    /// The credentials were rejected; no call is made until they change.
    Rejected,
    /// Too many token requests with unproven credentials have an unknown outcome; none is made for now.
    Held,
    /// The record of an attempt with unproven credentials cannot be written; no request is made until it can.
    Unrecorded,
    /// An administrator wants no token.
    Quarantined,
    /// The refresher has ended.
    Stopped,
}

/// The status of the lock-out guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockoutStatus {
    /// The credentials in use were rejected and are not tried again.
    pub latched: bool,
    /// So many of this id's credentials were rejected that none is tried.
    pub budget_spent: bool,
    /// Rejections counted for this id.
    pub rejections: u32,
    /// Token requests with an unknown outcome that count against the credentials in use.
    pub unresolved: u32,
    /// Whether so many of them, together with rejections, are counted that no request is made for now.
    pub held: bool,
    /// Whether an attempt cannot be recorded, so that no request is made.
    pub unrecorded: bool,
    /// The state of new credentials, where there are any.
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

/// The last token request, probe of the token endpoint, or read of the first credentials, that failed.
#[derive(Clone, Debug)]
pub struct LastError {
    /// What happened, where, and what an operator does: one sentence, without secrets and without a peer's words.
    pub message: Arc<str>,
    /// When, since the Unix epoch.
    pub unix_time: Duration,
    /// When, on the clock of the token.
    pub at: BootInstant,
    /// Whether a token was obtained since.
    pub resolved: bool,
}

/// The status of the refresher.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// The scheme of the credentials in use; `None` before there are any.
    pub scheme: Option<Scheme>,
    /// Whether the first token call has ended, well or badly.
    pub attempted: bool,
    /// Whether a token was obtained since the process started.
    pub obtained: bool,
    /// When the next token call is due, or the next attempt to read the first credentials.
    pub next_attempt: Option<BootInstant>,
    /// The last failure since the start.
    pub last_error: Option<LastError>,
    /// The status of the lock-out guard.
    pub lockout: LockoutStatus,
}

labels! {
    /// Where the token stands, as seen by a request now.
    pub enum State {
        /// No token yet.
        Empty = "empty",
        /// A usable token, nothing to do.
        Fresh = "fresh",
        /// A usable token, and its successor is being fetched.
        Refreshing = "refreshing",
        /// A usable token, but the last fetch failed.
        Degraded = "degraded",
        /// No usable token any more; the next is being fetched or will be.
        Expired = "expired",
        /// No usable token, and the credentials were rejected.
        Rejected = "rejected",
        /// No usable token, and too many token requests with unproven credentials have an unknown outcome.
        Held = "held",
        /// An administrator wants no token.
        Quarantined = "quarantined",
        /// The refresher has ended.
        Stopped = "stopped",
    }
}

/// Why a request got no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// None came in time.
    #[error("there is no usable token")]
    NoToken {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// None will come: the credentials were rejected.
    #[error("the upstream rejected the credentials of this proxy")]
    Rejected,
    /// None for now: too many token requests with unproven credentials have an unknown outcome.
    #[error("token requests are held, since earlier ones have an unknown outcome")]
    Held,
    /// An administrator wants no token.
    #[error("the token is quarantined")]
    Quarantined,
    /// Too many requests wait already.
    #[error("too many requests are waiting for a token")]
    TooManyWaiters,
}
