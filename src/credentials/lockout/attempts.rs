//! Attempts with an unknown outcome, and proof of credentials: rules on plain values.
//!
//! The vendor counts failed authentications of an account. A token request that gets no response may have been one. Each request
//! with unproven credentials is therefore recorded before it is sent, and the record is removed only when the outcome is known. A
//! record that remains counts as a rejection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fingerprint::{Fingerprint, Hash};

/// The sum of unresolved attempts and rejections of an account at which no further attempt is made. The vendor locks the account at
/// five: one is left for the attempt after [`HOLD`], one for an operator's override.
pub(super) const MAX_UNRESOLVED: u32 = 3;

/// How long an account with [`MAX_UNRESOLVED`] attempts is held before the one attempt that needs no operator.
const HOLD: Duration = Duration::from_secs(24 * 3600);

/// The maximum time that a token request may take to connect.
pub const MAX_CONNECT_TIME: Duration = Duration::from_secs(3);

/// The minimum time between the arrival of an unresolved attempt at the vendor and the next attempt of the account.
const MIN_ARRIVAL_INTERVAL: Duration = Duration::from_secs(15);

/// The minimum time between their records, because the first arrives up to [`MAX_CONNECT_TIME`] after its record.
pub(super) const MIN_INTERVAL: Duration = MIN_ARRIVAL_INTERVAL.saturating_add(MAX_CONNECT_TIME);

/// A wall clock before this time (2026-01-01) has not been set yet.
const PLAUSIBLE_TIME: Duration = Duration::from_secs(1_767_225_600);

/// The maximum number of accounts on record. A proxy has one or two in its lifetime; the bound keeps the file small.
const MAX_ACCOUNTS: usize = 64;

/// The maximum number of unresolved attempts on record for an account. Beyond [`MAX_UNRESOLVED`], each requires an operator's
/// override, or credentials that were replaced while others of the account worked.
const MAX_ATTEMPTS: usize = 64;

/// The latest unresolved attempt that counts against another one. A response of the token endpoint after it permits one attempt,
/// which then becomes the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAttempt {
    at_ms: u64,
    count: usize,
}

/// The decision on one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptDecision {
    /// The credentials have obtained a token and have not been rejected or replaced since, so the rules do not apply.
    Proven,
    /// One attempt may be recorded and made.
    Permitted,
    /// The token endpoint must first show that it responds after this attempt.
    ProbeFirst(LastAttempt),
    /// An attempt is permitted after this time.
    NotBefore(Duration),
    /// Too many attempts are unresolved. One more is permitted after this time; `None` if it requires an operator's override.
    Held(Option<Duration>),
}

/// All records of a state directory. The account that changed last is at the end.
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
    /// The credentials that last obtained a token, unless they have been rejected since.
    proven: Option<Hash>,
    /// The maximum sum of rejections and unresolved attempts. An operator's override raises it.
    limit: u32,
    unresolved: Vec<UnresolvedAttempt>,
}

/// A token request with an unknown outcome, sent or about to be sent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct UnresolvedAttempt {
    credentials: Hash,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    /// Whether other credentials of the account have obtained a token since. This reset the vendor's count, so the attempt counts
    /// only against its own credentials.
    superseded: bool,
}

/// The number of rejections of an account, and its budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct RejectionCount {
    pub(super) count: u32,
    pub(super) budget: u32,
}

/// `time` (since the Unix epoch) in milliseconds.
fn unix_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Account {
    fn new(id: Hash) -> Self {
        Self { id, proven: None, limit: MAX_UNRESOLVED, unresolved: Vec::new() }
    }

    /// The attempts that count against another one with `credentials`.
    fn relevant(&self, credentials: Hash) -> impl Iterator<Item = &UnresolvedAttempt> {
        self.unresolved.iter().filter(move |attempt| !attempt.superseded || attempt.credentials == credentials)
    }

    /// The count against another attempt with `credentials`: the greater of the account's rejections plus unresolved attempts since
    /// it last obtained a token, and all unresolved attempts with exactly these credentials.
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
            // The one attempt that needs no operator, unless it was already made or an operator has granted one.
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

    /// The index of the attempt that can be removed to make room for another one.
    fn oldest_superseded(&self) -> Option<usize> {
        self.unresolved.iter().position(|attempt| attempt.superseded)
    }

    /// Whether losing this record could permit too many attempts.
    fn is_needed(&self) -> bool {
        self.unresolved.iter().any(|attempt| !attempt.superseded)
    }
}

impl Attempts {
    /// Whether a token request with `fingerprint` may be made at `now` (since the Unix epoch). `responded_after` is the last attempt
    /// after which the token endpoint sent a complete response.
    pub(super) fn decide(
        &self,
        fingerprint: &Fingerprint,
        rejections: RejectionCount,
        now: Duration,
        responded_after: Option<LastAttempt>,
    ) -> AttemptDecision {
        match self.find(fingerprint) {
            Some(account) => account.decide(fingerprint.credentials, rejections, now, responded_after),
            // The attempt could not be recorded, so it must not be made.
            None if self.is_full() => AttemptDecision::Held(None),
            None => AttemptDecision::Permitted,
        }
    }

    /// The latest attempt that counts against one with `fingerprint`.
    #[cfg(test)]
    pub(super) fn last_attempt(&self, fingerprint: &Fingerprint) -> Option<LastAttempt> {
        self.find(fingerprint)?.last_attempt(fingerprint.credentials)
    }

    /// Records an attempt that is about to be made at `now`. Returns its time, which identifies it.
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

    /// Records that a request sent at `sent` obtained a token: the credentials are proven, and the vendor has reset the account's
    /// count since.
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

    /// Removes the proof of credentials that were rejected.
    pub(super) fn remove_proof(&mut self, fingerprint: &Fingerprint) {
        if let Some(account) = self.find_mut(fingerprint)
            && account.proven == Some(fingerprint.credentials)
        {
            account.proven = None;
        }
        self.remove_empty();
    }

    /// An operator's override: permits exactly one further attempt, if attempts are unresolved.
    pub(super) fn permit_one(&mut self, fingerprint: &Fingerprint, rejections: RejectionCount) {
        let Some(account) = self.find_mut(fingerprint) else { return };
        let used = account.used(fingerprint.credentials, rejections);
        if used >= account.limit.max(rejections.budget) && !account.unresolved.is_empty() {
            account.limit = used.saturating_add(1);
        }
    }

    /// Whether these credentials obtained the account's last token and have not been rejected since.
    pub(super) fn is_proven(&self, fingerprint: &Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|account| account.proven == Some(fingerprint.credentials))
    }

    /// Whether any credentials of the account are proven.
    pub(super) fn has_proof(&self, fingerprint: &Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|account| account.proven.is_some())
    }

    /// The number of attempts that count against the credentials of `fingerprint`.
    pub(super) fn unresolved(&self, fingerprint: &Fingerprint) -> u32 {
        let count = self.find(fingerprint).map_or(0, |account| account.relevant(fingerprint.credentials).count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Sets attempts after `now`, or from before the wall clock was set, to `now`, because no wait may depend on a wrong time. Does
    /// nothing if the wall clock itself is not set.
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

    /// The account of `fingerprint`, moved to the end; created if it is missing.
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
