//! Slots for connections under a limit. When all are in use, the longest idle connection is evicted for a new one.
//!
//! The acceptor and a connection's worker share one atomic word, [`SlotState::word`]: the time since which the connection could be closed
//! without losing a request, or [`BUSY`]. A request writes it twice. An [`EvictionQueue`] orders the connections. Requests do not
//! touch the queue; it is corrected when the acceptor looks for a connection to evict. Only a connection's own task closes it,
//! after checking that no byte of a request has arrived in the meantime.

#![expect(
    clippy::disallowed_types,
    reason = "times of several runtimes are compared, and a clock that is paused belongs to one"
)]

mod queue;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use tokio::{
    select,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

pub(super) use self::{queue::PeerGroup, state::SlotState};
use self::{
    queue::{EvictionQueue, Pick},
    state::{BUSY, EVICTION_REQUESTED, FLAG_BITS, micros},
};

/// How long a new connection waits for one that has been idle for [`EvictionPolicy::grace`]; after that, any idle one is evicted. Without
/// this limit, clients that use each of their connections more often than the grace would keep all others out.
const GRACE_LIMIT: Duration = Duration::from_millis(500);

/// How long a connection's task may take to close or to decline an eviction before another eviction is requested. It takes
/// microseconds unless its worker is stuck.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(100);

/// How often a new connection retries while all others are busy. Connections that become idle also notify it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Which connections are evicted.
#[derive(Clone, Copy, Debug)]
pub(super) struct EvictionPolicy {
    /// The minimum idle time before an eviction, while there are other candidates: the first request of a new connection may be on its
    /// way.
    pub(super) grace: Duration,
    /// Whether a connection whose client does not read a response is evicted too.
    pub(super) evicts_stalled: bool,
}

/// The slots of one or more listeners.
#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<SlotTable>);

#[derive(Debug)]
struct SlotTable {
    policy: EvictionPolicy,
    permits: Arc<Semaphore>,
    state: Mutex<SlotTableState>,
    /// Notified when a requested eviction completes or is declined, and when a connection that was busy at the last pick becomes idle.
    slots_changed: Notify,
}

#[derive(Debug, Default)]
struct SlotTableState {
    queue: EvictionQueue,
    next_id: u64,
    /// New connections that wait for a slot.
    waiters: usize,
    /// Evictions that were requested and have neither completed nor been declined.
    requested: usize,
}

impl SlotTable {
    fn lock(&self) -> MutexGuard<'_, SlotTableState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a new connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitReason {
    /// The eviction of a connection was requested.
    Eviction,
    /// The longest idle connection has not been idle for long enough.
    Grace(Duration),
    /// All connections are busy.
    AllBusy,
}

impl Slots {
    /// `limit` slots.
    pub(super) fn new(limit: usize, policy: EvictionPolicy) -> Self {
        // The first call sets the epoch.
        let _ = micros(Instant::now());
        let permits = Arc::new(Semaphore::new(limit));
        Self(Arc::new(SlotTable { policy, permits, state: Mutex::default(), slots_changed: Notify::new() }))
    }

    /// Returns a slot if one is free.
    pub(super) fn try_acquire(&self, group: PeerGroup) -> Option<Slot> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok()?;
        Some(self.slot(permit, group))
    }

    /// Returns a slot, evicting another connection if possible. Calls `all_busy` once if all are busy, and waits.
    ///
    /// # Cancel safety
    ///
    /// Another connection may be evicted although this future is dropped.
    pub(super) async fn acquire(&self, group: PeerGroup, all_busy: impl FnOnce()) -> Slot {
        let mut permit = std::pin::pin!(Arc::clone(&self.0.permits).acquire_owned());
        let _waiter = WaiterGuard::new(&self.0);
        let (mut all_busy, started, mut timed_out) = (Some(all_busy), Instant::now(), false);
        loop {
            let mut slots_changed = std::pin::pin!(self.0.slots_changed.notified());
            slots_changed.as_mut().enable();
            let grace = if started.elapsed() < GRACE_LIMIT { self.0.policy.grace } else { Duration::ZERO };
            let reason = self.request_eviction(grace, timed_out);
            let wait_limit = match reason {
                WaitReason::Eviction => EVICTION_TIMEOUT,
                WaitReason::Grace(remaining) => remaining,
                WaitReason::AllBusy => {
                    if let Some(all_busy) = all_busy.take() {
                        all_busy();
                    }
                    RETRY_INTERVAL
                }
            };
            timed_out = false;
            select! {
                biased;
                permit = &mut permit => return self.slot(permit.expect("the semaphore is never closed"), group),
                () = slots_changed => {}
                () = sleep(wait_limit) => timed_out = reason == WaitReason::Eviction,
            }
        }
    }

    /// Requests an eviction if fewer are pending than there are waiters, or if a requested one has timed out.
    fn request_eviction(&self, grace: Duration, timed_out: bool) -> WaitReason {
        let mut table = self.0.lock();
        if table.requested >= table.waiters && !timed_out {
            return WaitReason::Eviction;
        }
        let now = micros(Instant::now());
        match table.queue.pick(now, grace.as_micros().try_into().unwrap_or(BUSY)) {
            Pick::Requested(state) => {
                table.requested += 1;
                drop(table);
                state.waker.wake();
                WaitReason::Eviction
            }
            Pick::InGrace { remaining } => WaitReason::Grace(Duration::from_micros(remaining)),
            Pick::None => WaitReason::AllBusy,
        }
    }

    fn slot(&self, permit: OwnedSemaphorePermit, group: PeerGroup) -> Slot {
        let now = micros(Instant::now());
        let mut table = self.0.lock();
        let id = table.next_id;
        table.next_id += 1;
        let state = Arc::new(SlotState::new(id, group, now, Arc::clone(&self.0)));
        table.queue.add_connection(group);
        table.queue.insert(&state, now);
        Slot { state, permit: Some(permit) }
    }
}

/// Counts a new connection that waits for a slot.
struct WaiterGuard<'a>(&'a SlotTable);

impl<'a> WaiterGuard<'a> {
    fn new(table: &'a SlotTable) -> Self {
        table.lock().waiters += 1;
        Self(table)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().waiters -= 1;
    }
}

/// The slot of one connection. Dropping it frees the slot, so it must be dropped last.
#[derive(Debug)]
pub(super) struct Slot {
    state: Arc<SlotState>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// The state shared with the acceptor.
    pub(super) fn state(&self) -> &Arc<SlotState> {
        &self.state
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = &self.state;
        let mut table = state.table.lock();
        let was_requested = state.word.swap(BUSY << FLAG_BITS, SeqCst) & EVICTION_REQUESTED != 0;
        table.requested = table.requested.saturating_sub(was_requested.into());
        table.queue.remove(state);
        table.queue.remove_connection(state.group);
        drop(table);
        // Free the permit first, so that the waiter that gets it does not request another eviction.
        self.permit = None;
        if was_requested {
            state.table.slots_changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
