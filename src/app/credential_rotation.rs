//! Follows the source of the credentials, and hands new ones to the refresher.

use std::sync::Arc;

use tokio::{select, signal::unix::Signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    credentials::{self, CredentialSource, Scheme},
    error_chain,
    telemetry::{AUDIT, Metrics, ReloadTarget, Scrubber},
    token::TokenControl,
};

/// Loads the credentials from `source` again whenever it reports a change and at each of `hangups`, until `stop` is cancelled.
/// Credentials that cannot be used are logged, and those in use stay.
pub(super) async fn follow(
    mut source: Box<dyn CredentialSource>,
    scheme: Option<Scheme>,
    control: TokenControl,
    scrubber: Scrubber,
    metrics: Arc<Metrics>,
    mut hangups: Signal,
    stop: CancellationToken,
) {
    loop {
        select! {
            () = stop.cancelled() => return,
            () = source.changed() => {}
            _ = hangups.recv() => info!(target: AUDIT, "SIGHUP: reading the credentials again"),
        }
        let stable_load = async {
            source.wait_until_stable().await;
            credentials::load(source.as_mut(), scheme).await
        };
        let loaded = select! {
            () = stop.cancelled() => return,
            loaded = stable_load => loaded,
        };
        match loaded {
            Ok(credentials) => {
                metrics.reloaded(ReloadTarget::Credentials, true);
                scrubber.know("new credentials", credentials.secrets());
                control.rotate(credentials).await;
            }
            Err(problems) => {
                metrics.reloaded(ReloadTarget::Credentials, false);
                for problem in problems {
                    let problem = error_chain::one_line(&problem);
                    error!(target: AUDIT, problem, "the credentials cannot be used; those in use stay");
                }
            }
        }
    }
}
