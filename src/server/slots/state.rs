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

use super::{PeerGroup, Table};
#[cfg(test)]
use super::{Policy, Slots};

/// The request to give way; set only while the connection could be closed.
pub(super) const ASKED: u64 = 1;

/// The connection is not in the queue and has to return to it when it becomes idle.
pub(super) const ASIDE: u64 = 2;

/// The number of bits for flags in a word. The rest is a time in microseconds, or [`BUSY`].
pub(super) const FLAG_BITS: u32 = 2;

/// The time of a connection that cannot be closed without losing a request.
pub(super) const BUSY: u64 = u64::MAX >> FLAG_BITS;

/// The recorded time of a connection that is not in the queue.
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
pub(in crate::server) struct State {
    pub(super) id: u64,
    pub(super) group: PeerGroup,
    pub(super) table: Arc<Table>,
    /// When the connection was accepted.
    opened: u64,
    /// The time since which it could be closed, or [`BUSY`]; and the flags.
    pub(super) word: AtomicU64,
    /// The time by which the queue has it; written under the queue's lock.
    pub(super) recorded: AtomicU64,
    /// When it was last idle.
    idle_at: AtomicU64,
    /// The next request is waited for; the response before it may not be sent.
    is_awaiting: AtomicBool,
    /// A response is not taken by the client.
    is_stalled: AtomicBool,
    /// It was asked, and its task found nothing in flight.
    gives_way: AtomicBool,
    /// Its unfinished head has to go, since there are too many bytes of such heads.
    is_expelled: AtomicBool,
    pub(super) waker: AtomicWaker,
}

impl State {
    pub(super) fn new(id: u64, group: PeerGroup, now: u64, table: Arc<Table>) -> Self {
        let (is_stalled, gives_way, is_expelled, waker) = Default::default();
        let is_awaiting = AtomicBool::new(true);
        Self {
            id,
            group,
            table,
            opened: now,
            word: AtomicU64::new(now << FLAG_BITS),
            recorded: AtomicU64::new(NOT_QUEUED),
            idle_at: AtomicU64::new(now),
            is_awaiting,
            is_stalled,
            gives_way,
            is_expelled,
            waker,
        }
    }

    /// A state that no acceptor knows of.
    #[cfg(test)]
    pub(in crate::server) fn detached() -> Arc<Self> {
        let policy = Policy { grace: std::time::Duration::ZERO, evicts_stalled: false };
        let slot = Slots::new(1, policy).try_acquire(PeerGroup::All).expect("it is the first");
        Arc::clone(slot.state())
    }

    /// When the connection was accepted, in microseconds since a fixed moment.
    pub(in crate::server) fn opened(&self) -> u64 {
        self.opened
    }

    /// Now, on the clock of [`opened`](Self::opened).
    pub(in crate::server) fn now() -> u64 {
        micros(Instant::now())
    }

    /// A request has begun.
    pub(in crate::server) fn begin(self: &Arc<Self>) {
        self.is_awaiting.store(false, Relaxed);
        self.busy();
    }

    fn busy(&self) {
        let before = self.word.swap(BUSY << FLAG_BITS, SeqCst);
        if before & (ASKED | ASIDE) != 0 {
            self.decline(before);
        }
    }

    /// The connection waits for a request since `at`, and nothing of one has arrived.
    pub(in crate::server) fn idle(self: &Arc<Self>, at: Instant) {
        self.idle_since(micros(at));
    }

    fn idle_since(self: &Arc<Self>, at: u64) {
        self.is_awaiting.store(true, Relaxed);
        self.idle_at.store(at, Relaxed);
        if !self.is_stalled.load(Relaxed) {
            self.publish(at);
        }
    }

    /// The connection is idle, as it was before something arrived that was no part of a request.
    pub(in crate::server) fn still_idle(self: &Arc<Self>) {
        self.idle_since(self.idle_at.load(Relaxed));
    }

    /// A head has arrived in part, since the time `since`.
    pub(in crate::server) fn in_head(self: &Arc<Self>, since: u64) {
        if !self.is_stalled.load(Relaxed) {
            self.publish(since);
        }
    }

    fn publish(self: &Arc<Self>, at: u64) {
        let before = self.word.swap(at << FLAG_BITS, SeqCst);
        if before & ASKED != 0 {
            self.word.fetch_or(ASKED, SeqCst);
        }
        if before & ASIDE != 0 {
            self.table.lock().queue.insert(self, at);
            self.table.changed.notify_waiters();
        }
    }

    /// The client does not take a response.
    pub(in crate::server) fn write_stalled(self: &Arc<Self>) {
        self.is_stalled.store(true, Relaxed);
        if self.table.policy.evicts_stalled {
            self.publish(Self::now());
        } else if !self.is_busy() {
            self.busy();
        }
    }

    /// It takes it again.
    pub(in crate::server) fn write_resumed(self: &Arc<Self>) {
        self.is_stalled.store(false, Relaxed);
        if self.is_awaiting.load(Relaxed) {
            self.still_idle();
        } else {
            self.busy();
        }
    }

    /// The connection is closing, and nothing more is served on it.
    pub(in crate::server) fn closing(self: &Arc<Self>) {
        self.is_stalled.store(false, Relaxed);
        self.publish(Self::now());
    }

    /// Whether the next request is waited for; the response before it may not have been sent.
    pub(in crate::server) fn is_awaiting(&self) -> bool {
        self.is_awaiting.load(Relaxed)
    }

    /// Whether the connection cannot be closed without losing a request or a response.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.word.load(Relaxed) >> FLAG_BITS == BUSY
    }

    /// Waits until the connection is asked to give way.
    #[cfg(test)]
    pub(in crate::server) async fn asked(&self) {
        std::future::poll_fn(|cx| self.poll_asked(cx)).await;
    }

    /// Whether the connection is asked to give way. To be polled while it is not busy. The task is also woken when [`is_expelled`](Self::is_expelled)
    /// changes.
    pub(in crate::server) fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.word.load(SeqCst) & ASKED != 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Has the connection polled once more when it is to give way, with [`gives_way`](Self::gives_way) set. To be polled after
    /// the connection, when all that can be written is.
    pub(in crate::server) fn watch(&self, cx: &Context<'_>) {
        if self.is_busy() {
            return;
        }
        let is_asked = self.poll_asked(cx).is_ready();
        let is_stalled = self.is_stalled.load(Relaxed) && !self.table.policy.evicts_stalled;
        let gives_way = is_asked && !is_stalled && !self.gives_way.swap(true, Relaxed);
        if gives_way || self.is_expelled() {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether the connection is to be closed now, unless something has arrived on it.
    pub(in crate::server) fn gives_way(&self) -> bool {
        self.gives_way.load(Relaxed) && self.is_asked()
    }

    /// Whether the connection was asked to give way and has not answered.
    pub(in crate::server) fn is_asked(&self) -> bool {
        self.word.load(Relaxed) & ASKED != 0
    }

    /// Something has arrived on a connection that was asked to give way: it does not.
    pub(in crate::server) fn keep(&self) {
        let before = self.word.swap(BUSY << FLAG_BITS, SeqCst);
        self.decline(before);
    }

    /// Returns to the queue at the next [`publish`](Self::publish). `before` is the word before it became busy.
    fn decline(&self, before: u64) {
        self.gives_way.store(false, Relaxed);
        let mut inner = self.table.lock();
        self.word.fetch_or(ASIDE, SeqCst);
        inner.queue.remove(self);
        if before & ASKED != 0 {
            inner.asked -= 1;
            drop(inner);
            self.table.changed.notify_waiters();
        }
    }

    /// Has the connection give up its unfinished head.
    pub(in crate::server) fn expel(&self) {
        self.is_expelled.store(true, SeqCst);
        self.waker.wake();
    }

    /// Whether it has to.
    pub(in crate::server) fn is_expelled(&self) -> bool {
        self.is_expelled.load(Relaxed)
    }

    /// The head has ended before the connection noticed.
    pub(in crate::server) fn spare(&self) {
        self.is_expelled.store(false, SeqCst);
    }
}
