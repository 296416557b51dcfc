//! Processes that share a state directory: the findings of one apply to all.

use std::{path::Path, time::Duration};

use super::tests::{Instance, Mode, Vendor, clock, minutes};
use crate::{
    credentials::{
        Scheme,
        lockout::{BeginOutcome, Decision, Lockout},
    },
    token::{Clock, Phase, State, refresher::tests::pass, tests::credentials},
};

async fn seconds(seconds: u64) {
    pass(Duration::from_secs(seconds), Duration::from_millis(100), || {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_for_all_processes() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::HangsOnTokens, &["right"]), clock());
    let one = Instance::start(&vendor, Some(dir.path()), "right", clock);
    let two = Instance::start(&vendor, Some(dir.path()), "right", clock);
    for hold in [Duration::from_secs(600), Duration::from_secs(30 * 3600)] {
        vendor.set(Mode::HangsOnTokens);
        pass(hold, Duration::from_secs(1), || {}).await;
        assert_eq!((one.reader.state(), two.reader.state()), (State::Held, State::Held));
    }
    assert_eq!(vendor.requests(), 4);
    vendor.set(Mode::Works);
    assert_eq!(one.control.reset_latch(true).await, Ok(Decision::Allowed));
    minutes(2).await;
    assert_eq!((one.reader.state(), two.reader.state()), (State::Fresh, State::Fresh));
}

/// Kills a process during an attempt, which leaves that attempt with an unknown outcome.
async fn lose_an_attempt(vendor: &Vendor, dir: &Path, clock: Clock) {
    let instance = Instance::start(vendor, Some(dir), "right", clock);
    seconds(1).await;
    instance.kill().await;
    assert_eq!(vendor.requests(), 1);
}

/// Lets the endpoint respond until the second attempt has been sent, and then hang for a while.
async fn hang_after_the_second_attempt(vendor: &Vendor) {
    while vendor.requests() < 2 {
        seconds(1).await;
    }
    vendor.set(Mode::Hangs);
    minutes(20).await;
    assert_eq!(vendor.requests(), 2, "one attempt for one response");
}

#[tokio::test(start_paused = true)]
async fn one_probe_response_permits_one_attempt_in_total() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::HangsOnTokens, &["right"]), clock());
    lose_an_attempt(&vendor, dir.path(), clock).await;
    let fleet: Vec<_> = (0..4).map(|_| Instance::start(&vendor, Some(dir.path()), "right", clock)).collect();
    hang_after_the_second_attempt(&vendor).await;
    vendor.set(Mode::Works);
    minutes(2).await;
    assert!(fleet.iter().all(|instance| instance.reader.state() == State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn one_probe_response_permits_one_attempt_in_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::HangsOnTokens, &["right"]), clock());
    lose_an_attempt(&vendor, dir.path(), clock).await;
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    seconds(2).await;
    instance.control.rotate(credentials(Scheme::OAuth2, "id", "candidate")).await;
    hang_after_the_second_attempt(&vendor).await;
}

#[tokio::test(start_paused = true)]
async fn a_rejection_in_another_process_revokes_proven_status() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Works, &["right"]), clock());
    let one = Instance::start(&vendor, Some(dir.path()), "right", clock);
    let two = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(1).await;
    assert_eq!(vendor.requests(), 2);
    vendor.with(|state| state.valid.clear());
    minutes(60).await;
    assert_eq!(vendor.requests(), 3, "one of the two was rejected");
    // An operator assumes a fault at the vendor and resets the lock-out. The vendor's responses are slow.
    vendor.set(Mode::Slow(11));
    for instance in [&one, &two] {
        assert_eq!(instance.control.reset_latch(false).await, Ok(Decision::Allowed));
    }
    minutes(10).await;
    assert_eq!((vendor.requests(), one.lockout().rejections), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_reset_does_not_restore_proven_status() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Works, &["right"]), clock());
    let one = Instance::start(&vendor, Some(dir.path()), "right", clock);
    // The second process refreshes half an hour after the first.
    minutes(30).await;
    let two = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(1).await;
    vendor.with(|state| state.valid.clear());
    minutes(15).await;
    assert_eq!((vendor.requests(), one.lockout().rejections), (3, 1));
    vendor.set(Mode::HangsOnTokens);
    assert_eq!(one.control.reset_latch(false).await, Ok(Decision::Allowed));
    minutes(120).await;
    assert_eq!(vendor.requests(), 5, "one rejection and two attempts with an unknown outcome: {:?}", two.lockout());
}

#[tokio::test(start_paused = true)]
async fn proven_status_survives_a_restart_despite_rejected_others() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Works, &["right"]), clock());
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(1).await;
    for wrong in ["wrong-1", "wrong-2", "wrong-3"] {
        instance.control.rotate(credentials(Scheme::OAuth2, "id", wrong)).await;
        minutes(1).await;
    }
    assert_eq!((vendor.requests(), instance.reader.state()), (4, State::Fresh));
    instance.kill().await;
    // The Secret is restored, and the pod restarts.
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(1).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (5, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_attempt_of_another_process_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Works, &["right"]), clock());
    // Another process began an attempt and was then suspended, for example by a debugger or the cgroup freezer.
    let mut other = Lockout::open(Some(dir.path())).unwrap();
    let fingerprint = other.fingerprint("oauth2", "localhost", &"id".into(), &"other".into(), b"app-key");
    let BeginOutcome::Recorded(permit) = other.begin(&fingerprint, clock.unix_time(), None).unwrap() else { panic!() };
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    seconds(40).await;
    assert_eq!((vendor.requests(), instance.lockout().unrecorded), (0, false));
    minutes(1).await;
    assert_eq!((vendor.requests(), instance.reader.status().phase), (0, Phase::Unrecorded));
    assert!(instance.reader.status().attempted, "startup completes");
    drop(permit);
    minutes(1).await;
    assert_eq!((instance.reader.state(), instance.lockout().unrecorded), (State::Fresh, false));
}
