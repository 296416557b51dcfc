//! What a connection and the acceptor know of each other.

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

/// The eviction was requested; set only while the connection could be closed.
pub(super) const EVICTION_REQUESTED: u64 = 1;

/// The connection is not in the queue and returns to it when it becomes idle.
pub(super) const REQUEUE: u64 = 2;

/// The number of bits for flags in a word. The rest is a time in microseconds, or [`BUSY`].
pub(super) const FLAG_BITS: u32 = 2;

/// The time of a connection that cannot be closed without losing a request.
pub(super) const BUSY: u64 = u64::MAX >> FLAG_BITS;

/// The [`queued_at`](SlotState::queued_at) of a connection that is not in the queue.
pub(super) const NOT_QUEUED: u64 = u64::MAX;

/// The moment that times count from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since a fixed moment.
pub(super) fn micros(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*EPOCH);
    since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
}

/// What a connection and the acceptor know of each other. All but the queue's fields are written by the connection's task alone.
#[derive(Debug)]
pub(in crate::server) struct SlotState {
    pub(super) id: u64,
    pub(super) group: PeerGroup,
    pub(super) table: Arc<SlotTable>,
    /// When the connection was accepted.
    accepted_at: u64,
    /// The time since which it could be closed, or [`BUSY`]; and the flags.
    pub(super) word: AtomicU64,
    /// Its time in the queue; written under the queue's lock.
    pub(super) queued_at: AtomicU64,
    /// When it was last idle.
    idle_since: AtomicU64,
    /// The next request is waited for; the response before it may not be sent.
    is_awaiting_request: AtomicBool,
    /// A response is not taken by the client.
    is_stalled: AtomicBool,
    /// The eviction was requested, and the task found nothing in flight.
    is_evictable: AtomicBool,
    /// It is being evicted, and serves no more than a response to its unfinished head.
    is_evicted: AtomicBool,
    /// Its unfinished head is evicted, since there are too many bytes of such heads.
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

    /// A state that no acceptor knows of.
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

    /// A request has begun.
    pub(in crate::server) fn begin_request(self: &Arc<Self>) {
        self.is_awaiting_request.store(false, Relaxed);
        self.set_busy();
    }

    fn set_busy(&self) {
        let previous = self.word.swap(BUSY << FLAG_BITS, SeqCst);
        if previous & (EVICTION_REQUESTED | REQUEUE) != 0 {
            if self.is_evicted.load(Relaxed) {
                // Its slot is free in a moment, and no other connection is to be evicted for it. Nobody else writes a word with a flag.
                self.word.store(previous, SeqCst);
            } else {
                self.leave_queue(previous);
            }
        }
    }

    /// The connection is being evicted: a request for that has its outcome when the slot is dropped.
    pub(in crate::server) fn set_evicted(&self) {
        self.is_evicted.store(true, Relaxed);
    }

    /// The connection waits for a request since `at`, and nothing of one has arrived.
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

    /// The connection is idle, as it was before something arrived that was no part of a request.
    pub(in crate::server) fn restore_idle(self: &Arc<Self>) {
        self.set_idle_since(self.idle_since.load(Relaxed));
    }

    /// A head has arrived in part, since the time `since`.
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

    /// The client does not take a response.
    pub(in crate::server) fn write_stalled(self: &Arc<Self>) {
        self.is_stalled.store(true, Relaxed);
        if self.table.policy.evicts_stalled {
            self.set_closable_since(Self::now());
        } else if !self.is_busy() {
            self.set_busy();
        }
    }

    /// It takes it again.
    pub(in crate::server) fn write_resumed(self: &Arc<Self>) {
        self.is_stalled.store(false, Relaxed);
        if self.is_awaiting_request.load(Relaxed) {
            self.restore_idle();
        } else {
            self.set_busy();
        }
    }

    /// The connection is closing, and nothing more is served on it.
    pub(in crate::server) fn set_closing(self: &Arc<Self>) {
        self.is_stalled.store(false, Relaxed);
        self.set_closable_since(Self::now());
    }

    /// Whether the next request is waited for; the response before it may not have been sent.
    pub(in crate::server) fn is_awaiting_request(&self) -> bool {
        self.is_awaiting_request.load(Relaxed)
    }

    /// Whether the connection cannot be closed without losing a request or a response.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.word.load(Relaxed) >> FLAG_BITS == BUSY
    }

    /// Waits until the eviction is requested.
    #[cfg(test)]
    pub(in crate::server) async fn eviction_requested(&self) {
        std::future::poll_fn(|cx| self.poll_eviction_request(cx)).await;
    }

    /// Whether the eviction is requested. To be polled while the connection is not busy. The task is also woken when
    /// [`is_head_evicted`](Self::is_head_evicted) changes.
    pub(in crate::server) fn poll_eviction_request(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.word.load(SeqCst) & EVICTION_REQUESTED != 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Wakes the task when the eviction is requested, with [`is_evictable`](Self::is_evictable) set. To be polled after the
    /// connection, when all that can be written is.
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

    /// Whether the connection is to be closed now, unless something has arrived on it.
    pub(in crate::server) fn is_evictable(&self) -> bool {
        self.is_evictable.load(Relaxed) && self.is_eviction_requested()
    }

    /// Whether the eviction was requested and not declined.
    pub(in crate::server) fn is_eviction_requested(&self) -> bool {
        self.word.load(Relaxed) & EVICTION_REQUESTED != 0
    }

    /// Declines a requested eviction, since something has arrived on the connection.
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

    /// Cancels the eviction of a head that has ended meanwhile.
    pub(in crate::server) fn keep_head(&self) {
        self.is_head_evicted.store(false, SeqCst);
    }
}
