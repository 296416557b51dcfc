use std::net::SocketAddr;

use tokio::time::timeout;

use super::*;
use crate::message::transport::Peer;

const NO_GRACE: EvictionPolicy = EvictionPolicy { grace: Duration::ZERO, evicts_stalled: false };

/// A time that only a broken test reaches.
const DEADLINE: Duration = Duration::from_secs(60);

fn group(address: &str) -> PeerGroup {
    PeerGroup::of(Peer::Tcp(Some(address.parse::<SocketAddr>().unwrap())))
}

/// Slots that are all taken, by connections of the peers with these addresses, idle since the time of their position.
fn occupied(peers: &[&str]) -> (Slots, Vec<Slot>) {
    let slots = Slots::new(peers.len(), NO_GRACE);
    let occupied: Vec<Slot> = peers.iter().map(|peer| slots.try_acquire(group(peer)).unwrap()).collect();
    assert!(slots.try_acquire(PeerGroup::All).is_none());
    // The moment that times count from may be less than so long ago.
    for (number, slot) in (1_u64..).zip(&occupied) {
        let state = slot.state();
        let mut table = slots.0.lock();
        table.queue.remove(state);
        state.word.store(number << FLAG_BITS, SeqCst);
        table.queue.insert(state, number);
    }
    (slots, occupied)
}

/// Asks the next connection that has been idle for `grace` microseconds at `now`, and says which.
fn request_eviction(slots: &Slots, now: u64, grace: u64) -> Option<u64> {
    let mut table = slots.0.lock();
    match table.queue.pick(now, grace) {
        Pick::Requested(state) => {
            table.requested += 1;
            Some(state.id)
        }
        Pick::InGrace { .. } | Pick::None => None,
    }
}

/// The same, however long it has been idle.
fn request_next(slots: &Slots) -> Option<u64> {
    request_eviction(slots, BUSY, 0)
}

#[test]
fn the_longest_idle_connection_is_evicted_and_no_busy_one() {
    let (slots, occupied) = occupied(&["127.0.0.1:1"; 5]);
    occupied[0].state().begin_request();
    occupied[1].state().begin_request();
    // It was used and is idle again: no longer the one that is idle longest.
    occupied[1].state().set_in_head(10);
    occupied[3].state().set_in_head(20);
    let requested: Vec<_> = (0..5).map(|_| request_next(&slots)).collect();
    assert_eq!(requested, [Some(2), Some(4), Some(1), Some(3), None]);
    // It returns by itself.
    occupied[0].state().set_in_head(30);
    assert_eq!([request_next(&slots), request_next(&slots)], [Some(0), None]);
}

#[test]
fn the_peer_with_most_connections_loses_one_first() {
    let (slots, mut occupied) = occupied(&[
        "10.0.0.1:1",
        "[::ffff:10.0.0.1]:2",
        "10.0.0.2:1",
        "10.0.0.2:2",
        "10.0.0.2:3",
        "[2001:db8::1]:1",
        "[2001:db8::2]:1",
        "[2001:db8:0:0:ffff::3]:1",
        "[2001:db8:0:1::1]:1",
    ]);
    // Two peers have three: the one with the longer idle connection.
    assert_eq!(request_next(&slots), Some(2));
    drop(occupied.remove(2));
    assert_eq!(request_next(&slots), Some(5));
    drop(occupied.remove(4));
    // Three have two.
    assert_eq!(request_next(&slots), Some(0));
    drop(occupied.remove(0));
    assert_eq!([request_next(&slots), request_next(&slots)], [Some(3), Some(4)]);
}

#[tokio::test]
async fn a_new_connection_gets_the_slot_of_an_evicted_one() {
    let (slots, mut occupied) = occupied(&["10.0.0.1:1"; 3]);
    let waiter = slots.clone();
    let mut waiter = tokio::spawn(async move { waiter.acquire(PeerGroup::All, || panic!("two are idle")).await });
    occupied[0].state().eviction_requested().await;
    // A request has arrived on it meanwhile, so the eviction of another one is requested, and only that.
    occupied[0].state().begin_request();
    occupied[1].state().eviction_requested().await;
    assert!(!occupied[2].state().is_eviction_requested() && !waiter.is_finished());
    drop(occupied.remove(1));
    let _slot = timeout(DEADLINE, &mut waiter).await.unwrap().unwrap();
    assert!(!occupied[1].state().is_eviction_requested());
    let table = slots.0.lock();
    assert_eq!((table.requested, table.waiters), (0, 0));
}

#[tokio::test]
async fn a_new_connection_waits_for_the_first_that_becomes_idle_or_ends() {
    for closes in [false, true] {
        let (slots, mut occupied) = occupied(&["10.0.0.1:1"; 2]);
        occupied.iter().for_each(|slot| slot.state().begin_request());
        let (report, busy) = tokio::sync::oneshot::channel();
        let waiter = slots.clone();
        let mut waiter = tokio::spawn(async move { waiter.acquire(PeerGroup::All, || report.send(()).unwrap()).await });
        busy.await.unwrap();
        if !closes {
            occupied[1].state().set_idle(Instant::now());
            timeout(DEADLINE, occupied[1].state().eviction_requested()).await.unwrap();
        }
        drop(occupied.remove(1));
        let _slot = timeout(DEADLINE, &mut waiter).await.unwrap().unwrap();
    }
}

#[test]
fn a_connection_has_some_time_for_its_first_request() {
    let (slots, _occupied) = occupied(&["10.0.0.1:1"; 2]);
    assert_eq!(request_eviction(&slots, 100, 250), None);
    assert!(matches!(slots.0.lock().queue.pick(100, 250), Pick::InGrace { remaining: 151 }));
    assert_eq!([request_eviction(&slots, 251, 250), request_eviction(&slots, 251, 250)], [Some(0), None]);
}

#[test]
fn a_stalled_response_prevents_eviction_unless_the_policy_allows_it() {
    for evicts_stalled in [false, true] {
        let slots = Slots::new(1, EvictionPolicy { evicts_stalled, ..NO_GRACE });
        let slot = slots.try_acquire(PeerGroup::All).unwrap();
        slot.state().begin_request();
        slot.state().write_stalled();
        // Hyper waits for the next request before the response has been taken.
        slot.state().set_idle(Instant::now());
        assert_eq!(request_next(&slots).is_some(), evicts_stalled);
        slot.state().write_resumed();
        if !evicts_stalled {
            assert!(request_next(&slots).is_some());
        }
    }
}
