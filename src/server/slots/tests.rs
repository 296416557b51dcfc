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

/// Fully occupied slots, with one connection from each address in `peers`, idle since its position in the list.
fn occupied(peers: &[&str]) -> (Slots, Vec<Slot>) {
    let slots = Slots::new(peers.len(), NO_GRACE);
    let occupied: Vec<Slot> = peers.iter().map(|peer| slots.try_acquire(group(peer)).unwrap()).collect();
    assert!(slots.try_acquire(PeerGroup::All).is_none());
    // The epoch may be more recent than the times that the test needs.
    for (number, slot) in (1_u64..).zip(&occupied) {
        let state = slot.state();
        let mut table = slots.0.lock();
        table.queue.remove(state);
        state.word.store(number << FLAG_BITS, SeqCst);
        table.queue.insert(state, number);
    }
    (slots, occupied)
}

/// Requests the next eviction, of a connection that has been idle for `grace` microseconds at `now`. Returns its id.
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

/// The same, for any idle time.
fn request_next(slots: &Slots) -> Option<u64> {
    request_eviction(slots, BUSY, 0)
}

#[test]
fn the_longest_idle_connection_is_evicted_never_a_busy_one() {
    let (slots, occupied) = occupied(&["127.0.0.1:1"; 5]);
    occupied[0].state().begin_request();
    occupied[1].state().begin_request();
    // Used and idle again, so it is no longer the longest idle one.
    occupied[1].state().set_in_head(10);
    occupied[3].state().set_in_head(20);
    let requested: Vec<_> = (0..5).map(|_| request_next(&slots)).collect();
    assert_eq!(requested, [Some(2), Some(4), Some(1), Some(3), None]);
    // It is requeued when it becomes idle.
    occupied[0].state().set_in_head(30);
    assert_eq!([request_next(&slots), request_next(&slots)], [Some(0), None]);
}

#[test]
fn the_peer_with_the_most_connections_loses_one_first() {
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
    // Two peers have three each: the one with the longer idle connection loses one.
    assert_eq!(request_next(&slots), Some(2));
    drop(occupied.remove(2));
    assert_eq!(request_next(&slots), Some(5));
    drop(occupied.remove(4));
    // Now three peers have two each.
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
    // A request has arrived on it, so another eviction is requested, and only one.
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
async fn a_new_connection_waits_until_one_is_idle_or_closed() {
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
fn a_connection_has_a_grace_time_for_its_first_request() {
    let (slots, _occupied) = occupied(&["10.0.0.1:1"; 2]);
    assert_eq!(request_eviction(&slots, 100, 250), None);
    assert!(matches!(slots.0.lock().queue.pick(100, 250), Pick::InGrace { remaining: 151 }));
    assert_eq!([request_eviction(&slots, 251, 250), request_eviction(&slots, 251, 250)], [Some(0), None]);
}

#[test]
fn a_stalled_response_is_evicted_only_if_the_policy_says_so() {
    for evicts_stalled in [false, true] {
        let slots = Slots::new(1, EvictionPolicy { evicts_stalled, ..NO_GRACE });
        let slot = slots.try_acquire(PeerGroup::All).unwrap();
        slot.state().begin_request();
        slot.state().write_stalled();
        // hyper waits for the next request before the client has read the response.
        slot.state().set_idle(Instant::now());
        assert_eq!(request_next(&slots).is_some(), evicts_stalled);
        slot.state().write_resumed();
        if !evicts_stalled {
            assert!(request_next(&slots).is_some());
        }
    }
}
