//! Follows the configuration file at each SIGHUP: the log's levels are taken over, of other keys it is told that they have changed.
//!
//! Deliberately absent: taking over anything that the data path reads. That would be a lock or a load for every request, for what
//! a new process does as well.

use tokio::{select, signal::unix::Signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{Changes, Reloader},
    telemetry::{AUDIT, LogLevel},
};

/// Reads the keys again at each of `hangups`, and ends levels that an administrator set for a time, until `stop` is cancelled.
/// Keys that cannot be used are told, and all stays as it is.
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
            info!(target: AUDIT, log_level = %levels, "the configuration was read again");
            if !need_restart.is_empty() {
                let keys = need_restart.join(" ");
                warn!(target: AUDIT, keys, "keys have changed that only a restart takes over");
            }
            level.configure(levels);
        }
        Err(problems) => {
            for problem in problems.0 {
                error!(target: AUDIT, %problem, "the configuration cannot be used; that of before stays");
            }
        }
    }
}
