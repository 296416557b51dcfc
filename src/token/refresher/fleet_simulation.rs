//! A simulation of a thousand instances of the real refresher under paused time: the load on the vendor's token endpoint.

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

/// A mock token endpoint, shared by all instances.
#[derive(Debug)]
struct Vendor {
    start: Instant,
    down: AtomicBool,
    /// The failure while it is down.
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

    /// Fails all requests for `duration`, starting now.
    async fn fail_for(&self, duration: Duration) {
        self.down.store(true, Ordering::Relaxed);
        sleep(duration).await;
        self.down.store(false, Ordering::Relaxed);
    }

    /// The maximum number of requests in one second of `span`, and the total.
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

/// Starts the fleet within one second. It runs until the returned instances are dropped.
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
        // Never zero: otherwise a fault that lasts whole seconds could end at the instant of an attempt.
        let delay = Duration::from_millis(1 + started.get() % 1_000);
        let task = tokio::spawn(async move {
            sleep(delay).await;
            refresher.run(CancellationToken::new()).await;
        });
        Instance { reader, _task: task, _control: control }
    });
    instances.collect()
}

/// The time until every instance is fresh, to a tenth of a second, at most 20 minutes.
async fn recovery(fleet: &[Instance]) -> Duration {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1_200)
        && fleet.iter().any(|instance| instance.reader.state() != State::Fresh)
    {
        sleep(Duration::from_millis(100)).await;
    }
    since.elapsed()
}

/// The failure of a gateway without its backend: an HTML page, or an empty body.
fn gateway_fault(status: StatusCode) -> TokenFailure {
    TokenFailure { status: Some(status), readable: false, ..responded(FailureClass::Transient) }
}

#[tokio::test(start_paused = true)]
async fn n16_instances_started_together_do_not_refresh_together() {
    let vendor = Vendor::new(false);
    let _fleet = launch(&vendor);
    sleep(Duration::from_secs(16_000)).await;
    let (first, peak) = (vendor.calls(0..2), vendor.calls(60..16_000));
    assert_eq!(first.1, INSTANCES);
    assert!(peak.0 <= 10 && peak.1 >= 2 * INSTANCES, "peak {} calls a second, {} in all", peak.0, peak.1);
}

#[tokio::test(start_paused = true)]
async fn n15_an_outage_of_ten_minutes_causes_no_flood() {
    let vendor = Vendor::new(false);
    let _fleet = launch(&vendor);
    // Down while most refreshes are due.
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
async fn a_fleet_recovers_quickly_from_a_short_fault_at_startup() {
    for status in [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT] {
        let vendor = Vendor::failing_with(gateway_fault(status), false);
        let fleet = launch(&vendor);
        vendor.fail_for(Duration::from_secs(3)).await;
        let recovery = recovery(&fleet).await;
        // The waits after the three failed attempts are 1, at most 2 and at most 4 s.
        assert!(recovery <= Duration::from_millis(4_100), "{recovery:?}");
        let (during, after) = (vendor.calls(0..3), vendor.calls(3..1_300));
        assert!(during.0 <= INSTANCES && during.1 <= 3 * INSTANCES, "{during:?}");
        assert!(after.0 <= 600 && after.1 == INSTANCES, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_recovers_quickly_from_a_short_fault_later() {
    let vendor = Vendor::failing_with(gateway_fault(StatusCode::BAD_GATEWAY), false);
    let fleet = launch(&vendor);
    // When most refreshes are due.
    sleep(Duration::from_secs(5_000)).await;
    vendor.fail_for(Duration::from_secs(3)).await;
    let recovery = recovery(&fleet).await;
    assert!(recovery <= Duration::from_millis(4_100), "{recovery:?}");
    let peak = vendor.calls(5_000..5_010);
    assert!(peak.0 <= 15, "{peak:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_recovers_from_a_long_outage_without_a_flood() {
    let with_retry_after = TokenFailure {
        retry_after: Some(Duration::from_secs(3_600)),
        ..gateway_fault(StatusCode::SERVICE_UNAVAILABLE)
    };
    for fault in [responded(FailureClass::Transient), gateway_fault(StatusCode::BAD_GATEWAY), with_retry_after] {
        let vendor = Vendor::failing_with(fault, false);
        let fleet = launch(&vendor);
        vendor.fail_for(Duration::from_secs(1_200)).await;
        let recovery = recovery(&fleet).await;
        assert!(recovery <= Duration::from_secs(121), "{recovery:?}");
        let (early, late) = (vendor.calls(180..600), vendor.calls(900..1_320));
        assert!(early.0 <= 80 && late.0 <= 50, "{early:?} {late:?}");
    }
}
