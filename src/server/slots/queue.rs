//! The order in which connections give way: those of the peer that has most of them first, and of these the longest idle.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};

use super::state::{ASIDE, ASKED, BUSY, FLAG_BITS, NOT_QUEUED, State};
use crate::message::transport::Peer;

/// Connections that count as one peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::server) enum PeerGroup {
    /// All of a listener that does not distinguish.
    All,
    /// An IPv4 address, also where it is written as one of IPv6.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: one machine can have all addresses below them.
    V6(u64),
    /// The user at the other end of a Unix socket.
    User(Option<u32>),
    /// One whose address the system does not say.
    Unknown,
}

impl PeerGroup {
    /// The group of `peer`.
    pub(in crate::server) fn of(peer: Peer) -> Self {
        match peer {
            Peer::Unix(uid) => Self::User(uid),
            Peer::Tcp(None) => Self::Unknown,
            Peer::Tcp(Some(address)) => match address.ip().to_canonical() {
                IpAddr::V4(address) => Self::V4(address),
                IpAddr::V6(address) => Self::V6((u128::from(address) >> 64) as u64),
            },
        }
    }
}

/// Connections by the time since which they could be closed, as far as it is known: a connection that was used since has a later
/// time, which is looked up when its turn comes. So a request costs nothing here, and a pick costs O(log n), counting against each
/// request at most one correction.
#[derive(Debug, Default)]
pub(super) struct EvictionQueue {
    groups: HashMap<PeerGroup, Group>,
    /// The groups with a queued connection: the one with most connections first, then the one with the longest idle connection.
    order: BTreeSet<(Reverse<usize>, u64, PeerGroup)>,
}

#[derive(Debug, Default)]
struct Group {
    /// All connections, those that are not queued included.
    open: usize,
    queued: BTreeMap<(u64, u64), Arc<State>>,
}

/// What is found when a connection is to give way.
#[derive(Debug)]
pub(super) enum Pick {
    /// This one was asked, and is not queued any more.
    Asked(Arc<State>),
    /// The next one is to be asked after `left` microseconds.
    Young { left: u64 },
    /// None can.
    None,
}

impl EvictionQueue {
    /// Counts a connection of `group`.
    pub(super) fn opened(&mut self, group: PeerGroup) {
        self.change(group, |group| group.open += 1);
    }

    /// Counts the end of one.
    pub(super) fn closed(&mut self, group: PeerGroup) {
        self.change(group, |group| group.open -= 1);
    }

    /// Queues a connection as one that could be closed since `at`.
    pub(super) fn insert(&mut self, state: &Arc<State>, at: u64) {
        let queued = Arc::clone(state);
        state.recorded.store(at, Relaxed);
        self.change(state.group, |group| group.queued.insert((at, state.id), queued));
    }

    /// Takes a connection out, if it is in.
    pub(super) fn remove(&mut self, state: &State) -> Option<Arc<State>> {
        let at = state.recorded.swap(NOT_QUEUED, Relaxed);
        if at == NOT_QUEUED {
            return None;
        }
        self.change(state.group, |group| group.queued.remove(&(at, state.id)))
    }

    /// Asks the next connection to give way that has been idle for `grace` microseconds at `now`.
    pub(super) fn pick(&mut self, now: u64, grace: u64) -> Pick {
        loop {
            let Some((_, recorded, group)) = self.order.first() else { return Pick::None };
            let queued = self.groups.get(group).and_then(|group| group.queued.first_key_value());
            let (_, state) = queued.expect("a group in the order has a queued connection");
            let (state, recorded) = (Arc::clone(state), *recorded);
            let word = state.word.load(SeqCst);
            let at = word >> FLAG_BITS;
            if at == BUSY {
                if state.word.compare_exchange(word, word | ASIDE, SeqCst, SeqCst).is_ok() {
                    self.remove(&state);
                }
            } else if at != recorded {
                self.remove(&state);
                self.insert(&state, at);
            } else if now < at.saturating_add(grace) {
                return Pick::Young { left: at.saturating_add(grace) - now };
            } else if state.word.compare_exchange(word, word | ASKED, SeqCst, SeqCst).is_ok() {
                self.remove(&state);
                return Pick::Asked(state);
            }
        }
    }

    /// Changes a group and gives it its new place in the order.
    fn change<R>(&mut self, name: PeerGroup, change: impl FnOnce(&mut Group) -> R) -> R {
        let group = self.groups.entry(name).or_default();
        if let Some(key) = group.key(name) {
            self.order.remove(&key);
        }
        let result = change(group);
        if let Some(key) = group.key(name) {
            self.order.insert(key);
        } else if group.open == 0 {
            self.groups.remove(&name);
        }
        result
    }
}

impl Group {
    fn key(&self, name: PeerGroup) -> Option<(Reverse<usize>, u64, PeerGroup)> {
        self.queued.first_key_value().map(|((at, _), _)| (Reverse(self.open), *at, name))
    }
}
