//! The two rules, on plain values.

use serde::{Deserialize, Serialize};

use super::{
    Verdict,
    attempts::Rejections,
    fingerprint::{Fingerprint, Hash},
};

/// Rejections after which an id is left alone. The vendor locks the account at five: two are left, one for a try that
/// was under way elsewhere and one for an operator's override.
const BUDGET: u32 = 3;

/// Ids that are remembered. A proxy has one or two in its life; the bound only keeps the file small whatever happens.
const MAX_IDS: usize = 64;

/// Rejected secrets that are remembered for each id. When the oldest is forgotten, trying it again costs one rejection of
/// the id's budget, and that is never forgotten.
const MAX_LATCHES: usize = 16;

/// What was rejected, the id that changed last at the end.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct State {
    ids: Vec<Account>,
}

/// What is known of one id.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct Account {
    id: Hash,
    /// Since the vendor last accepted something of this id. Rejections, not different secrets: the vendor counts so, too.
    rejections: u32,
    /// How many of them there may be.
    budget: u32,
    /// What was rejected and not reset since.
    latched: Vec<Hash>,
}

impl Account {
    fn is_spent(&self) -> bool {
        self.rejections >= self.budget
    }
}

impl State {
    pub(super) fn verdict(&self, fingerprint: &Fingerprint) -> Verdict {
        match self.find(fingerprint) {
            Some(account) if account.is_spent() => Verdict::BudgetSpent,
            Some(account) if account.latched.contains(&fingerprint.whole) => Verdict::Latched,
            // Where its rejections could not be kept, none may happen.
            None if self.is_full() => Verdict::BudgetSpent,
            _ => Verdict::Allowed,
        }
    }

    /// Whether exactly these credentials were rejected and not reset since.
    pub(super) fn is_latched(&self, fingerprint: &Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|account| account.latched.contains(&fingerprint.whole))
    }

    pub(super) fn rejected(&mut self, fingerprint: &Fingerprint) {
        let account = self.touch(fingerprint);
        account.rejections = account.rejections.saturating_add(1);
        if !account.latched.contains(&fingerprint.whole) {
            account.latched.push(fingerprint.whole);
        }
        if account.latched.len() > MAX_LATCHES {
            account.latched.remove(0);
        }
    }

    /// Voids the first `rejections` of the account, those from before the request that was accepted.
    pub(super) fn accepted(&mut self, fingerprint: &Fingerprint, rejections: u32) {
        let Some(account) = self.ids.iter_mut().find(|account| account.id == fingerprint.id) else { return };
        account.rejections = account.rejections.saturating_sub(rejections);
        account.budget = BUDGET;
        account.latched.retain(|latched| *latched != fingerprint.whole);
        self.ids.retain(|account| account.rejections > 0 || !account.latched.is_empty());
    }

    pub(super) fn reset(&mut self, fingerprint: &Fingerprint, override_budget: bool) {
        match self.verdict(fingerprint) {
            Verdict::BudgetSpent if override_budget => {
                let account = self.touch(fingerprint);
                account.budget = account.rejections.saturating_add(1);
                account.latched.retain(|latched| *latched != fingerprint.whole);
            }
            Verdict::Latched => self.touch(fingerprint).latched.retain(|latched| *latched != fingerprint.whole),
            Verdict::BudgetSpent | Verdict::Allowed | Verdict::Held => {}
        }
    }

    pub(super) fn rejections(&self, fingerprint: &Fingerprint) -> u32 {
        self.find(fingerprint).map_or(0, |account| account.rejections)
    }

    /// Rejections of the account, and how many of them are allowed.
    pub(super) fn counted(&self, fingerprint: &Fingerprint) -> Rejections {
        self.find(fingerprint).map_or(Rejections { count: 0, budget: BUDGET }, |account| Rejections {
            count: account.rejections,
            budget: account.budget,
        })
    }

    fn find(&self, fingerprint: &Fingerprint) -> Option<&Account> {
        self.ids.iter().find(|account| account.id == fingerprint.id)
    }

    /// The account of `fingerprint`, now the newest, made when it is missing.
    fn touch(&mut self, fingerprint: &Fingerprint) -> &mut Account {
        let account = match self.ids.iter().position(|account| account.id == fingerprint.id) {
            Some(index) => self.ids.remove(index),
            None => {
                if self.ids.len() >= MAX_IDS
                    && let Some(index) = self.ids.iter().position(|account| account.rejections == 0)
                {
                    self.ids.remove(index);
                }
                Account { id: fingerprint.id, rejections: 0, budget: BUDGET, latched: Vec::new() }
            }
        };
        self.ids.push_mut(account)
    }

    /// Whether there is no room for another id.
    ///
    /// An id without rejections makes room: it was accepted since its last one, and what it loses, its latches, costs at
    /// most its budget. One with rejections is never forgotten: three more could lock its account.
    fn is_full(&self) -> bool {
        self.ids.len() >= MAX_IDS && self.ids.iter().all(|account| account.rejections > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::lockout::fingerprint::Key;

    fn fingerprints(ids: usize) -> Vec<Fingerprint> {
        let key = Key::generate().unwrap();
        (0..ids)
            .map(|id| key.fingerprint("oauth2", "host", &id.to_string().as_str().into(), &"secret".into(), b"key"))
            .collect()
    }

    #[test]
    fn an_id_with_rejections_is_never_forgotten_for_another() {
        let prints = fingerprints(MAX_IDS + 1);
        let mut state = State::default();
        for print in &prints[..MAX_IDS] {
            assert_eq!(state.verdict(print), Verdict::Allowed);
            state.rejected(print);
        }
        let another = &prints[MAX_IDS];
        assert_eq!(state.verdict(another), Verdict::BudgetSpent);
        state.reset(another, false);
        assert_eq!(state.verdict(another), Verdict::BudgetSpent);
        // Not even when a try was under way elsewhere, and the bound has to give way.
        state.rejected(another);
        assert!(prints.iter().all(|print| state.rejections(print) == 1));
    }

    #[test]
    fn an_accepted_id_makes_room_for_another() {
        let prints = fingerprints(MAX_IDS + 1);
        let key = Key::generate().unwrap();
        let other_secret = Fingerprint {
            whole: key.fingerprint("oauth2", "host", &"0".into(), &"proven".into(), b"key").whole,
            id: prints[1].id,
        };
        let mut state = State::default();
        for print in &prints[..MAX_IDS] {
            state.rejected(print);
        }
        state.accepted(&other_secret, 1);
        assert_eq!(state.verdict(&prints[1]), Verdict::Latched);
        assert_eq!(state.verdict(&prints[MAX_IDS]), Verdict::Allowed);
        state.rejected(&prints[MAX_IDS]);
        assert_eq!((state.ids.len(), state.find(&prints[1])), (MAX_IDS, None));
    }

    #[test]
    fn latches_are_bounded_and_the_oldest_goes_first() {
        let key = Key::generate().unwrap();
        let prints: Vec<_> = (0..=MAX_LATCHES)
            .map(|n| key.fingerprint("oauth2", "host", &"id".into(), &n.to_string().as_str().into(), b"key"))
            .collect();
        let proven = key.fingerprint("oauth2", "host", &"id".into(), &"proven".into(), b"key");
        let mut state = State::default();
        for print in &prints {
            state.rejected(print);
            state.accepted(&proven, 1);
        }
        assert_eq!(state.verdict(&prints[0]), Verdict::Allowed);
        assert!(prints[1..].iter().all(|print| state.verdict(print) == Verdict::Latched));
    }
}
