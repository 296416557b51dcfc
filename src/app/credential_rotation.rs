//! Follows the place that credentials come from, and hands new ones to the refresher.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{select, signal::unix::Signal, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    credentials::{self, Scheme, Source, dir},
    error_chain,
    telemetry::{AUDIT, Metrics, Scrubber, Subject},
    token::TokenControl,
};

/// How long a directory must have been left alone before it is read: whoever writes the files one after the other is done by
/// then. Half of a change would be a failed authentication, of which the vendor allows few.
const SETTLE: Duration = Duration::from_secs(1);

/// Reads `source` again whenever its directory changes and at each of `hangups`, until `stop` is cancelled. Credentials that
/// cannot be used are told, and those in use stay.
pub(super) async fn follow(
    source: Source,
    scheme: Option<Scheme>,
    control: TokenControl,
    scrubber: Scrubber,
    metrics: Arc<Metrics>,
    mut hangups: Signal,
    stop: CancellationToken,
) {
    let directory = match &source {
        Source::Directory(path) => Some(path.as_path()),
        Source::Environment(_) => None,
    };
    // The credentials were read before this task began; what changed since then is seen as well.
    let mut seen = None;
    loop {
        let changed = async {
            match (directory, &seen) {
                (Some(_), None) => {}
                (Some(path), Some(snapshot)) => drop(dir::wait_for_change(path, snapshot).await),
                (None, _) => std::future::pending().await,
            }
        };
        select! {
            () = stop.cancelled() => return,
            () = changed => {}
            _ = hangups.recv() => info!(target: AUDIT, "SIGHUP: reading the credentials again"),
        }
        // The snapshot before the read, so that a change during the read is seen as one.
        seen = match directory {
            None => None,
            Some(path) => select! {
                () = stop.cancelled() => return,
                snapshot = settled(path) => Some(snapshot),
            },
        };
        match credentials::load(&source, scheme) {
            Ok(credentials) => {
                metrics.reloaded(Subject::Credentials, true);
                scrubber.know("new credentials", credentials.secrets());
                control.rotate(credentials).await;
            }
            Err(problems) => {
                metrics.reloaded(Subject::Credentials, false);
                for problem in problems {
                    let problem = error_chain::one_line(&problem);
                    error!(target: AUDIT, problem, "the credentials cannot be used; those in use stay");
                }
            }
        }
    }
}

/// Waits until the directory is left alone.
async fn settled(path: &Path) -> dir::Snapshot {
    let mut snapshot = dir::snapshot(path);
    loop {
        sleep(SETTLE).await;
        let now = dir::snapshot(path);
        if now == snapshot {
            return snapshot;
        }
        snapshot = now;
    }
}
