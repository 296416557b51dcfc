//! Follows the source of the credentials, and hands new ones to the refresher.

use std::sync::Arc;

use tokio::{select, signal::unix::Signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    credentials::{self, CredentialSource, Problem, Scheme, StoreFault},
    error_chain,
    telemetry::{AUDIT, Metrics, ReloadTarget, Scrubber},
    token::TokenControl,
};

/// Takes changed credentials from their source to the refresher.
pub(super) struct Rotation {
    pub(super) source: Box<dyn CredentialSource>,
    /// The scheme that is configured, if any; otherwise the credentials decide.
    pub(super) scheme: Option<Scheme>,
    pub(super) control: TokenControl,
    pub(super) scrubber: Scrubber,
    pub(super) metrics: Arc<Metrics>,
}

/// Loads the credentials again whenever their source reports a change and at each of `hangups`, until `stop` is cancelled.
/// Credentials that cannot be read or used are logged, and those in use stay.
pub(super) async fn follow(mut rotation: Rotation, mut hangups: Signal, stop: CancellationToken) {
    if rotation.source.uses_network() {
        for fault in StoreFault::ALL {
            rotation.metrics.init_store_error(fault.as_str());
        }
    }
    let mut failures = Failures { metrics: Arc::clone(&rotation.metrics), logged: Vec::new() };
    loop {
        select! {
            () = stop.cancelled() => return,
            changed = rotation.source.changed() => if let Err(problem) = changed {
                failures.report(vec![problem]);
                continue;
            },
            _ = hangups.recv() => {
                info!(target: AUDIT, "SIGHUP: reading the credentials again");
                // Someone waits for the outcome, even if it is the same as before.
                failures.logged.clear();
            }
        }
        let loaded = select! {
            () = stop.cancelled() => return,
            loaded = rotation.load() => loaded,
        };
        match loaded {
            Ok(()) => failures.end(),
            Err(problems) => failures.report(problems),
        }
    }
}

impl Rotation {
    /// Loads the credentials once no change is in progress, and hands them over.
    async fn load(&mut self) -> Result<(), Vec<Problem>> {
        self.source.wait_until_stable().await;
        let credentials = credentials::load(self.source.as_mut(), self.scheme).await?;
        self.scrubber.register("new credentials", credentials.secrets());
        self.control.rotate(credentials).await;
        Ok(())
    }
}

/// Counts and logs what keeps credentials from being read. The same problems in a row are logged once, since a store is polled.
struct Failures {
    metrics: Arc<Metrics>,
    logged: Vec<String>,
}

impl Failures {
    fn report(&mut self, problems: Vec<Problem>) {
        self.metrics.reloaded(ReloadTarget::Credentials, false);
        for problem in &problems {
            if let Problem::Store(error) = problem {
                self.metrics.store_failed(error.fault.as_str());
            }
        }
        let lines: Vec<String> = problems.iter().map(|problem| error_chain::one_line(problem)).collect();
        if lines == self.logged {
            return;
        }
        for problem in &lines {
            error!(target: AUDIT, problem, "the credentials cannot be used; those in use stay");
        }
        self.logged = lines;
    }

    fn end(&mut self) {
        self.metrics.reloaded(ReloadTarget::Credentials, true);
        self.logged.clear();
    }
}
