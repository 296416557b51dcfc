//! A thousand instances of the real refresher in one paused minute after the other: what the vendor's token endpoint sees.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderValue, StatusCode, header};
use tokio::time::{Instant, sleep};

use super::{tests::responded, *};
use crate::{
    credentials::{Scheme, lockout::Lockout},
    token::{
        Clock, State, TokenControl, TokenReader, channel,
        classify::{FailureClass, TokenFailure},
        command_channel,
        scheme::{AuthHeaders, FINICITY_APP_KEY},
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
    /// How it fails while it is down.
    fault: TokenFailure,
    rejects: bool,
    calls: Mutex<BTreeMap<u64, usize>>,
}

impl Vendor {
    fn new(rejects: bool) -> Arc<Self> {
        Self::failing_with(TokenFailure::new(FailureClass::Transient, "down"), rejects)
    }

    fn failing_with(fault: TokenFailure, rejects: bool) -> Arc<Self> {
        let (start, down) = (Instant::now(), AtomicBool::new(false));
        Arc::new(Self { start, down, fault, rejects, calls: Mutex::default() })
    }

    /// Fails from now on for `duration`.
    async fn fail_for(&self, duration: Duration) {
        self.down.store(true, Ordering::Relaxed);
        sleep(duration).await;
        self.down.store(false, Ordering::Relaxed);
    }

    /// The most calls in one second of `span`, and all of them.
    fn calls(&self, span: std::ops::Range<u64>) -> (usize, usize) {
        let calls = self.calls.lock().unwrap();
        let seen = || calls.range(span.clone()).map(|(_, count)| *count);
        (seen().max().unwrap_or_default(), seen().sum())
    }
}

impl TokenSource for Arc<Vendor> {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, _: &Credentials, _: Duration) -> Result<AuthHeaders, TokenFailure> {
        *self.calls.lock().unwrap().entry(self.start.elapsed().as_secs()).or_default() += 1;
        if self.rejects {
            return Err(responded(FailureClass::Rejected));
        }
        if self.down.load(Ordering::Relaxed) {
            return Err(self.fault.clone());
        }
        let value = HeaderValue::from_static("t");
        let headers = [(FINICITY_APP_KEY, value.clone()), (header::AUTHORIZATION, value)];
        Ok(AuthHeaders { headers, expires_in: Some(LIFETIME), untyped: false })
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        Ok(())
    }
}

/// One running instance.
struct Instance {
    reader: TokenReader,
    _task: tokio::task::JoinHandle<()>,
    _control: TokenControl,
}

/// Starts the fleet, all of it within one second; what comes back keeps it running.
fn launch(vendor: &Arc<Vendor>) -> Vec<Instance> {
    let started = Cell::new(0_u64);
    let instances = (0..INSTANCES).map(|_| {
        let (writer, reader) = channel(Clock::Simulated(Instant::now()), Duration::from_secs(2));
        let (control, commands) = command_channel();
        let lockout = Lockout::open(None).unwrap();
        let credentials = credentials(Scheme::OAuth2, "id", "secret");
        let metrics = Arc::new(Metrics::new());
        let refresher = Refresher::new(writer, Arc::clone(vendor), credentials, lockout, commands, LIFETIME, metrics);
        started.set(started.get() + 1);
        // Never zero: whole seconds after that a fault of whole seconds would end at the instant of an attempt.
        let delay = Duration::from_millis(1 + started.get() % 1_000);
        let task = tokio::spawn(async move {
            sleep(delay).await;
            refresher.run(CancellationToken::new()).await;
        });
        Instance { reader, _task: task, _control: control }
    });
    instances.collect()
}

/// The time until every instance is fresh, to a tenth of a second, and 20 minutes at most.
async fn recovery(fleet: &[Instance]) -> Duration {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1_200)
        && fleet.iter().any(|instance| instance.reader.state() != State::Fresh)
    {
        sleep(Duration::from_millis(100)).await;
    }
    since.elapsed()
}

/// A gateway whose backend is gone: an HTML page, or nothing at all.
fn gateway_fault(status: StatusCode) -> TokenFailure {
    TokenFailure { status: Some(status), readable: false, ..responded(FailureClass::Transient) }
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

#[tokio::test(start_paused = true)]
async fn a_gateway_fault_of_seconds_at_the_start_costs_seconds() {
    for status in [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT] {
        let vendor = Vendor::failing_with(gateway_fault(status), false);
        let fleet = launch(&vendor);
        vendor.fail_for(Duration::from_secs(3)).await;
        let recovery = recovery(&fleet).await;
        // The waits of the three attempts that fail are 1, at most 2 and at most 4 s.
        assert!(recovery <= Duration::from_millis(4_100), "{recovery:?}");
        let (during, after) = (vendor.calls(0..3), vendor.calls(3..1_300));
        assert!(during.0 <= INSTANCES && during.1 <= 3 * INSTANCES, "{during:?}");
        assert!(after.0 <= 600 && after.1 == INSTANCES, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_fault_of_seconds_during_life_costs_seconds() {
    let vendor = Vendor::failing_with(gateway_fault(StatusCode::BAD_GATEWAY), false);
    let fleet = launch(&vendor);
    // When most of the fleet wants to refresh.
    sleep(Duration::from_secs(5_000)).await;
    vendor.fail_for(Duration::from_secs(3)).await;
    let recovery = recovery(&fleet).await;
    assert!(recovery <= Duration::from_millis(4_100), "{recovery:?}");
    let peak = vendor.calls(5_000..5_010);
    assert!(peak.0 <= 15, "{peak:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_from_the_start_is_no_flood_and_ends_in_two_minutes() {
    let asks = TokenFailure {
        retry_after: Some(Duration::from_secs(3_600)),
        ..gateway_fault(StatusCode::SERVICE_UNAVAILABLE)
    };
    for fault in [responded(FailureClass::Transient), gateway_fault(StatusCode::BAD_GATEWAY), asks] {
        let vendor = Vendor::failing_with(fault, false);
        let fleet = launch(&vendor);
        vendor.fail_for(Duration::from_secs(1_200)).await;
        let recovery = recovery(&fleet).await;
        assert!(recovery <= Duration::from_secs(121), "{recovery:?}");
        let (early, late) = (vendor.calls(180..600), vendor.calls(900..1_320));
        assert!(early.0 <= 80 && late.0 <= 50, "{early:?} {late:?}");
    }
}
