//! Slots for connections under a limit. When all are in use, the connection that has been idle longest gives way to a new one.
//!
//! The acceptor and the worker of a connection share one word, [`State::word`]: since when the connection could be closed without
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

pub(super) use self::{queue::PeerGroup, state::State};
use self::{
    queue::{EvictionQueue, Pick},
    state::{ASKED, BUSY, FLAG_BITS, micros},
};

/// How long a new connection waits for one that has been idle for [`Policy::grace`]; then any idle one gives way. Without this,
/// clients that make a request on each of their connections in shorter intervals would keep all others out.
const GRACE_LIMIT: Duration = Duration::from_millis(500);

/// How long the task of a connection may take to give way or to decline, before the next connection is asked. It takes
/// microseconds, unless its worker is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// How often a new connection looks for one to close while all are busy. Those that become idle announce it; this is in addition.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which connections give way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// The shortest time that a connection is idle before it gives way, while others are: the first request of a new connection may
    /// be on its way.
    pub(super) grace: Duration,
    /// Whether a connection whose client does not read a response gives way too.
    pub(super) evicts_stalled: bool,
}

/// The slots of one or more listeners.
#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<Table>);

#[derive(Debug)]
struct Table {
    policy: Policy,
    permits: Arc<Semaphore>,
    inner: Mutex<Inner>,
    /// A connection has answered, or has become idle that was busy when it was looked at.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queue: EvictionQueue,
    next_id: u64,
    /// New connections that wait for a slot.
    waiting: usize,
    /// Connections that were asked and have not answered.
    asked: usize,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a new connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A connection was asked to give way.
    Answer,
    /// The longest idle connection has not been idle for long enough.
    Grace(Duration),
    /// All connections are busy.
    Idle,
}

impl Slots {
    /// `limit` slots.
    pub(super) fn new(limit: usize, policy: Policy) -> Self {
        // The first call defines the moment that times count from.
        let _ = micros(Instant::now());
        let permits = Arc::new(Semaphore::new(limit));
        Self(Arc::new(Table { policy, permits, inner: Mutex::default(), changed: Notify::new() }))
    }

    /// A slot, if one is free.
    pub(super) fn try_acquire(&self, group: PeerGroup) -> Option<Slot> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok()?;
        Some(self.slot(permit, group))
    }

    /// A slot, which another connection may have to give up. `all_busy` is called once when none can, and a slot is waited for.
    ///
    /// # Cancel safety
    ///
    /// A connection may have given way in vain.
    pub(super) async fn acquire(&self, group: PeerGroup, all_busy: impl FnOnce()) -> Slot {
        let mut permit = std::pin::pin!(Arc::clone(&self.0.permits).acquire_owned());
        let _waiting = Waiting::new(&self.0);
        let (mut all_busy, started, mut unanswered) = (Some(all_busy), Instant::now(), false);
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let grace = if started.elapsed() < GRACE_LIMIT { self.0.policy.grace } else { Duration::ZERO };
            let wait = self.ask(grace, unanswered);
            let longest = match wait {
                Wait::Answer => ANSWER_TIMEOUT,
                Wait::Grace(left) => left,
                Wait::Idle => {
                    if let Some(all_busy) = all_busy.take() {
                        all_busy();
                    }
                    LOOK_AGAIN
                }
            };
            unanswered = false;
            select! {
                biased;
                permit = &mut permit => return self.slot(permit.expect("the semaphore is never closed"), group),
                () = changed => {}
                () = sleep(longest) => unanswered = wait == Wait::Answer,
            }
        }
    }

    /// Asks a connection to give way, if fewer were asked than are waited for, or if one that was asked has not answered in time.
    fn ask(&self, grace: Duration, unanswered: bool) -> Wait {
        let mut inner = self.0.lock();
        if inner.asked >= inner.waiting && !unanswered {
            return Wait::Answer;
        }
        let now = micros(Instant::now());
        match inner.queue.pick(now, grace.as_micros().try_into().unwrap_or(BUSY)) {
            Pick::Asked(state) => {
                inner.asked += 1;
                drop(inner);
                state.waker.wake();
                Wait::Answer
            }
            Pick::Young { left } => Wait::Grace(Duration::from_micros(left)),
            Pick::None => Wait::Idle,
        }
    }

    fn slot(&self, permit: OwnedSemaphorePermit, group: PeerGroup) -> Slot {
        let now = micros(Instant::now());
        let mut inner = self.0.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        let state = Arc::new(State::new(id, group, now, Arc::clone(&self.0)));
        inner.queue.opened(group);
        inner.queue.insert(&state, now);
        Slot { state, permit: Some(permit) }
    }
}

/// Counts a new connection that waits.
struct Waiting<'a>(&'a Table);

impl<'a> Waiting<'a> {
    fn new(table: &'a Table) -> Self {
        table.lock().waiting += 1;
        Self(table)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// The slot of one connection. Dropping it, which is to be the last that happens to a connection, frees it.
#[derive(Debug)]
pub(super) struct Slot {
    state: Arc<State>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// What the connection shares with the acceptor.
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = &self.state;
        let mut inner = state.table.lock();
        let was_asked = state.word.swap(BUSY << FLAG_BITS, SeqCst) & ASKED != 0;
        inner.asked = inner.asked.saturating_sub(was_asked.into());
        inner.queue.remove(state);
        inner.queue.closed(state.group);
        drop(inner);
        // First the permit, so that the connection that it is for does not ask another one.
        self.permit = None;
        if was_asked {
            state.table.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
