//! The eviction order: first the peer with the most connections, then its longest idle connection.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};

use super::state::{BUSY, EVICTION_REQUESTED, FLAG_BITS, NOT_QUEUED, REQUEUE, SlotState};
use crate::message::transport::Peer;

/// Connections that count as those of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::server) enum PeerGroup {
    /// All connections of a listener that does not distinguish peers.
    All,
    /// An IPv4 address, including IPv4-mapped IPv6 addresses.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: one machine may own all addresses with that prefix.
    V6(u64),
    /// The UID of the peer of a Unix socket.
    User(Option<u32>),
    /// The system does not report an address.
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

/// Connections ordered by the time since which they could be closed. An entry's time may be stale: if the connection was used since, its
/// later time is looked up when the entry is first. A request therefore costs nothing here, and a pick costs O(log n), with at most
/// one correction per request.
#[derive(Debug, Default)]
pub(super) struct EvictionQueue {
    groups: HashMap<PeerGroup, GroupEntry>,
    /// The groups with a queued connection, by the number of connections (descending), then by the longest idle time.
    order: BTreeSet<(Reverse<usize>, u64, PeerGroup)>,
}

#[derive(Debug, Default)]
struct GroupEntry {
    /// All connections, including those that are not queued.
    connections: usize,
    queued: BTreeMap<(u64, u64), Arc<SlotState>>,
}

/// The result of [`EvictionQueue::pick`].
#[derive(Debug)]
pub(super) enum Pick {
    /// Eviction of this connection was requested, and it left the queue.
    Requested(Arc<SlotState>),
    /// The next connection can be evicted in `remaining` microseconds.
    InGrace { remaining: u64 },
    /// No connection can be evicted.
    None,
}

impl EvictionQueue {
    /// Adds a connection to the count of `group`.
    pub(super) fn add_connection(&mut self, group: PeerGroup) {
        self.update_group(group, |group| group.connections += 1);
    }

    /// Removes a connection from the count of `group`.
    pub(super) fn remove_connection(&mut self, group: PeerGroup) {
        self.update_group(group, |group| group.connections -= 1);
    }

    /// Queues a connection that could be closed since `at`.
    pub(super) fn insert(&mut self, state: &Arc<SlotState>, at: u64) {
        let queued = Arc::clone(state);
        state.queued_at.store(at, Relaxed);
        self.update_group(state.group, |group| group.queued.insert((at, state.id), queued));
    }

    /// Removes and returns a connection if it is queued.
    pub(super) fn remove(&mut self, state: &SlotState) -> Option<Arc<SlotState>> {
        let at = state.queued_at.swap(NOT_QUEUED, Relaxed);
        if at == NOT_QUEUED {
            return None;
        }
        self.update_group(state.group, |group| group.queued.remove(&(at, state.id)))
    }

    /// Requests the eviction of the next connection that has been idle for `grace` microseconds at `now`.
    pub(super) fn pick(&mut self, now: u64, grace: u64) -> Pick {
        loop {
            let Some((_, queued_at, group)) = self.order.first() else { return Pick::None };
            let queued = self.groups.get(group).and_then(|group| group.queued.first_key_value());
            let (_, state) = queued.expect("a group in the order has a queued connection");
            let (state, queued_at) = (Arc::clone(state), *queued_at);
            let word = state.word.load(SeqCst);
            let at = word >> FLAG_BITS;
            if at == BUSY {
                if state.word.compare_exchange(word, word | REQUEUE, SeqCst, SeqCst).is_ok() {
                    self.remove(&state);
                }
            } else if at != queued_at {
                self.remove(&state);
                self.insert(&state, at);
            } else if now < at.saturating_add(grace) {
                return Pick::InGrace { remaining: at.saturating_add(grace) - now };
            } else if state.word.compare_exchange(word, word | EVICTION_REQUESTED, SeqCst, SeqCst).is_ok() {
                self.remove(&state);
                return Pick::Requested(state);
            }
        }
    }

    /// Updates a group and its position in the order.
    fn update_group<R>(&mut self, peer_group: PeerGroup, update: impl FnOnce(&mut GroupEntry) -> R) -> R {
        let group = self.groups.entry(peer_group).or_default();
        if let Some(key) = group.key(peer_group) {
            self.order.remove(&key);
        }
        let result = update(group);
        if let Some(key) = group.key(peer_group) {
            self.order.insert(key);
        } else if group.connections == 0 {
            self.groups.remove(&peer_group);
        }
        result
    }
}

impl GroupEntry {
    fn key(&self, peer_group: PeerGroup) -> Option<(Reverse<usize>, u64, PeerGroup)> {
        self.queued.first_key_value().map(|((at, _), _)| (Reverse(self.connections), *at, peer_group))
    }
}
