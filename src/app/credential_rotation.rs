//! Follows the source of the credentials: sends the first ones to the refresher if startup did not read them, then each change.

use std::{sync::Arc, time::Duration};

use tokio::{select, signal::unix::Signal, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    credentials::{self, CredentialSource, Credentials, Problem, Scheme, StoreFault},
    error_chain,
    telemetry::{AUDIT, Metrics, ReloadTarget, Scrubber},
    token::TokenControl,
};

/// The pause after the first failed attempt to read the first credentials. It doubles with each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The maximum of that pause.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Pauses are shortened by up to this fraction, so a fleet that starts while its store is down does not retry in step.
const RETRY_JITTER: f64 = 0.2;

/// Passes credentials from their source to the refresher.
pub(super) struct Rotation {
    pub(super) source: Box<dyn CredentialSource>,
    /// Whether startup has read the first credentials.
    pub(super) is_loaded: bool,
    /// The configured scheme, if any; otherwise it follows from the credentials.
    pub(super) scheme: Option<Scheme>,
    pub(super) control: TokenControl,
    pub(super) scrubber: Scrubber,
    pub(super) metrics: Arc<Metrics>,
}

/// Loads the first credentials if startup did not, retrying until it succeeds. Then reloads them whenever their source reports a change,
/// and at each of `hangups`. A failed load is logged, and the credentials in use stay. Ends when `stop` is cancelled.
pub(super) async fn follow(rotation: Rotation, hangups: Signal, stop: CancellationToken) {
    select! {
        () = stop.cancelled() => {}
        () = run(rotation, hangups) => {}
    }
}

async fn run(mut rotation: Rotation, mut hangups: Signal) {
    if rotation.source.uses_network() {
        for fault in StoreFault::ALL {
            rotation.metrics.init_store_error(fault.as_str());
        }
    }
    let mut failures = Failures { metrics: Arc::clone(&rotation.metrics), logged: Vec::new() };
    if !rotation.is_loaded {
        rotation.load_first(&mut hangups, &mut failures).await;
    }
    loop {
        select! {
            changed = rotation.source.changed() => if let Err(problem) = changed {
                failures.report(&[problem], Stage::Running);
                continue;
            },
            _ = hangups.recv() => failures.hangup(),
        }
        match rotation.load().await {
            Ok(credentials) => {
                failures.end();
                rotation.control.rotate(credentials).await;
            }
            Err(problems) => failures.report(&problems, Stage::Running),
        }
    }
}

/// Logs the source of the first credentials.
pub(super) fn log_loaded(source: &dyn CredentialSource, credentials: &Credentials) {
    info!(target: AUDIT, source = source.kind(), scheme = credentials.scheme.as_str(), "credentials were loaded");
}

impl Rotation {
    /// Loads the first credentials and sends them to the refresher.
    async fn load_first(&mut self, hangups: &mut Signal, failures: &mut Failures) {
        let mut pause = FIRST_RETRY;
        loop {
            let problems = match self.load().await {
                Ok(credentials) => {
                    failures.end();
                    log_loaded(self.source.as_ref(), &credentials);
                    return self.control.rotate(credentials).await;
                }
                Err(problems) => problems,
            };
            let wait = pause.mul_f64(1.0 - RETRY_JITTER * fastrand::f64());
            failures.report(&problems, Stage::Start);
            self.control.report_failed_first_load(one_sentence(&problems), wait).await;
            pause = MAX_RETRY.min(pause * 2);
            select! {
                () = sleep(wait) => {}
                _ = hangups.recv() => {
                    failures.hangup();
                    pause = FIRST_RETRY;
                }
            }
        }
    }

    /// Loads the credentials, after waiting for any change in progress.
    async fn load(&mut self) -> Result<Credentials, Vec<Problem>> {
        self.source.wait_until_stable().await;
        let credentials = credentials::load(self.source.as_mut(), self.scheme).await?;
        self.scrubber.register("new credentials", credentials.secrets());
        Ok(credentials)
    }
}

fn one_sentence(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// When a load failed.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Before there are credentials.
    Start,
    /// While earlier credentials are in use.
    Running,
}

/// Counts and logs failed loads. Because a store is polled, identical consecutive problems are logged once.
struct Failures {
    metrics: Arc<Metrics>,
    logged: Vec<String>,
}

impl Failures {
    fn report(&mut self, problems: &[Problem], stage: Stage) {
        self.metrics.reloaded(ReloadTarget::Credentials, false);
        for problem in problems {
            if let Problem::Store(error) = problem {
                self.metrics.store_failed(error.fault.as_str());
            }
        }
        let lines: Vec<String> = problems.iter().map(|problem| error_chain::one_line(problem)).collect();
        if lines == self.logged {
            return;
        }
        for problem in &lines {
            match stage {
                Stage::Start => {
                    error!(target: AUDIT, problem, "cannot load the first credentials; requests fail until they are loaded");
                }
                Stage::Running => {
                    error!(target: AUDIT, problem, "cannot load the credentials; keeping the current ones");
                }
            }
        }
        self.logged = lines;
    }

    /// Makes the next load log its outcome even if it is unchanged, because an operator requested that load.
    fn hangup(&mut self) {
        info!(target: AUDIT, "SIGHUP: reloading the credentials");
        self.logged.clear();
    }

    fn end(&mut self) {
        self.metrics.reloaded(ReloadTarget::Credentials, true);
        self.logged.clear();
    }
}
