//! Token requests of which the outcome is not known, and which credentials are proven: rules on plain values.
//!
//! The vendor counts failed authentications of an account, and a token request whose response was lost may have been one.
//! So each request with unproven credentials is recorded here before it is sent, and the record is removed only when the
//! outcome is known. What remains is counted like a rejection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fingerprint::{Fingerprint, Hash};

/// Unresolved attempts and rejections of one account, together, after which no further attempt is made. The vendor locks the
/// account at five: one is left for the attempt after [`HOLD`], one for an operator's override.
pub(super) const MAX_UNRESOLVED: u32 = 3;

/// How long an account with [`MAX_UNRESOLVED`] attempts is held before the single attempt that is made without an operator.
const HOLD: Duration = Duration::from_secs(24 * 3600);

/// The maximum time that a token request may take to connect.
pub const MAX_CONNECT_TIME: Duration = Duration::from_secs(3);

/// The minimum time between two arrivals of an account's attempts at the vendor, the first of which is unresolved.
const MIN_ARRIVAL_INTERVAL: Duration = Duration::from_secs(15);

/// The minimum time between two such attempts: the first arrives up to [`MAX_CONNECT_TIME`] after its record.
pub(super) const MIN_INTERVAL: Duration = MIN_ARRIVAL_INTERVAL.saturating_add(MAX_CONNECT_TIME);

/// The wall clock of a machine that has not been set yet is before this: 2026-01-01.
const PLAUSIBLE_TIME: Duration = Duration::from_secs(1_767_225_600);

/// Accounts that are remembered. A proxy has one or two in its life; the bound keeps the file small.
const MAX_ACCOUNTS: usize = 64;

/// Unresolved attempts that are remembered for each account. Each takes an operator's override, or credentials that were
/// replaced while others of the account worked.
const MAX_ATTEMPTS: usize = 64;

/// The latest of the attempts that speak against another one. A response of the token endpoint permits one attempt after it, and
/// no further one once there is another latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAttempt {
    at_ms: u64,
    count: usize,
}

/// What the rules say about one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptDecision {
    /// The credentials have obtained a token and were not rejected or replaced since: the rules do not apply to them.
    Proven,
    /// One attempt may be recorded and made.
    Permitted,
    /// First the token endpoint has to show that it responds, now that this attempt was made.
    ProbeFirst(LastAttempt),
    /// Not before this time has passed.
    NotBefore(Duration),
    /// Too many attempts are unresolved. One more is made after this time; `None`: only after an operator's override.
    Held(Option<Duration>),
}

/// All records of a state directory; the account that changed last is at the end.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Attempts {
    accounts: Vec<Account>,
}

/// The record of one id.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct Account {
    id: Hash,
    /// The credentials that obtained a token last, unless they were rejected since.
    proven: Option<Hash>,
    /// Rejections and unresolved attempts that may add up. An operator's override raises it.
    limit: u32,
    unresolved: Vec<UnresolvedAttempt>,
}

/// A token request that was about to be sent, and of which the outcome is not known.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct UnresolvedAttempt {
    credentials: Hash,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    /// Whether other credentials of the account obtained a token since. The vendor's count restarted then, so the attempt
    /// counts against its own credentials only.
    superseded: bool,
}

/// The rejections of an account, and how many of them its lock-out budget allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct RejectionCount {
    pub(super) count: u32,
    pub(super) budget: u32,
}

/// `time`, which counts from the Unix epoch, in the unit of the records.
fn unix_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Account {
    fn new(id: Hash) -> Self {
        Self { id, proven: None, limit: MAX_UNRESOLVED, unresolved: Vec::new() }
    }

    /// The attempts that speak against another one with `credentials`.
    fn relevant(&self, credentials: Hash) -> impl Iterator<Item = &UnresolvedAttempt> {
        self.unresolved.iter().filter(move |attempt| !attempt.superseded || attempt.credentials == credentials)
    }

    /// What counts against another attempt with `credentials`: the account's rejections and unresolved attempts since a token
    /// was last obtained, or all unresolved attempts with these very credentials.
    fn used(&self, credentials: Hash, rejections: RejectionCount) -> u32 {
        let count = |attempts: usize| u32::try_from(attempts).unwrap_or(u32::MAX);
        let of_account = count(self.unresolved.iter().filter(|attempt| !attempt.superseded).count());
        let own = count(self.unresolved.iter().filter(|attempt| attempt.credentials == credentials).count());
        own.max(rejections.count.saturating_add(of_account))
    }

    fn last_attempt(&self, credentials: Hash) -> Option<LastAttempt> {
        let at_ms = self.relevant(credentials).map(|attempt| attempt.at_ms).max()?;
        Some(LastAttempt { at_ms, count: self.relevant(credentials).count() })
    }

    fn decide(
        &self,
        credentials: Hash,
        rejections: RejectionCount,
        now: Duration,
        responded_after: Option<LastAttempt>,
    ) -> AttemptDecision {
        if self.proven == Some(credentials) {
            return AttemptDecision::Proven;
        }
        if self.unresolved.len() >= MAX_ATTEMPTS && self.oldest_superseded().is_none() {
            return AttemptDecision::Held(None);
        }
        let Some(last) = self.last_attempt(credentials) else { return AttemptDecision::Permitted };
        let since = now.saturating_sub(Duration::from_millis(last.at_ms));
        let limit = self.limit.max(rejections.budget);
        let used = self.used(credentials, rejections);
        if used >= limit {
            // The one attempt without an operator, unless it was made, or an operator has already granted one.
            if used > MAX_UNRESOLVED || limit > MAX_UNRESOLVED {
                return AttemptDecision::Held(None);
            }
            if since < HOLD {
                return AttemptDecision::Held(Some(HOLD - since));
            }
        }
        if responded_after != Some(last) {
            AttemptDecision::ProbeFirst(last)
        } else if since < MIN_INTERVAL {
            AttemptDecision::NotBefore(MIN_INTERVAL - since)
        } else {
            AttemptDecision::Permitted
        }
    }

    /// The index of the attempt that makes room for another one.
    fn oldest_superseded(&self) -> Option<usize> {
        self.unresolved.iter().position(|attempt| attempt.superseded)
    }

    /// Whether losing this record could permit an attempt too many.
    fn is_needed(&self) -> bool {
        self.unresolved.iter().any(|attempt| !attempt.superseded)
    }
}

impl Attempts {
    /// Whether a token request with `fingerprint` may be made at `now`, which counts from the Unix epoch; `responded_after` is the last
    /// attempt after which the token endpoint gave a complete response.
    pub(super) fn decide(
        &self,
        fingerprint: &Fingerprint,
        rejections: RejectionCount,
        now: Duration,
        responded_after: Option<LastAttempt>,
    ) -> AttemptDecision {
        match self.find(fingerprint) {
            Some(account) => account.decide(fingerprint.credentials, rejections, now, responded_after),
            // Where the attempt could not be recorded, none is made.
            None if self.is_full() => AttemptDecision::Held(None),
            None => AttemptDecision::Permitted,
        }
    }

    /// The latest attempt that speaks against one with `fingerprint`.
    #[cfg(test)]
    pub(super) fn last_attempt(&self, fingerprint: &Fingerprint) -> Option<LastAttempt> {
        self.find(fingerprint)?.last_attempt(fingerprint.credentials)
    }

    /// Records an attempt that is about to be made at `now`.
    pub(super) fn record(&mut self, fingerprint: &Fingerprint, now: Duration) -> u64 {
        let at_ms = unix_millis(now);
        let attempt = UnresolvedAttempt { credentials: fingerprint.credentials, at_ms, superseded: false };
        let account = self.entry(fingerprint);
        if account.unresolved.len() >= MAX_ATTEMPTS
            && let Some(oldest) = account.oldest_superseded()
        {
            account.unresolved.remove(oldest);
        }
        account.unresolved.push(attempt);
        at_ms
    }

    /// Removes the attempt that was recorded at `at_ms`: its outcome is known.
    pub(super) fn resolve(&mut self, fingerprint: &Fingerprint, at_ms: u64) {
        let Some(account) = self.find_mut(fingerprint) else { return };
        let recorded =
            |attempt: &UnresolvedAttempt| attempt.credentials == fingerprint.credentials && attempt.at_ms == at_ms;
        if let Some(index) = account.unresolved.iter().rposition(recorded) {
            account.unresolved.remove(index);
        }
        self.remove_empty();
    }

    /// The credentials obtained a token by a request that was sent at `sent`: they are proven, and the vendor's count of the account
    /// has restarted since.
    pub(super) fn record_success(&mut self, fingerprint: &Fingerprint, sent: Duration) {
        let sent_ms = unix_millis(sent);
        let account = self.entry(fingerprint);
        account.proven = Some(fingerprint.credentials);
        account.limit = MAX_UNRESOLVED;
        account.unresolved.retain(|attempt| attempt.credentials != fingerprint.credentials);
        for attempt in account.unresolved.iter_mut().filter(|attempt| attempt.at_ms < sent_ms) {
            attempt.superseded = true;
        }
    }

    /// The credentials were rejected: they are no longer proven.
    pub(super) fn remove_proof(&mut self, fingerprint: &Fingerprint) {
        if let Some(account) = self.find_mut(fingerprint)
            && account.proven == Some(fingerprint.credentials)
        {
            account.proven = None;
        }
        self.remove_empty();
    }

    /// An operator's override: permits exactly one further attempt, where attempts are unresolved.
    pub(super) fn permit_one(&mut self, fingerprint: &Fingerprint, rejections: RejectionCount) {
        let Some(account) = self.find_mut(fingerprint) else { return };
        let used = account.used(fingerprint.credentials, rejections);
        if used >= account.limit.max(rejections.budget) && !account.unresolved.is_empty() {
            account.limit = used.saturating_add(1);
        }
    }

    /// Whether these credentials obtained the account's last token and were not rejected since.
    pub(super) fn is_proven(&self, fingerprint: &Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|account| account.proven == Some(fingerprint.credentials))
    }

    /// Whether any credentials of the account are proven.
    pub(super) fn has_proof(&self, fingerprint: &Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|account| account.proven.is_some())
    }

    /// Attempts that count against the credentials of `fingerprint`.
    pub(super) fn unresolved(&self, fingerprint: &Fingerprint) -> u32 {
        let count = self.find(fingerprint).map_or(0, |account| account.relevant(fingerprint.credentials).count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Moves attempts to `now` that lie after it, or before the wall clock was set: no wait may depend on a time that was wrong. A
    /// wall clock that is wrong itself changes nothing.
    pub(super) fn clamp(&mut self, now: Duration) {
        if now < PLAUSIBLE_TIME {
            return;
        }
        let now_ms = unix_millis(now);
        let unset_ms = PLAUSIBLE_TIME.as_secs() * 1000;
        for attempt in self.accounts.iter_mut().flat_map(|account| &mut account.unresolved) {
            if !(unset_ms..=now_ms).contains(&attempt.at_ms) {
                attempt.at_ms = now_ms;
            }
        }
    }

    fn find(&self, fingerprint: &Fingerprint) -> Option<&Account> {
        self.accounts.iter().find(|account| account.id == fingerprint.account)
    }

    fn find_mut(&mut self, fingerprint: &Fingerprint) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|account| account.id == fingerprint.account)
    }

    /// The account of `fingerprint`, now the newest; created when it is missing.
    fn entry(&mut self, fingerprint: &Fingerprint) -> &mut Account {
        let account = match self.accounts.iter().position(|account| account.id == fingerprint.account) {
            Some(index) => self.accounts.remove(index),
            None => {
                if self.accounts.len() >= MAX_ACCOUNTS
                    && let Some(index) = self.accounts.iter().position(|account| !account.is_needed())
                {
                    self.accounts.remove(index);
                }
                Account::new(fingerprint.account)
            }
        };
        self.accounts.push_mut(account)
    }

    fn is_full(&self) -> bool {
        self.accounts.len() >= MAX_ACCOUNTS && self.accounts.iter().all(Account::is_needed)
    }

    fn remove_empty(&mut self) {
        self.accounts.retain(|account| account.proven.is_some() || !account.unresolved.is_empty());
    }
}
