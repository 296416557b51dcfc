//! Follows `upstream.ca_file`, so CAs can be added or removed without a restart.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    select,
    signal::unix::Signal,
    time::{Instant, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    error_chain,
    telemetry::{AUDIT, Metrics, ReloadTarget},
    tls::TrustStoreWriter,
};

/// How often all TLS sessions are discarded. Each resumed session brings tickets for the next, so a certificate would never be
/// verified again. With this limit, an expired certificate is accepted for at most an hour. A full handshake per hour costs nothing.
const SESSION_LIFETIME: Duration = Duration::from_secs(3600);

/// Checks the file every few seconds, and reloads it at each of `hangups`, until `stop` is cancelled. If the file cannot be loaded, logs
/// that once and keeps the previous trust store.
pub(super) async fn follow(
    mut writer: TrustStoreWriter,
    metrics: Arc<Metrics>,
    mut hangups: Signal,
    stop: CancellationToken,
) {
    let mut session_expiry = interval_at(Instant::now() + SESSION_LIFETIME, SESSION_LIFETIME);
    loop {
        let next_check = writer.next_check();
        let next_check = async { if let Some(pause) = next_check { sleep(pause).await } else { pending().await } };
        let reloaded = select! {
            () = stop.cancelled() => return,
            () = next_check => writer.check_file(),
            _ = hangups.recv() => writer.reload(),
            _ = session_expiry.tick() => {
                writer.clear_sessions();
                Ok(None)
            }
        };
        match reloaded {
            Ok(None) => {}
            Ok(Some(authorities)) => {
                metrics.reloaded(ReloadTarget::CaFile, true);
                info!(target: AUDIT, authorities, "upstream.ca_file reloaded; new connections use the new trust store");
            }
            Err(problem) => {
                metrics.reloaded(ReloadTarget::CaFile, false);
                let problem = error_chain::one_line(&problem);
                error!(target: AUDIT, problem, "cannot load upstream.ca_file; keeping the previous trust store");
            }
        }
    }
}
