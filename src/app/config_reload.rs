//! Reloads the configuration on SIGHUP: applies `log.level`, and reports other changed keys as needing a restart.
//!
//! Settings that the data path reads are not reloaded: that would cost a lock or a load in every request, and a restart does the same.

use tokio::{select, signal::unix::Signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{Changes, Reloader},
    telemetry::{AUDIT, LogLevel},
};

/// Reloads the configuration at each of `hangups`, and reverts temporary log levels when they expire, until `stop` is cancelled. If the
/// configuration is invalid, logs its problems and changes nothing.
pub(super) async fn follow(reloader: Reloader, level: LogLevel, mut hangups: Signal, stop: CancellationToken) {
    loop {
        select! {
            () = stop.cancelled() => return,
            () = level.expire_overrides() => {}
            _ = hangups.recv() => apply(&reloader, &level),
        }
    }
}

fn apply(reloader: &Reloader, level: &LogLevel) {
    match reloader.reload() {
        Ok(Changes { levels, need_restart }) => {
            info!(target: AUDIT, log_level = %levels, "configuration reloaded");
            if !need_restart.is_empty() {
                let keys = need_restart.join(" ");
                warn!(target: AUDIT, keys, "changed settings require a restart");
            }
            level.configure(levels);
        }
        Err(problems) => {
            for problem in problems.0 {
                error!(target: AUDIT, %problem, "invalid configuration; keeping the previous one");
            }
        }
    }
}
