//! What the guard decides on a token request, and what it hands out for one.

use std::{fs::File, time::Duration};

use super::{attempts::LastAttempt, fingerprint::Fingerprint};

/// Whether a token call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is known against it.
    Allowed,
    /// Exactly these credentials were rejected. Others of the same id may be tried.
    Latched,
    /// The id was rejected too often: no credentials of it may be tried.
    BudgetSpent,
    /// Too many attempts with unproven credentials have an unknown outcome.
    Held,
}

/// The outcome of [`Lockout::begin`](super::Lockout::begin): whether a token request may be sent.
#[derive(Debug)]
pub enum BeginOutcome {
    /// The credentials are proven in this state directory; nothing needs to be recorded.
    Proven,
    /// The attempt is recorded as outstanding, and the request may be sent.
    Recorded(Permit),
    /// Another process that shares the state directory makes an attempt now. Its outcome decides.
    InProgress,
    /// An earlier attempt, this one, has an unknown outcome: first the token endpoint has to show that it responds.
    ProbeFirst(LastAttempt),
    /// The minimum time since the last attempt has not passed; this is left of it.
    NotBefore(Duration),
    /// Too many attempts have an unknown outcome. One more is permitted after this time; `None`: only by an operator.
    Held(Option<Duration>),
    /// The credentials were rejected before.
    Rejected(Decision),
}

/// What counted against an account when a token request was sent. What was added later may have been processed later, too.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    pub(super) at: Duration,
    pub(super) rejections: u32,
}

/// The right to send one token request with unproven credentials.
///
/// Dropping it leaves the attempt recorded as outstanding, as a crash would; see [`Lockout::resolve`](super::Lockout::resolve).
#[derive(Debug)]
#[must_use]
pub struct Permit {
    pub(super) fingerprint: Fingerprint,
    pub(super) at_ms: u64,
    /// The lock on attempts, where there is a state directory.
    pub(super) _lock: Option<File>,
}
