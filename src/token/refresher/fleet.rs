//! A thousand instances of the real refresher in one paused minute after the other: what the vendor's token endpoint sees.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderValue, header};
use tokio::time::{Instant, sleep};

use super::{tests::responded, *};
use crate::{
    credentials::{Scheme, lockout::Lockout},
    token::{
        Clock, channel,
        classify::{Class, Failure},
        control,
        scheme::{FINICITY_APP_KEY, Grant},
        tests::credentials,
    },
};

const INSTANCES: usize = 1_000;
const LIFETIME: Duration = Duration::from_secs(7_200);

/// What the endpoint does to everyone.
#[derive(Debug)]
struct Vendor {
    start: Instant,
    down: AtomicBool,
    rejects: bool,
    calls: Mutex<BTreeMap<u64, usize>>,
}

impl Vendor {
    fn new(rejects: bool) -> Arc<Self> {
        let (start, down) = (Instant::now(), AtomicBool::new(false));
        Arc::new(Self { start, down, rejects, calls: Mutex::default() })
    }

    /// The most calls in one second of `span`, and all of them.
    fn calls(&self, span: std::ops::Range<u64>) -> (usize, usize) {
        let calls = self.calls.lock().unwrap();
        let seen = || calls.range(span.clone()).map(|(_, count)| *count);
        (seen().max().unwrap_or_default(), seen().sum())
    }
}

impl Mint for Arc<Vendor> {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn mint(&self, _: &Credentials, _: Duration) -> Result<Grant, Failure> {
        *self.calls.lock().unwrap().entry(self.start.elapsed().as_secs()).or_default() += 1;
        if self.rejects {
            return Err(responded(Class::Rejected));
        }
        if self.down.load(Ordering::Relaxed) {
            return Err(responded(Class::Transient));
        }
        let value = HeaderValue::from_static("t");
        let headers = [(FINICITY_APP_KEY, value.clone()), (header::AUTHORIZATION, value)];
        Ok(Grant { headers, expires_in: Some(LIFETIME), untyped: false })
    }

    async fn probe(&self, _: Scheme) -> Result<(), Failure> {
        Ok(())
    }
}

/// Starts the fleet, all of it within one second; what comes back keeps it running.
fn launch(vendor: &Arc<Vendor>) -> impl Sized {
    let started = Cell::new(0_u64);
    let instances = (0..INSTANCES).map(|_| {
        let (writer, reader) = channel(Clock::Simulated(Instant::now()), Duration::from_secs(2));
        let (asking, commands) = control();
        let lockout = Lockout::open(None).unwrap();
        let credentials = credentials(Scheme::OAuth2, "id", "secret");
        let metrics = Arc::new(Metrics::new());
        let refresher = Refresher::new(writer, Arc::clone(vendor), credentials, lockout, commands, LIFETIME, metrics);
        started.set(started.get() + 1);
        let delay = Duration::from_millis(started.get() % 1_000);
        let task = tokio::spawn(async move {
            sleep(delay).await;
            refresher.run(CancellationToken::new()).await;
        });
        (task, reader, asking)
    });
    instances.collect::<Vec<_>>()
}

#[tokio::test(start_paused = true)]
async fn n16_a_fleet_that_starts_together_does_not_refresh_together() {
    let vendor = Vendor::new(false);
    let _fleet = launch(&vendor);
    sleep(Duration::from_secs(16_000)).await;
    let (first, peak) = (vendor.calls(0..2), vendor.calls(60..16_000));
    assert_eq!(first.1, INSTANCES);
    assert!(peak.0 <= 10 && peak.1 >= 2 * INSTANCES, "peak {} calls a second, {} in all", peak.0, peak.1);
}

#[tokio::test(start_paused = true)]
async fn n15_an_outage_of_ten_minutes_is_no_flood() {
    let vendor = Vendor::new(false);
    let _fleet = launch(&vendor);
    // Down while most of the fleet wants to refresh.
    sleep(Duration::from_secs(4_900)).await;
    vendor.down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(600)).await;
    vendor.down.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(300)).await;
    let (peak, all) = vendor.calls(4_900..5_800);
    assert!(peak <= 70, "peak {peak} calls a second, {all} in all");
}

#[tokio::test(start_paused = true)]
async fn n18_a_wrong_secret_is_tried_once_by_each_instance() {
    let vendor = Vendor::new(true);
    let _fleet = launch(&vendor);
    sleep(Duration::from_secs(7_200)).await;
    assert_eq!(vendor.calls(0..7_200).1, INSTANCES);
}
