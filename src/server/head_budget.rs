//! The budget for bytes of unfinished request heads, shared by all connections of the process. Above the limit, the oldest head is
//! evicted.
//!
//! Pausing reads instead would not help: the kernel's buffers count towards the same memory limit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::slots::SlotState;
use crate::telemetry::Metrics;

/// The limit and its current use. Clones share both.
#[derive(Clone, Debug)]
pub struct HeadBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    limit: usize,
    metrics: Arc<Metrics>,
    heads: Mutex<UnfinishedHeads>,
}

#[derive(Debug, Default)]
struct UnfinishedHeads {
    total: usize,
    next_id: u64,
    /// The heads that can be evicted, oldest first.
    evictable: BTreeMap<HeadKey, EvictableHead>,
}

/// When a head began, in microseconds, and a unique number.
type HeadKey = (u64, u64);

#[derive(Debug)]
struct EvictableHead {
    bytes: usize,
    state: Arc<SlotState>,
}

/// One connection's share of the budget.
#[derive(Debug)]
pub(super) struct HeadShare {
    budget: HeadBudget,
    bytes: usize,
    /// The key in `evictable`.
    key: Option<HeadKey>,
}

impl HeadBudget {
    /// A budget of `limit` bytes (`limits.unfinished_heads_bytes`).
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(BudgetState { limit, metrics, heads: Mutex::default() }))
    }

    /// An empty share, for one connection.
    pub(super) fn share(&self) -> HeadShare {
        HeadShare { budget: self.clone(), bytes: 0, key: None }
    }

    fn update(&self, update: impl FnOnce(&mut UnfinishedHeads)) {
        let mut heads = self.0.heads.lock().unwrap_or_else(PoisonError::into_inner);
        update(&mut heads);
        while heads.total > self.0.limit
            && let Some((_, head)) = heads.evictable.pop_first()
        {
            heads.total -= head.bytes;
            head.state.evict_head();
        }
        self.0.metrics.unfinished_heads().set(i64::try_from(heads.total).unwrap_or(i64::MAX));
    }
}

impl HeadShare {
    /// Whether no bytes count.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the head can be evicted.
    pub(super) fn is_evictable(&self) -> bool {
        self.key.is_some()
    }

    /// Sets the size of the head, which began at `started`. With `state`, that of its connection, the head can be evicted from now on.
    pub(super) fn set_bytes(&mut self, bytes: usize, started: u64, state: Option<&Arc<SlotState>>) {
        let previous = std::mem::replace(&mut self.bytes, bytes);
        let key = &mut self.key;
        self.budget.update(|heads| match (*key, state) {
            (Some(key), _) => {
                // A head that was removed is being evicted and no longer counts.
                if let Some(head) = heads.evictable.get_mut(&key) {
                    head.bytes = bytes;
                    heads.total = heads.total + bytes - previous;
                }
            }
            (None, Some(state)) => {
                let new_key = (started, heads.next_id);
                heads.next_id += 1;
                heads.evictable.insert(new_key, EvictableHead { bytes, state: Arc::clone(state) });
                *key = Some(new_key);
                heads.total = heads.total + bytes - previous;
            }
            (None, None) => heads.total = heads.total + bytes - previous,
        });
    }

    /// Releases the share: the head or its connection has ended.
    pub(super) fn release(&mut self) {
        let (bytes, key) = (std::mem::take(&mut self.bytes), self.key.take());
        if bytes > 0 {
            self.budget.update(|heads| {
                if key.is_none_or(|key| heads.evictable.remove(&key).is_some()) {
                    heads.total -= bytes;
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
        budget.0.heads.lock().unwrap().total
    }

    #[test]
    fn the_oldest_unfinished_head_is_evicted_above_the_limit() {
        let budget = budget(100);
        let states: Vec<_> = (0..4).map(|_| SlotState::detached()).collect();
        let mut shares: Vec<_> = (0..4).map(|_| budget.share()).collect();
        // The second is the oldest.
        for (number, started) in [2, 1, 3].into_iter().enumerate() {
            shares[number].set_bytes(30, started, Some(&states[number]));
        }
        assert!(states.iter().all(|state| !state.is_head_evicted()));
        shares[3].set_bytes(30, 4, Some(&states[3]));
        let evicted: Vec<_> = states.iter().map(|state| state.is_head_evicted()).collect();
        assert_eq!((evicted, total(&budget)), (vec![false, true, false, false], 90));
        // Bytes that arrive on it before it closes no longer count, and neither does its end.
        shares[1].set_bytes(60, 1, Some(&states[1]));
        shares[1].release();
        assert_eq!(total(&budget), 90);
        shares[2].set_bytes(100, 3, Some(&states[2]));
        assert!(states[0].is_head_evicted() && states[2].is_head_evicted() && !states[3].is_head_evicted());
        assert_eq!(total(&budget), 30);
        drop(shares);
        assert_eq!(total(&budget), 0);
    }

    #[test]
    fn a_head_behind_a_request_in_flight_counts_and_is_not_evicted() {
        let budget = budget(100);
        let (busy, idle) = (SlotState::detached(), SlotState::detached());
        let (mut behind, mut other) = (budget.share(), budget.share());
        behind.set_bytes(90, 1, None);
        other.set_bytes(20, 2, Some(&idle));
        assert!(idle.is_head_evicted() && !busy.is_head_evicted());
        assert_eq!(total(&budget), 90);
        // The request in flight has got its response.
        behind.set_bytes(101, 1, Some(&busy));
        assert!(busy.is_head_evicted());
        assert_eq!(total(&budget), 0);
    }
}
