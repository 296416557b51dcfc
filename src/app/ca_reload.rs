//! Follows `upstream.ca_file`, so that an authority can be added or removed without a restart.

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

/// How often all sessions are forgotten. Each session that is resumed brings tickets for the next, so a certificate would never
/// be looked at again; in an hour it can, at worst, have expired for so long. One full handshake an hour costs nothing.
const SESSIONS_END: Duration = Duration::from_secs(3600);

/// Looks at the file every few seconds, and reads it again at each of `hangups`, until `stop` is cancelled. A file that cannot be
/// used is told, once, and the trust of before stays.
pub(super) async fn follow(
    mut writer: TrustStoreWriter,
    metrics: Arc<Metrics>,
    mut hangups: Signal,
    stop: CancellationToken,
) {
    let mut sessions_end = interval_at(Instant::now() + SESSIONS_END, SESSIONS_END);
    loop {
        let next_look = writer.next_check();
        let next_look = async { if let Some(pause) = next_look { sleep(pause).await } else { pending().await } };
        let news = select! {
            () = stop.cancelled() => return,
            () = next_look => writer.check_file(),
            _ = hangups.recv() => writer.reload(),
            _ = sessions_end.tick() => {
                writer.clear_sessions();
                Ok(None)
            }
        };
        match news {
            Ok(None) => {}
            Ok(Some(authorities)) => {
                metrics.reloaded(ReloadTarget::CaFile, true);
                info!(target: AUDIT, authorities, "upstream.ca_file was read again; new connections trust what it holds now");
            }
            Err(problem) => {
                metrics.reloaded(ReloadTarget::CaFile, false);
                let problem = error_chain::one_line(&problem);
                error!(target: AUDIT, problem, "upstream.ca_file cannot be used; the trust of before stays");
            }
        }
    }
}
