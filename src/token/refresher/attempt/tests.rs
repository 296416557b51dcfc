//! Attempts with unproven credentials, from the vendor's side.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderValue, header};
use tokio::{task::JoinHandle, time::Instant};

use super::*;
use crate::{
    credentials::{Credentials, Scheme, lockout::Lockout},
    telemetry::Metrics,
    token::{
        CandidateState, Clock, Phase, State, TokenControl, TokenReader, channel, command_channel,
        refresher::tests::{hours, pass, responded},
        scheme::FINICITY_APP_KEY,
        tests::credentials,
    },
};

/// The behaviour of the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Responds after 20 ms.
    #[default]
    Works,
    /// Counts a wrong secret, and responds after this many seconds.
    Slow(u64),
    /// Counts a wrong secret, and responds neither to token requests nor to probes.
    Hangs,
    /// Counts a wrong secret, and responds to probes only.
    HangsOnTokens,
    /// Accepts no connections.
    Unreachable,
    /// A gateway in front of it returns 503.
    Fails,
}

/// A mock vendor with a list of valid secrets. It records token requests on arrival, because the vendor counts a failed
/// authentication even if the response is lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Vendor(Arc<Mutex<VendorState>>);

#[derive(Debug, Default)]
pub(super) struct VendorState {
    pub(super) mode: Mode,
    pub(super) valid: Vec<&'static str>,
    pub(super) requests: Vec<(String, Instant)>,
    pub(super) failed: usize,
    pub(super) probes: usize,
    pub(super) limits: Vec<Duration>,
    pub(super) revocations: usize,
}

impl Vendor {
    pub(super) fn new(mode: Mode, valid: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(VendorState { mode, valid: valid.to_vec(), ..VendorState::default() })))
    }

    pub(super) fn with<T>(&self, access: impl FnOnce(&mut VendorState) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, mode: Mode) {
        self.with(|state| state.mode = mode);
    }

    /// The number of token requests received so far.
    pub(super) fn requests(&self) -> usize {
        self.with(|state| state.requests.len())
    }
}

impl TokenSource for Vendor {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, credentials: &Credentials, limit: Duration) -> Result<AuthHeaders, TokenFailure> {
        let secret = credentials.secret.expose().clone();
        let (mode, valid) = self.with(|state| {
            match state.mode {
                Mode::Unreachable => {}
                // The gateway responds; nothing is authenticated.
                Mode::Fails => state.failed += 1,
                _ => state.requests.push((secret.clone(), Instant::now())),
            }
            state.limits.push(limit);
            (state.mode, state.valid.contains(&secret.as_str()))
        });
        let delay = match mode {
            Mode::Works | Mode::Fails => Duration::from_millis(20),
            Mode::Slow(seconds) => Duration::from_secs(seconds),
            Mode::Hangs | Mode::HangsOnTokens => Duration::MAX,
            Mode::Unreachable => {
                return Err(
                    TokenFailure::new(FailureClass::Transient, "refused").with_disposition(Disposition::NotSent)
                );
            }
        };
        if timeout(limit, sleep(delay)).await.is_err() {
            return Err(TokenFailure::new(FailureClass::Transient, "timeout"));
        }
        if mode == Mode::Fails {
            return Err(responded(FailureClass::Transient));
        }
        if !valid {
            return Err(responded(FailureClass::Rejected));
        }
        let value = HeaderValue::from_str(&secret).unwrap();
        let headers = [(FINICITY_APP_KEY, value.clone()), (header::AUTHORIZATION, value)];
        Ok(AuthHeaders { headers, expires_in: Some(Duration::from_secs(3600)), untyped: false })
    }

    async fn revoke(&self, _: &Credentials, _: &HeaderValue) -> Option<Result<(), TokenFailure>> {
        self.with(|state| state.revocations += 1);
        Some(Ok(()))
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        let mode = self.with(|state| {
            state.probes += 1;
            state.mode
        });
        match mode {
            Mode::Hangs => {
                sleep(Duration::from_secs(10)).await;
                Err(TokenFailure::new(FailureClass::Transient, "timeout"))
            }
            Mode::Unreachable => Err(TokenFailure::new(FailureClass::Transient, "refused")),
            _ => Ok(()),
        }
    }
}

/// A simulated process.
pub(super) struct Instance {
    pub(super) reader: TokenReader,
    pub(super) control: TokenControl,
    pub(super) task: JoinHandle<()>,
    pub(super) stop: CancellationToken,
}

impl Instance {
    /// Starts with `secret`. The lock-out state is in `dir`, or in memory.
    pub(super) fn start(vendor: &Vendor, dir: Option<&Path>, secret: &str, clock: Clock) -> Self {
        let (writer, reader) = channel(clock, Duration::from_secs(2));
        let (control, commands) = command_channel();
        let lockout = Lockout::open(dir).unwrap();
        let credentials = credentials(Scheme::OAuth2, "id", secret);
        let (lifetime, metrics, stop) = (Duration::from_secs(7200), Arc::new(Metrics::new()), CancellationToken::new());
        let refresher = Refresher::new(writer, vendor.clone(), credentials, lockout, commands, lifetime, metrics);
        let task = tokio::spawn(refresher.run(stop.clone()));
        Self { reader, control, task, stop }
    }

    /// Stops it at any point, as SIGKILL would.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(super) fn lockout(&self) -> crate::token::LockoutStatus {
        self.reader.status().lockout
    }
}

pub(super) async fn minutes(minutes: u64) {
    pass(Duration::from_secs(60 * minutes), Duration::from_millis(500), || {}).await;
}

pub(super) fn clock() -> Clock {
    Clock::Tokio(Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_is_received_and_counted_once() {
    for seconds in [11, 25, 29] {
        let vendor = Vendor::new(Mode::Slow(seconds), &[]);
        let instance = Instance::start(&vendor, None, "wrong", clock());
        minutes(5).await;
        assert_eq!((vendor.requests(), instance.reader.state()), (1, State::Rejected), "{seconds} s");
        assert_eq!((instance.lockout().rejections, instance.lockout().unresolved), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_one_attempt_with_unproven_credentials() {
    let vendor = Vendor::new(Mode::Hangs, &["right"]);
    let instance = Instance::start(&vendor, None, "right", clock());
    minutes(20).await;
    assert_eq!((vendor.requests(), instance.lockout().unresolved), (1, 1));
    let probes = vendor.with(|state| state.probes);
    assert!((20..40).contains(&probes), "{probes} probes in 19 minutes");
    vendor.set(Mode::Works);
    minutes(1).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (2, State::Fresh));
    assert_eq!(instance.lockout().unresolved, 0);
}

#[tokio::test(start_paused = true)]
async fn three_lost_responses_hold_the_credentials_for_a_day() {
    let vendor = Vendor::new(Mode::HangsOnTokens, &["right"]);
    let instance = Instance::start(&vendor, None, "right", clock());
    minutes(10).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (3, State::Held));
    let gaps: Vec<_> = vendor.with(|state| state.requests.windows(2).map(|pair| pair[1].1 - pair[0].1).collect());
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_secs(15)), "{gaps:?}");
    assert!(instance.lockout().held && instance.lockout().unresolved == 3);
    assert!(instance.reader.wait().await.is_err_and(|error| error == crate::token::Unavailable::Held));
    hours(23).await;
    assert_eq!(vendor.requests(), 3);
    hours(2).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (4, State::Held));
    hours(24 * 10).await;
    assert_eq!(vendor.requests(), 4);

    assert_eq!(instance.control.reset_latch(false).await, Ok(Decision::Held));
    minutes(10).await;
    assert_eq!(vendor.requests(), 4, "a reset without the override changes nothing");
    vendor.set(Mode::Works);
    assert_eq!(instance.control.reset_latch(true).await, Ok(Decision::Allowed));
    minutes(1).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (5, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_of_a_killed_process_stays_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(Mode::Hangs, &[]);
    let clock = clock();
    for _ in 0..10 {
        let instance = Instance::start(&vendor, Some(dir.path()), "wrong", clock);
        pass(Duration::from_secs(10), Duration::from_millis(500), || {}).await;
        instance.kill().await;
    }
    assert_eq!(vendor.requests(), 1);
    // The same holds for a graceful stop, because the request was sent.
    vendor.set(Mode::HangsOnTokens);
    let instance = Instance::start(&vendor, Some(dir.path()), "wrong", clock);
    pass(Duration::from_secs(5), Duration::from_millis(500), || {}).await;
    instance.stop.cancel();
    instance.task.await.unwrap();
    assert_eq!(vendor.requests(), 2);
    vendor.set(Mode::Works);
    let instance = Instance::start(&vendor, Some(dir.path()), "wrong", clock);
    minutes(60).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (3, State::Rejected));
    assert_eq!((instance.lockout().rejections, instance.lockout().unresolved), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn unsent_or_failed_requests_are_retried_normally() {
    for mode in [Mode::Unreachable, Mode::Fails] {
        let vendor = Vendor::new(mode, &["right"]);
        let instance = Instance::start(&vendor, None, "right", clock());
        minutes(30).await;
        let attempts = vendor.with(|state| state.limits.len());
        assert!(attempts > 20 && instance.lockout().unresolved == 0, "{mode:?}: {attempts}");
        assert_eq!(vendor.with(|state| state.probes), 0);
        vendor.set(Mode::Works);
        minutes(3).await;
        assert_eq!(instance.reader.state(), State::Fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn proven_credentials_are_retried_after_lost_responses() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Works, &["right"]), clock());
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(1).await;
    instance.kill().await;
    vendor.set(Mode::Hangs);
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(10).await;
    let limits = vendor.with(|state| state.limits.clone());
    assert!(limits.len() > 8 && instance.lockout().unresolved == 0, "{limits:?}");
    assert_eq!(limits[..2], [UNPROVEN_TIMEOUT, PROVEN_TIMEOUT]);
    vendor.set(Mode::Works);
    minutes(2).await;
    assert_eq!(instance.reader.state(), State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_held_candidate_does_not_affect_current_credentials() {
    let vendor = Vendor::new(Mode::Works, &["right"]);
    let instance = Instance::start(&vendor, None, "right", clock());
    minutes(1).await;
    vendor.set(Mode::HangsOnTokens);
    instance.control.rotate(credentials(Scheme::OAuth2, "id", "candidate")).await;
    minutes(10).await;
    vendor.set(Mode::Works);
    let tried = || vendor.with(|state| state.requests.iter().filter(|(secret, _)| secret == "candidate").count());
    assert_eq!((tried(), instance.lockout().candidate), (3, Some(CandidateState::Held)));
    pass(Duration::from_secs(20 * 3600), Duration::from_secs(5), || assert!(instance.reader.usable().is_some())).await;
    assert_eq!(tried(), 3);
    // A scheduled refresh may be in progress.
    assert!(matches!(instance.reader.state(), State::Fresh | State::Refreshing));
    hours(6).await;
    assert_eq!((tried(), instance.lockout().candidate), (4, Some(CandidateState::Rejected)));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_be_recorded_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(Mode::Works, &["right"]);
    let clock = clock();
    // Open it first to create the state. A directory with the name of the temporary file makes every write fail, even for root.
    drop(Lockout::open(Some(dir.path())).unwrap());
    let obstacle = dir.path().join("attempts.json.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let instance = Instance::start(&vendor, Some(dir.path()), "right", clock);
    minutes(30).await;
    assert_eq!((vendor.requests(), instance.reader.status().phase), (0, Phase::Unrecorded));
    assert_eq!(instance.reader.state(), State::Empty);
    std::fs::remove_dir(&obstacle).unwrap();
    minutes(1).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (1, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_directory_make_one_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Slow(12), &["right"]), clock());
    let start = |secret| -> Vec<Instance> {
        (0..6).map(|_| Instance::start(&vendor, Some(dir.path()), secret, clock)).collect()
    };
    let wrong = start("wrong");
    minutes(3).await;
    assert_eq!(vendor.requests(), 1);
    assert!(wrong.iter().all(|instance| instance.reader.state() == State::Rejected));
    vendor.set(Mode::Slow(5));
    let correct = start("right");
    minutes(1).await;
    assert!(correct.iter().all(|instance| instance.reader.state() == State::Fresh));
    assert_eq!(vendor.requests(), 7);
    assert_eq!(vendor.with(|state| state.limits.iter().filter(|limit| **limit == UNPROVEN_TIMEOUT).count()), 2);
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_continues_during_an_attempt_and_a_probe() {
    let vendor = Vendor::new(Mode::Hangs, &["right"]);
    let instance = Instance::start(&vendor, None, "right", clock());
    pass(Duration::from_secs(600), Duration::from_secs(1), || {
        let age = instance.reader.heartbeat_age();
        assert!(age <= Duration::from_secs(11) && age < crate::token::HEARTBEAT_LIMIT, "{age:?}");
    })
    .await;
    assert!(vendor.with(|state| state.probes) > 5);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_made_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (vendor, clock) = (Vendor::new(Mode::Hangs, &[]), clock());
    for _ in 0..3 {
        let instance = Instance::start(&vendor, Some(dir.path()), "wrong", clock);
        instance.stop.cancel();
        instance.task.await.unwrap();
    }
    assert_eq!(vendor.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn rejected_credentials_revoke_no_token() {
    let vendor = Vendor::new(Mode::Works, &["right"]);
    let instance = Instance::start(&vendor, None, "right", clock());
    minutes(1).await;
    // The vendor invalidates the credentials. The token obtained before is still in use.
    vendor.with(|state| state.valid.clear());
    minutes(46).await;
    assert_eq!((vendor.requests(), instance.reader.state()), (2, State::Degraded));
    vendor.set(Mode::HangsOnTokens);
    assert_eq!(instance.control.reset_latch(false).await, Ok(Decision::Allowed));
    minutes(5).await;
    assert!(instance.lockout().held && instance.reader.usable().is_some());
    instance.control.quarantine().await;
    assert!(instance.reader.usable().is_none());
    assert_eq!(vendor.with(|state| state.revocations), 0, "a revocation carries the secret");
}
