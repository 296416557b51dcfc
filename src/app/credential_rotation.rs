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
/// Credentials that cannot be used are logged, and those in use stay.
pub(super) async fn follow(rotation: Rotation, mut hangups: Signal, stop: CancellationToken) {
    let Rotation { mut source, scheme, control, scrubber, metrics } = rotation;
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
                scrubber.register("new credentials", credentials.secrets());
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
