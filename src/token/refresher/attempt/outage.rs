//! The token endpoint accepts requests and hangs for twenty minutes after the first start: the number of attempts of one instance
//! and of a fleet, with a valid and with a wrong secret.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use super::tests::{Instance, Mode, Vendor};
use crate::token::{Clock, State};

const OUTAGE: Duration = Duration::from_secs(20 * 60);

/// Each instance makes its next attempt within this time after the outage.
const RECOVERY: Duration = Duration::from_secs(60);

/// Runs `instances` through the outage and `RECOVERY`. All of them start within a second and share nothing.
async fn play(instances: usize, secret: &'static str) -> (Vendor, Vec<Instance>, Instant) {
    let vendor = Vendor::new(Mode::Hangs, &["right"]);
    let clock = Clock::Simulated(Instant::now());
    let mut fleet = Vec::with_capacity(instances);
    for _ in 0..instances {
        fleet.push(Instance::start(&vendor, None, secret, clock));
        sleep(Duration::from_secs(1) / u32::try_from(instances).unwrap()).await;
    }
    sleep(OUTAGE).await;
    assert_eq!(
        vendor.with(|state| state.requests.len()),
        instances,
        "one attempt per instance before the end of the outage"
    );
    vendor.set(Mode::Works);
    let end = Instant::now();
    sleep(RECOVERY).await;
    (vendor, fleet, end)
}

/// The maximum number of attempts in one second after `end`.
fn peak(vendor: &Vendor, end: Instant) -> usize {
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    vendor.with(|state| {
        for (_, at) in state.requests.iter().filter(|(_, at)| *at >= end) {
            *seconds.entry((*at - end).as_secs()).or_default() += 1;
        }
    });
    seconds.into_values().max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_one_attempt_and_recovery_takes_a_minute() {
    for instances in [1, 10, 1_000] {
        let (vendor, fleet, end) = play(instances, "right").await;
        assert!(fleet.iter().all(|instance| instance.reader.state() == State::Fresh), "{instances} instances");
        assert_eq!(vendor.with(|state| state.requests.len()), 2 * instances);
        let peak = peak(&vendor, end);
        assert!(peak <= (instances / 10).max(4), "peak of {peak} attempts a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_rejected_once_after_the_outage() {
    for instances in [1, 10, 1_000] {
        let (vendor, fleet, _) = play(instances, "wrong").await;
        assert!(fleet.iter().all(|instance| instance.reader.state() == State::Rejected), "{instances} instances");
        assert_eq!(vendor.with(|state| state.requests.len()), 2 * instances);
        sleep(Duration::from_secs(7 * 24 * 3600)).await;
        assert_eq!(vendor.with(|state| state.requests.len()), 2 * instances, "never again");
    }
}
