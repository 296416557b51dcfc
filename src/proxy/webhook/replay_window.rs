//! Stores which events the service has acknowledged, so that a replay is not forwarded again.
//!
//! An event is identified by a hash of its body, which contains the event's id; a replay has the same body. An event enters the window only
//! when the service has acknowledged it, so that the vendor can resend one that was not delivered.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{
    process::shared_state::{Damaged, SharedState},
    token::Clock,
};

/// The maximum number of events in the window. The oldest are removed first.
const MAX_EVENTS: usize = 10_000;

/// The maximum age of an event in the window. The vendor resends an event for three days.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The format version of the file.
const VERSION: u32 = 1;

/// Identifies an event. Half of a SHA-256 hash is enough: only a holder of the key can create colliding events, because both need a signature.
type EventHash = [u8; 16];

/// The window, shared by all connections.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    /// When each event was acknowledged, in seconds since the Unix epoch.
    events: HashMap<EventHash, u64>,
    /// The same events, the oldest first.
    by_time: BTreeSet<(u64, EventHash)>,
    /// Events that are being forwarded.
    pending: HashSet<EventHash>,
    /// The number of changes.
    changes: u64,
    /// The value of `changes` at the last merge.
    merged: u64,
    /// The value of `changes` that the file has.
    saved: u64,
}

/// How to handle an event.
pub(super) enum Admitted {
    /// The service acknowledged it before.
    Replay,
    /// It is being forwarded.
    InProgress,
    /// It has to be forwarded.
    New(Pending),
}

/// An event that is being forwarded. Once it is dropped, the event can be forwarded again, unless it was acknowledged.
pub(super) struct Pending {
    state: Arc<Mutex<State>>,
    hash: EventHash,
    clock: Clock,
}

/// The content of the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    version: u32,
    /// Hash and time of each event, the oldest first.
    events: Vec<(String, u64)>,
}

impl ReplayWindow {
    /// An empty window. `clock` determines the age of events.
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// Looks up the event with this `body`, and marks it as pending if it has to be forwarded.
    pub(super) fn admit(&self, body: &[u8]) -> Admitted {
        let hash = event_hash(body);
        let mut state = lock(&self.state);
        state.prune(self.clock.unix_time());
        if state.events.contains_key(&hash) {
            Admitted::Replay
        } else if !state.pending.insert(hash) {
            Admitted::InProgress
        } else {
            Admitted::New(Pending { state: Arc::clone(&self.state), hash, clock: self.clock })
        }
    }
}

impl Pending {
    /// Adds the event to the window, because the service has acknowledged it.
    pub(super) fn acknowledged(&self) {
        let mut state = lock(&self.state);
        state.insert(self.hash, self.clock.unix_time().as_secs());
        state.prune(self.clock.unix_time());
        state.changes += 1;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.state).pending.remove(&self.hash);
    }
}

impl State {
    /// Adds an event. If it is already there, keeps the later time.
    fn insert(&mut self, hash: EventHash, time: u64) {
        let earlier = self.events.get(&hash).copied();
        if earlier.is_some_and(|earlier| earlier >= time) {
            return;
        }
        if let Some(earlier) = earlier {
            self.by_time.remove(&(earlier, hash));
        }
        self.events.insert(hash, time);
        self.by_time.insert((time, hash));
    }

    /// Removes events that are too old, and the oldest ones above [`MAX_EVENTS`].
    fn prune(&mut self, now: Duration) {
        let oldest = now.saturating_sub(MAX_AGE).as_secs();
        while let Some((time, hash)) = self.by_time.first().copied()
            && (time < oldest || self.by_time.len() > MAX_EVENTS)
        {
            self.by_time.remove(&(time, hash));
            self.events.remove(&hash);
        }
    }

    /// Adds the events of the file content `found`.
    fn absorb(&mut self, found: &[u8]) -> Result<(), Damaged> {
        let layout: Layout = serde_json::from_slice(found).map_err(|_| Damaged)?;
        let parse = |(text, time): &(String, u64)| {
            let mut hash = EventHash::default();
            let length = base16ct::lower::decode(text, &mut hash).ok()?.len();
            (length == hash.len()).then_some((hash, *time))
        };
        let events: Option<Vec<_>> = layout.events.iter().map(parse).collect();
        let events = events.filter(|_| layout.version == VERSION).ok_or(Damaged)?;
        events.into_iter().for_each(|(hash, time)| self.insert(hash, time));
        Ok(())
    }
}

impl SharedState for ReplayWindow {
    fn file_name(&self) -> &'static str {
        "webhooks.json"
    }

    fn has_changed(&self) -> bool {
        let state = lock(&self.state);
        state.changes != state.saved
    }

    fn merge(&self, found: Option<&[u8]>) -> Vec<u8> {
        let mut state = lock(&self.state);
        // A damaged file is overwritten.
        let _ = found.map(|found| state.absorb(found));
        state.prune(self.clock.unix_time());
        state.merged = state.changes;
        let hex = |hash: &EventHash| format!("{:x}", base16ct::HexDisplay(hash));
        let events = state.by_time.iter().map(|(time, hash)| (hex(hash), *time)).collect();
        serde_json::to_vec(&Layout { version: VERSION, events }).expect("strings and numbers are always serialisable")
    }

    fn saved(&self) {
        let mut state = lock(&self.state);
        state.saved = state.merged;
    }

    fn load(&self, found: &[u8]) -> Result<(), Damaged> {
        let mut state = lock(&self.state);
        state.absorb(found)?;
        state.prune(self.clock.unix_time());
        Ok(())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn event_hash(body: &[u8]) -> EventHash {
    let mut hash = EventHash::default();
    hash.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
    hash
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    fn window() -> ReplayWindow {
        ReplayWindow::new(Clock::Tokio(Instant::now()))
    }

    /// Whether an event has to be forwarded. If so, acknowledges it.
    fn forwards(window: &ReplayWindow, body: &[u8]) -> bool {
        match window.admit(body) {
            Admitted::New(pending) => {
                pending.acknowledged();
                true
            }
            Admitted::Replay => false,
            Admitted::InProgress => panic!("nothing is pending"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_a_replay_only_after_it_was_acknowledged() {
        let window = window();
        let Admitted::New(pending) = window.admit(b"one") else { panic!("it is new") };
        assert!(matches!(window.admit(b"one"), Admitted::InProgress));
        assert!(!window.has_changed());
        drop(pending);
        assert!(forwards(&window, b"one") && window.has_changed());
        assert!(!forwards(&window, b"one"));
        assert!(forwards(&window, b"two"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_bounded_in_number_and_time() {
        let window = window();
        let body = |number: usize| number.to_string().into_bytes();
        for number in 0..=MAX_EVENTS {
            assert!(forwards(&window, &body(number)));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lock(&window.state).events.len(), MAX_EVENTS);
        assert!(!forwards(&window, &body(1)) && forwards(&window, &body(0)), "the oldest was removed");
        advance(MAX_AGE + Duration::from_secs(1)).await;
        assert!(forwards(&window, &body(5)));
        assert_eq!(lock(&window.state).events.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_has_the_events_of_all_processes() {
        let (one, other) = (window(), window());
        assert!(forwards(&one, b"a") && forwards(&other, b"b"));
        let content = other.merge(Some(&one.merge(None)));
        assert!(other.has_changed());
        other.saved();
        assert!(!other.has_changed());
        assert!(!forwards(&other, b"a"));
        let next = window();
        next.load(&content).unwrap();
        assert!(!forwards(&next, b"a") && !forwards(&next, b"b") && forwards(&next, b"c"));
        assert!(content.len() < 200, "{}", String::from_utf8_lossy(&content));
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_file_is_replaced() {
        let window = window();
        assert!(forwards(&window, b"a"));
        for damaged in [
            &b""[..],
            b"{}",
            br#"{"version":2,"events":[]}"#,
            br#"{"version":1,"events":[["00",1]]}"#,
            br#"{"version":1,"events":[["zz000000000000000000000000000000",1]]}"#,
            br#"{"version":1,"events":[["00000000000000000000000000000000",-1]]}"#,
        ] {
            assert_eq!(window.load(damaged), Err(Damaged));
            assert!(window.merge(Some(damaged)).starts_with(br#"{"version":1,"events":[[""#));
        }
        assert!(!forwards(&window, b"a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_file_is_below_the_limit_of_state_files() {
        let window = window();
        for number in 0..MAX_EVENTS {
            assert!(forwards(&window, &number.to_be_bytes()));
        }
        assert!(window.merge(None).len() < 1024 * 1024);
    }
}
