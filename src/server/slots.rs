//! Slots for connections under a limit. When all are in use, the connection that has been idle longest is evicted for a new one.
//!
//! The acceptor and the worker of a connection share one word, [`SlotState::word`]: since when the connection could be closed without
//! losing a request, or that it cannot be. A request writes it twice. The order among connections is kept in an
//! [`EvictionQueue`], which a request does not touch: the queue is corrected when the acceptor looks for a connection to close.
//! Only the task of a connection closes it, after it has made sure that no byte of a request has arrived meanwhile.

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

/// How long a new connection waits for one that has been idle for [`EvictionPolicy::grace`]; then any idle one is evicted. Without this,
/// clients that make a request on each of their connections in shorter intervals would keep all others out.
const GRACE_LIMIT: Duration = Duration::from_millis(500);

/// How long the task of a connection may take to end or to decline an eviction, before the next eviction is requested. It takes
/// microseconds, unless its worker is stuck.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(100);

/// How often a new connection looks for one to evict while all are busy. Those that become idle notify it; this is in addition.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Which connections are evicted.
#[derive(Clone, Copy, Debug)]
pub(super) struct EvictionPolicy {
    /// The minimum time that a connection is idle before it is evicted, while others are idle: the first request of a new connection may
    /// be on its way.
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
    /// A request for an eviction has an outcome, or a connection has become idle that was busy at the last pick.
    slots_changed: Notify,
}

#[derive(Debug, Default)]
struct SlotTableState {
    queue: EvictionQueue,
    next_id: u64,
    /// New connections that wait for a slot.
    waiters: usize,
    /// Requests for an eviction without an outcome.
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
        // The first call defines the moment that times count from.
        let _ = micros(Instant::now());
        let permits = Arc::new(Semaphore::new(limit));
        Self(Arc::new(SlotTable { policy, permits, state: Mutex::default(), slots_changed: Notify::new() }))
    }

    /// A slot, if one is free.
    pub(super) fn try_acquire(&self, group: PeerGroup) -> Option<Slot> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok()?;
        Some(self.slot(permit, group))
    }

    /// A slot, for which another connection may be evicted. `all_busy` is called once if none can be, and a slot is waited for.
    ///
    /// # Cancel safety
    ///
    /// A connection may have been evicted in vain.
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

    /// Requests an eviction, if fewer were requested than there are waiters, or if one that was requested has timed out.
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

/// The slot of one connection. Dropping it, which is to be the last that happens to a connection, frees it.
#[derive(Debug)]
pub(super) struct Slot {
    state: Arc<SlotState>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// What the connection shares with the acceptor.
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
        // First the permit, so that the connection that it is for does not request another eviction.
        self.permit = None;
        if was_requested {
            state.table.slots_changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
