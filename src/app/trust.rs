//! Follows `upstream.ca_file`, so that an authority can be added or removed without a restart.

use std::time::Duration;

use tokio::{select, signal::unix::Signal, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{cause, tls::TrustWriter};

const AUDIT: &str = "finicity_proxy::audit";

/// How often the file is looked at. A change counts when two looks have seen it, so within twice this time; the kubelet takes up
/// to a minute to bring it.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Looks at the file every few seconds, and reads it again at each of `hangups`, until `stop` is cancelled. A file that cannot be
/// used is told, once, and the trust of before stays.
pub(super) async fn follow(mut writer: TrustWriter, mut hangups: Signal, stop: CancellationToken) {
    loop {
        let news = select! {
            () = stop.cancelled() => return,
            () = sleep(POLL_INTERVAL) => writer.look(),
            _ = hangups.recv() => writer.reload(),
        };
        match news {
            Ok(None) => {}
            Ok(Some(authorities)) => {
                info!(target: AUDIT, authorities, "upstream.ca_file was read again; new connections trust what it holds now");
            }
            Err(problem) => {
                let problem = cause::line(&problem);
                error!(target: AUDIT, problem, "upstream.ca_file cannot be used; the trust of before stays");
            }
        }
    }
}
