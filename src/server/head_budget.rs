//! The bytes of unfinished request heads, over all connections of the process. Above the limit the oldest such head is given up.
//!
//! Not to read from a connection would be no remedy: the kernel's buffers are charged to the same memory limit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::slots::State;
use crate::telemetry::Metrics;

/// The limit and what counts towards it. Clones share both.
#[derive(Clone, Debug)]
pub struct HeadBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    total: usize,
    next_id: u64,
    /// The heads that can be given up, the oldest first.
    heads: BTreeMap<Key, Head>,
}

/// When a head began, in microseconds, and a number that makes it unique.
type Key = (u64, u64);

#[derive(Debug)]
struct Head {
    bytes: usize,
    state: Arc<State>,
}

/// What one connection has of the budget.
#[derive(Debug)]
pub(super) struct HeadShare {
    budget: HeadBudget,
    bytes: usize,
    /// Where the head is in the list of those that can be given up.
    key: Option<Key>,
}

impl HeadBudget {
    /// A budget of `limit` bytes (`limits.unfinished_heads_bytes`).
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { limit, metrics, inner: Mutex::default() }))
    }

    /// The share of a connection, which is empty.
    pub(super) fn share(&self) -> HeadShare {
        HeadShare { budget: self.clone(), bytes: 0, key: None }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inner);
        while inner.total > self.0.limit
            && let Some((_, head)) = inner.heads.pop_first()
        {
            inner.total -= head.bytes;
            head.state.expel();
        }
        self.0.metrics.unfinished_heads().set(i64::try_from(inner.total).unwrap_or(i64::MAX));
    }
}

impl HeadShare {
    /// Whether nothing counts.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the head can be given up.
    pub(super) fn is_listed(&self) -> bool {
        self.key.is_some()
    }

    /// The head has `bytes` bytes now. It began at `since`, and can be given up where `state` is that of its connection.
    pub(super) fn grow(&mut self, bytes: usize, since: u64, state: Option<&Arc<State>>) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let key = &mut self.key;
        self.budget.change(|inner| match (*key, state) {
            (Some(key), _) => {
                // One that is not listed any more is about to be given up, and does not count.
                if let Some(head) = inner.heads.get_mut(&key) {
                    head.bytes = bytes;
                    inner.total = inner.total + bytes - before;
                }
            }
            (None, Some(state)) => {
                let listed = (since, inner.next_id);
                inner.next_id += 1;
                inner.heads.insert(listed, Head { bytes, state: Arc::clone(state) });
                *key = Some(listed);
                inner.total = inner.total + bytes - before;
            }
            (None, None) => inner.total = inner.total + bytes - before,
        });
    }

    /// The head has ended, or its connection has.
    pub(super) fn release(&mut self) {
        let (bytes, key) = (std::mem::take(&mut self.bytes), self.key.take());
        if bytes > 0 {
            self.budget.change(|inner| {
                if key.is_none_or(|key| inner.heads.remove(&key).is_some()) {
                    inner.total -= bytes;
                }
            });
        }
    }
}

impl Drop for HeadShare {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> HeadBudget {
        HeadBudget::new(limit, Arc::new(Metrics::new()))
    }

    fn total(budget: &HeadBudget) -> usize {
        budget.0.inner.lock().unwrap().total
    }

    #[test]
    fn the_oldest_unfinished_head_is_given_up_above_the_limit() {
        let budget = budget(100);
        let states: Vec<_> = (0..4).map(|_| State::detached()).collect();
        let mut shares: Vec<_> = (0..4).map(|_| budget.share()).collect();
        // The second is the oldest.
        for (number, since) in [2, 1, 3].into_iter().enumerate() {
            shares[number].grow(30, since, Some(&states[number]));
        }
        assert!(states.iter().all(|state| !state.is_expelled()));
        shares[3].grow(30, 4, Some(&states[3]));
        let expelled: Vec<_> = states.iter().map(|state| state.is_expelled()).collect();
        assert_eq!((expelled, total(&budget)), (vec![false, true, false, false], 90));
        // What arrives on it before it is closed does not count any more, and neither does its end.
        shares[1].grow(60, 1, Some(&states[1]));
        shares[1].release();
        assert_eq!(total(&budget), 90);
        shares[2].grow(100, 3, Some(&states[2]));
        assert!(states[0].is_expelled() && states[2].is_expelled() && !states[3].is_expelled());
        assert_eq!(total(&budget), 30);
        drop(shares);
        assert_eq!(total(&budget), 0);
    }

    #[test]
    fn a_head_behind_a_request_in_flight_counts_and_is_not_given_up() {
        let budget = budget(100);
        let (busy, idle) = (State::detached(), State::detached());
        let (mut behind, mut other) = (budget.share(), budget.share());
        behind.grow(90, 1, None);
        other.grow(20, 2, Some(&idle));
        assert!(idle.is_expelled() && !busy.is_expelled());
        assert_eq!(total(&budget), 90);
        // Its request has been answered.
        behind.grow(101, 1, Some(&busy));
        assert!(busy.is_expelled());
        assert_eq!(total(&budget), 0);
    }
}
