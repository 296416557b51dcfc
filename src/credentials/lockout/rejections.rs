//! Rejections: the two rules (latch and budget), on plain values.

use serde::{Deserialize, Serialize};

use super::{
    Decision,
    attempts::RejectionCount,
    fingerprint::{Fingerprint, Hash},
};

/// The number of rejections at which no more attempts are made for an id. The vendor locks the account at five: two are left, one for
/// an attempt in progress in another process and one for an operator's override.
pub const BUDGET: u32 = 3;

/// The maximum number of ids on record. A proxy has one or two in its lifetime; the bound keeps the file small.
const MAX_IDS: usize = 64;

/// The maximum number of latches for an id. If the oldest is dropped and its secret is tried again, this costs one rejection of the
/// id's budget, which is never dropped.
const MAX_LATCHES: usize = 16;

/// All rejections. The id that changed last is at the end.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Rejections {
    accounts: Vec<Account>,
}

/// The record of one id.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct Account {
    id: Hash,
    /// Rejections since the vendor last accepted this id. Repeated rejections of one secret all count, as they do for the vendor.
    rejections: u32,
    /// The number of rejections at which attempts stop.
    budget: u32,
    /// Credentials that were rejected and not reset since.
    latched: Vec<Hash>,
}

impl Account {
    fn is_spent(&self) -> bool {
        self.rejections >= self.budget
    }
}

impl Rejections {
    pub(super) fn decide(&self, fingerprint: &Fingerprint) -> Decision {
        match self.find(fingerprint) {
            Some(account) if account.is_spent() => Decision::BudgetSpent,
            Some(account) if account.latched.contains(&fingerprint.credentials) => Decision::Latched,
            // A rejection could not be recorded, so no attempt is allowed.
            None if self.is_full() => Decision::BudgetSpent,
            _ => Decision::Allowed,
        }
    }

    /// Whether exactly these credentials were rejected and not reset since.
    pub(super) fn is_latched(&self, fingerprint: &Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|account| account.latched.contains(&fingerprint.credentials))
    }

    pub(super) fn add(&mut self, fingerprint: &Fingerprint) {
        let account = self.entry(fingerprint);
        account.rejections = account.rejections.saturating_add(1);
        if !account.latched.contains(&fingerprint.credentials) {
            account.latched.push(fingerprint.credentials);
        }
        if account.latched.len() > MAX_LATCHES {
            account.latched.remove(0);
        }
    }

    /// Voids the first `rejections` of the account: those from before the accepted request.
    pub(super) fn clear(&mut self, fingerprint: &Fingerprint, rejections: u32) {
        let Some(account) = self.accounts.iter_mut().find(|account| account.id == fingerprint.account) else { return };
        account.rejections = account.rejections.saturating_sub(rejections);
        account.budget = BUDGET;
        account.latched.retain(|latched| *latched != fingerprint.credentials);
        self.accounts.retain(|account| account.rejections > 0 || !account.latched.is_empty());
    }

    pub(super) fn reset(&mut self, fingerprint: &Fingerprint, override_budget: bool) {
        match self.decide(fingerprint) {
            Decision::BudgetSpent if override_budget => {
                let account = self.entry(fingerprint);
                account.budget = account.rejections.saturating_add(1);
                account.latched.retain(|latched| *latched != fingerprint.credentials);
            }
            Decision::Latched => self.entry(fingerprint).latched.retain(|latched| *latched != fingerprint.credentials),
            Decision::BudgetSpent | Decision::Allowed | Decision::Held => {}
        }
    }

    pub(super) fn count(&self, fingerprint: &Fingerprint) -> u32 {
        self.find(fingerprint).map_or(0, |account| account.rejections)
    }

    /// The number of rejections of the account, and its budget.
    pub(super) fn count_with_budget(&self, fingerprint: &Fingerprint) -> RejectionCount {
        self.find(fingerprint).map_or(RejectionCount { count: 0, budget: BUDGET }, |account| RejectionCount {
            count: account.rejections,
            budget: account.budget,
        })
    }

    fn find(&self, fingerprint: &Fingerprint) -> Option<&Account> {
        self.accounts.iter().find(|account| account.id == fingerprint.account)
    }

    /// The account of `fingerprint`, moved to the end; created if it is missing.
    fn entry(&mut self, fingerprint: &Fingerprint) -> &mut Account {
        let account = match self.accounts.iter().position(|account| account.id == fingerprint.account) {
            Some(index) => self.accounts.remove(index),
            None => {
                if self.accounts.len() >= MAX_IDS
                    && let Some(index) = self.accounts.iter().position(|account| account.rejections == 0)
                {
                    self.accounts.remove(index);
                }
                Account { id: fingerprint.account, rejections: 0, budget: BUDGET, latched: Vec::new() }
            }
        };
        self.accounts.push_mut(account)
    }

    /// Whether there is no room for another id.
    ///
    /// An id without rejections can be dropped: it was accepted since its last rejection, and losing its latches costs at most its
    /// budget. An id with rejections is never dropped, because three more could lock its account.
    fn is_full(&self) -> bool {
        self.accounts.len() >= MAX_IDS && self.accounts.iter().all(|account| account.rejections > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::lockout::fingerprint::Key;

    fn fingerprints(accounts: usize) -> Vec<Fingerprint> {
        let key = Key::generate().unwrap();
        (0..accounts)
            .map(|id| key.fingerprint("oauth2", "host", &id.to_string().as_str().into(), &"secret".into(), b"key"))
            .collect()
    }

    #[test]
    fn an_id_with_rejections_is_never_dropped_for_another() {
        let fingerprints = fingerprints(MAX_IDS + 1);
        let mut rejections = Rejections::default();
        for fingerprint in &fingerprints[..MAX_IDS] {
            assert_eq!(rejections.decide(fingerprint), Decision::Allowed);
            rejections.add(fingerprint);
        }
        let another = &fingerprints[MAX_IDS];
        assert_eq!(rejections.decide(another), Decision::BudgetSpent);
        rejections.reset(another, false);
        assert_eq!(rejections.decide(another), Decision::BudgetSpent);
        // Not even if an attempt was in progress in another process, which exceeds the bound.
        rejections.add(another);
        assert!(fingerprints.iter().all(|fingerprint| rejections.count(fingerprint) == 1));
    }

    #[test]
    fn an_accepted_id_makes_room_for_another() {
        let fingerprints = fingerprints(MAX_IDS + 1);
        let key = Key::generate().unwrap();
        let other_secret = Fingerprint {
            credentials: key.fingerprint("oauth2", "host", &"0".into(), &"proven".into(), b"key").credentials,
            account: fingerprints[1].account,
        };
        let mut rejections = Rejections::default();
        for fingerprint in &fingerprints[..MAX_IDS] {
            rejections.add(fingerprint);
        }
        rejections.clear(&other_secret, 1);
        assert_eq!(rejections.decide(&fingerprints[1]), Decision::Latched);
        assert_eq!(rejections.decide(&fingerprints[MAX_IDS]), Decision::Allowed);
        rejections.add(&fingerprints[MAX_IDS]);
        assert_eq!((rejections.accounts.len(), rejections.find(&fingerprints[1])), (MAX_IDS, None));
    }

    #[test]
    fn latches_are_bounded_and_the_oldest_is_dropped_first() {
        let key = Key::generate().unwrap();
        let fingerprints: Vec<_> = (0..=MAX_LATCHES)
            .map(|n| key.fingerprint("oauth2", "host", &"id".into(), &n.to_string().as_str().into(), b"key"))
            .collect();
        let proven = key.fingerprint("oauth2", "host", &"id".into(), &"proven".into(), b"key");
        let mut rejections = Rejections::default();
        for fingerprint in &fingerprints {
            rejections.add(fingerprint);
            rejections.clear(&proven, 1);
        }
        assert_eq!(rejections.decide(&fingerprints[0]), Decision::Allowed);
        assert!(fingerprints[1..].iter().all(|fingerprint| rejections.decide(fingerprint) == Decision::Latched));
    }
}
