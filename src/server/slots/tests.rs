use std::net::SocketAddr;

use tokio::time::timeout;

use super::*;
use crate::message::transport::Peer;

const NO_GRACE: Policy = Policy { grace: Duration::ZERO, evicts_stalled: false };

/// A time that only a broken test reaches.
const DEADLINE: Duration = Duration::from_secs(60);

fn group(address: &str) -> PeerGroup {
    PeerGroup::of(Peer::Tcp(Some(address.parse::<SocketAddr>().unwrap())))
}

/// Slots that are all taken, by connections of the peers with these addresses, idle since the time of their position.
fn taken(peers: &[&str]) -> (Slots, Vec<Slot>) {
    let slots = Slots::new(peers.len(), NO_GRACE);
    let taken: Vec<Slot> = peers.iter().map(|peer| slots.try_acquire(group(peer)).unwrap()).collect();
    assert!(slots.try_acquire(PeerGroup::All).is_none());
    // The moment that times count from may be less than so long ago.
    for (number, slot) in (1_u64..).zip(&taken) {
        let state = slot.state();
        let mut inner = slots.0.lock();
        inner.queue.remove(state);
        state.word.store(number << FLAG_BITS, SeqCst);
        inner.queue.insert(state, number);
    }
    (slots, taken)
}

/// Asks the next connection that has been idle for `grace` microseconds at `now`, and says which.
fn ask(slots: &Slots, now: u64, grace: u64) -> Option<u64> {
    let mut inner = slots.0.lock();
    match inner.queue.pick(now, grace) {
        Pick::Asked(state) => {
            inner.asked += 1;
            Some(state.id)
        }
        Pick::Young { .. } | Pick::None => None,
    }
}

/// The same, however long it has been idle.
fn next(slots: &Slots) -> Option<u64> {
    ask(slots, BUSY, 0)
}

#[test]
fn the_longest_idle_connection_is_asked_and_busy_ones_are_not() {
    let (slots, taken) = taken(&["127.0.0.1:1"; 5]);
    taken[0].state().begin();
    taken[1].state().begin();
    // It was used and is idle again: no longer the one that is idle longest.
    taken[1].state().in_head(10);
    taken[3].state().in_head(20);
    let asked: Vec<_> = (0..5).map(|_| next(&slots)).collect();
    assert_eq!(asked, [Some(2), Some(4), Some(1), Some(3), None]);
    // It returns by itself.
    taken[0].state().in_head(30);
    assert_eq!([next(&slots), next(&slots)], [Some(0), None]);
}

#[test]
fn the_peer_with_most_connections_loses_one_first() {
    let (slots, mut taken) = taken(&[
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
    assert_eq!(next(&slots), Some(2));
    drop(taken.remove(2));
    assert_eq!(next(&slots), Some(5));
    drop(taken.remove(4));
    // Three have two.
    assert_eq!(next(&slots), Some(0));
    drop(taken.remove(0));
    assert_eq!([next(&slots), next(&slots)], [Some(3), Some(4)]);
}

#[tokio::test]
async fn a_new_connection_gets_the_slot_of_one_that_gives_way() {
    let (slots, mut taken) = taken(&["10.0.0.1:1"; 3]);
    let waiting = slots.clone();
    let mut waiting = tokio::spawn(async move { waiting.acquire(PeerGroup::All, || panic!("two are idle")).await });
    taken[0].state().asked().await;
    // A request has arrived on it meanwhile, so another one is asked, and only that.
    taken[0].state().begin();
    taken[1].state().asked().await;
    assert!(!taken[2].state().is_asked() && !waiting.is_finished());
    drop(taken.remove(1));
    let _slot = timeout(DEADLINE, &mut waiting).await.unwrap().unwrap();
    assert!(!taken[1].state().is_asked());
    let inner = slots.0.lock();
    assert_eq!((inner.asked, inner.waiting), (0, 0));
}

#[tokio::test]
async fn a_new_connection_waits_for_the_first_that_becomes_idle_or_ends() {
    for ends in [false, true] {
        let (slots, mut taken) = taken(&["10.0.0.1:1"; 2]);
        taken.iter().for_each(|slot| slot.state().begin());
        let (report, busy) = tokio::sync::oneshot::channel();
        let waiting = slots.clone();
        let mut waiting =
            tokio::spawn(async move { waiting.acquire(PeerGroup::All, || report.send(()).unwrap()).await });
        busy.await.unwrap();
        if !ends {
            taken[1].state().idle(Instant::now());
            timeout(DEADLINE, taken[1].state().asked()).await.unwrap();
        }
        drop(taken.remove(1));
        let _slot = timeout(DEADLINE, &mut waiting).await.unwrap().unwrap();
    }
}

#[test]
fn a_connection_has_some_time_for_its_first_request() {
    let (slots, _taken) = taken(&["10.0.0.1:1"; 2]);
    assert_eq!(ask(&slots, 100, 250), None);
    assert!(matches!(slots.0.lock().queue.pick(100, 250), Pick::Young { left: 151 }));
    assert_eq!([ask(&slots, 251, 250), ask(&slots, 251, 250)], [Some(0), None]);
}

#[test]
fn a_response_that_is_not_taken_keeps_a_connection_unless_the_policy_says_otherwise() {
    for evicts_stalled in [false, true] {
        let slots = Slots::new(1, Policy { evicts_stalled, ..NO_GRACE });
        let slot = slots.try_acquire(PeerGroup::All).unwrap();
        slot.state().begin();
        slot.state().write_stalled();
        // Hyper waits for the next request before the response has been taken.
        slot.state().idle(Instant::now());
        assert_eq!(next(&slots).is_some(), evicts_stalled);
        slot.state().write_resumed();
        if !evicts_stalled {
            assert!(next(&slots).is_some());
        }
    }
}
