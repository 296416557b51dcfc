//! The state shared by a connection and the acceptor.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Instant,
};

use futures_util::task::AtomicWaker;

#[cfg(test)]
use super::{EvictionPolicy, Slots};
use super::{PeerGroup, SlotTable};

/// Flag: eviction was requested. Set only while the connection could be closed.
pub(super) const EVICTION_REQUESTED: u64 = 1;

/// Flag: the connection is not in the queue and returns to it when it becomes idle.
pub(super) const REQUEUE: u64 = 2;

/// The number of flag bits in a word. The other bits are a time in microseconds, or [`BUSY`].
pub(super) const FLAG_BITS: u32 = 2;

/// The time of a connection that cannot be closed without losing a request.
pub(super) const BUSY: u64 = u64::MAX >> FLAG_BITS;

/// The [`queued_at`](SlotState::queued_at) of a connection that is not in the queue.
pub(super) const NOT_QUEUED: u64 = u64::MAX;

/// The start of [`micros`].
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since [`EPOCH`].
pub(super) fn micros(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*EPOCH);
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

/// The state shared by a connection and the acceptor. Other tasks write only `queued_at`, the flags in `word`, and `is_head_evicted`; the
/// connection's task writes everything.
#[derive(Debug)]
pub(in crate::server) struct SlotState {
    pub(super) id: u64,
    pub(super) group: PeerGroup,
    pub(super) table: Arc<SlotTable>,
    /// When the connection was accepted.
    accepted_at: u64,
    /// The time since which the connection could be closed, or [`BUSY`]; and the flags.
    pub(super) word: AtomicU64,
    /// The key in the queue. Written under the queue's lock.
    pub(super) queued_at: AtomicU64,
    /// When the connection last became idle.
    idle_since: AtomicU64,
    /// See [`Self::is_awaiting_request`].
    is_awaiting_request: AtomicBool,
    /// The client does not read the response.
    is_stalled: AtomicBool,
    /// Eviction was requested, and the task found no request in flight.
    is_evictable: AtomicBool,
    /// The connection is being evicted. It sends at most the response to its unfinished head.
    is_evicted: AtomicBool,
    /// The unfinished head is evicted because all unfinished heads together exceed their budget.
    is_head_evicted: AtomicBool,
    pub(super) waker: AtomicWaker,
}

impl SlotState {
    pub(super) fn new(id: u64, group: PeerGroup, now: u64, table: Arc<SlotTable>) -> Self {
        let (is_stalled, is_evictable, is_evicted, is_head_evicted, waker) = Default::default();
        let is_awaiting_request = AtomicBool::new(true);
        Self {
            id,
            group,
            table,
            accepted_at: now,
            word: AtomicU64::new(now << FLAG_BITS),
            queued_at: AtomicU64::new(NOT_QUEUED),
            idle_since: AtomicU64::new(now),
            is_awaiting_request,
            is_stalled,
            is_evictable,
            is_evicted,
            is_head_evicted,
            waker,
        }
    }

    /// A state without an acceptor.
    #[cfg(test)]
    pub(in crate::server) fn detached() -> Arc<Self> {
        let policy = EvictionPolicy { grace: std::time::Duration::ZERO, evicts_stalled: false };
        let slot = Slots::new(1, policy).try_acquire(PeerGroup::All).expect("it is the first");
        Arc::clone(slot.state())
    }

    /// When the connection was accepted, in microseconds since a fixed moment.
    pub(in crate::server) fn accepted_at(&self) -> u64 {
        self.accepted_at
    }

    /// Now, on the clock of [`accepted_at`](Self::accepted_at).
    pub(in crate::server) fn now() -> u64 {
        micros(Instant::now())
    }

    /// Marks the connection busy with a request.
    pub(in crate::server) fn begin_request(self: &Arc<Self>) {
        self.is_awaiting_request.store(false, Relaxed);
        self.set_busy();
    }

    fn set_busy(&self) {
        let previous = self.word.swap(BUSY << FLAG_BITS, SeqCst);
        if previous & (EVICTION_REQUESTED | REQUEUE) != 0 {
            if self.is_evicted.load(Relaxed) {
                // The slot is about to be freed, so no other connection may be evicted for it. While a flag is set, only this task writes.
                self.word.store(previous, SeqCst);
            } else {
                self.leave_queue(previous);
            }
        }
    }

    /// Marks the connection as being evicted. The eviction completes when the slot is dropped.
    pub(in crate::server) fn set_evicted(&self) {
        self.is_evicted.store(true, Relaxed);
    }

    /// Marks the connection idle since `at`: it waits for a request, and no byte of one has arrived.
    pub(in crate::server) fn set_idle(self: &Arc<Self>, at: Instant) {
        self.set_idle_since(micros(at));
    }

    fn set_idle_since(self: &Arc<Self>, at: u64) {
        self.is_awaiting_request.store(true, Relaxed);
        self.idle_since.store(at, Relaxed);
        if !self.is_stalled.load(Relaxed) {
            self.set_closable_since(at);
        }
    }

    /// Restores the previous idle time, after receiving bytes that are not part of a request.
    pub(in crate::server) fn restore_idle(self: &Arc<Self>) {
        self.set_idle_since(self.idle_since.load(Relaxed));
    }

    /// Marks a head as partially received since `since`.
    pub(in crate::server) fn set_in_head(self: &Arc<Self>, since: u64) {
        if !self.is_stalled.load(Relaxed) {
            self.set_closable_since(since);
        }
    }

    fn set_closable_since(self: &Arc<Self>, at: u64) {
        let previous = self.word.swap(at << FLAG_BITS, SeqCst);
        if previous & EVICTION_REQUESTED != 0 {
            self.word.fetch_or(EVICTION_REQUESTED, SeqCst);
        }
        if previous & REQUEUE != 0 {
            self.table.lock().queue.insert(self, at);
            self.table.slots_changed.notify_waiters();
        }
    }

    /// Records that the client has stopped reading the response.
    pub(in crate::server) fn write_stalled(self: &Arc<Self>) {
        self.is_stalled.store(true, Relaxed);
        if self.table.policy.evicts_stalled {
            self.set_closable_since(Self::now());
        } else if !self.is_busy() {
            self.set_busy();
        }
    }

    /// Records that the client reads again.
    pub(in crate::server) fn write_resumed(self: &Arc<Self>) {
        self.is_stalled.store(false, Relaxed);
        if self.is_awaiting_request.load(Relaxed) {
            self.restore_idle();
        } else {
            self.set_busy();
        }
    }

    /// Marks the connection as closing: it serves no further request.
    pub(in crate::server) fn set_closing(self: &Arc<Self>) {
        self.is_stalled.store(false, Relaxed);
        self.set_closable_since(Self::now());
    }

    /// Whether the connection waits for the next request. The response to the previous one may not have been sent yet.
    pub(in crate::server) fn is_awaiting_request(&self) -> bool {
        self.is_awaiting_request.load(Relaxed)
    }

    /// Whether the connection cannot be closed without losing a request or a response.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.word.load(Relaxed) >> FLAG_BITS == BUSY
    }

    /// Waits until eviction is requested.
    #[cfg(test)]
    pub(in crate::server) async fn eviction_requested(&self) {
        std::future::poll_fn(|cx| self.poll_eviction_request(cx)).await;
    }

    /// Ready if eviction is requested. Poll it while the connection is not busy. The task is also woken when
    /// [`is_head_evicted`](Self::is_head_evicted) changes.
    pub(in crate::server) fn poll_eviction_request(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.word.load(SeqCst) & EVICTION_REQUESTED != 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// If eviction is requested, sets [`is_evictable`](Self::is_evictable) and wakes the task. Poll it after the connection, once
    /// everything that can be written has been.
    pub(in crate::server) fn schedule_eviction(&self, cx: &Context<'_>) {
        if self.is_busy() {
            return;
        }
        let is_eviction_requested = self.poll_eviction_request(cx).is_ready();
        let is_stalled = self.is_stalled.load(Relaxed) && !self.table.policy.evicts_stalled;
        let is_evictable = is_eviction_requested && !is_stalled && !self.is_evictable.swap(true, Relaxed);
        if is_evictable || self.is_head_evicted() {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether to close the connection now, unless bytes have arrived on it.
    pub(in crate::server) fn is_evictable(&self) -> bool {
        self.is_evictable.load(Relaxed) && self.is_eviction_requested()
    }

    /// Whether eviction was requested and not declined.
    pub(in crate::server) fn is_eviction_requested(&self) -> bool {
        self.word.load(Relaxed) & EVICTION_REQUESTED != 0
    }

    /// Declines a requested eviction because bytes have arrived on the connection.
    pub(in crate::server) fn decline_eviction(&self) {
        let previous = self.word.swap(BUSY << FLAG_BITS, SeqCst);
        self.leave_queue(previous);
    }

    /// Leaves the queue until the next [`set_closable_since`](Self::set_closable_since). `previous` is the word before it became busy.
    fn leave_queue(&self, previous: u64) {
        self.is_evictable.store(false, Relaxed);
        let mut table = self.table.lock();
        self.word.fetch_or(REQUEUE, SeqCst);
        table.queue.remove(self);
        if previous & EVICTION_REQUESTED != 0 {
            table.requested -= 1;
            drop(table);
            self.table.slots_changed.notify_waiters();
        }
    }

    /// Evicts the unfinished head.
    pub(in crate::server) fn evict_head(&self) {
        self.is_head_evicted.store(true, SeqCst);
        self.waker.wake();
    }

    /// Whether the unfinished head is evicted.
    pub(in crate::server) fn is_head_evicted(&self) -> bool {
        self.is_head_evicted.load(Relaxed)
    }

    /// Cancels the eviction of a head that has been completed or rejected in the meantime.
    pub(in crate::server) fn keep_head(&self) {
        self.is_head_evicted.store(false, SeqCst);
    }
}
