//! The lock-out decisions on token requests, and the permit for one.

use std::{fs::File, time::Duration};

use super::{attempts::LastAttempt, fingerprint::Fingerprint};

/// Whether a token request may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing prevents it.
    Allowed,
    /// Exactly these credentials were rejected. Other credentials with the same id may be tried.
    Latched,
    /// The id has too many rejections: no credentials with it may be tried.
    BudgetSpent,
    /// Too many attempts with unproven credentials have an unknown outcome.
    Held,
}

/// The outcome of [`Lockout::begin`](super::Lockout::begin): whether a token request may be sent.
#[derive(Debug)]
pub enum BeginOutcome {
    /// The credentials are proven in this state directory; nothing needs to be recorded.
    Proven,
    /// The attempt is recorded as unresolved, and the request may be sent.
    Recorded(Permit),
    /// Another process that shares the state directory is making an attempt. Wait for its outcome.
    InProgress,
    /// This earlier attempt has an unknown outcome. The token endpoint must first show that it responds.
    ProbeFirst(LastAttempt),
    /// The minimum time since the last attempt has not passed; the value is the remaining time.
    NotBefore(Duration),
    /// Too many attempts have an unknown outcome. One more is permitted after this time; `None` if only an operator can permit it.
    Held(Option<Duration>),
    /// The credentials or their id were rejected before.
    Rejected(Decision),
}

/// What counted against an account when a token request was sent. Entries added later may have been processed later as well.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    pub(super) at: Duration,
    pub(super) rejections: u32,
}

/// Permission to send one token request with unproven credentials.
///
/// Dropping it leaves the attempt on record, as a crash would; see [`Lockout::resolve`](super::Lockout::resolve).
#[derive(Debug)]
#[must_use]
pub struct Permit {
    pub(super) fingerprint: Fingerprint,
    pub(super) at_ms: u64,
    /// The lock on attempts, if there is a state directory.
    pub(super) _lock: Option<File>,
}
