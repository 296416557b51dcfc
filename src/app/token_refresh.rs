//! Builds the lock-out guard, the client of the token endpoint, and the refresher.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{StartError, credential_rotation, shared::Shared, startup::Durability, tasks::Tasks};
use crate::{
    credentials::{CredentialSource, Credentials, PartnerCredentials, lockout::Lockout},
    telemetry::logging,
    token::{self, Clock, PendingRefresher, TokenControl, TokenEndpoint, TokenReader},
};

/// The refresher, not started yet, and the handles to it.
pub(super) struct TokenRefresh {
    pub(super) refresher: RefresherTask,
    pub(super) token: TokenReader,
    /// The partner credentials in use; `None` for OAuth 2.0, and before the credentials have been read.
    pub(super) partner: watch::Receiver<Option<PartnerCredentials>>,
    pub(super) control: TokenControl,
    pub(super) durability: Durability,
}

/// The refresher, with its first credentials if they have been read.
pub(super) struct RefresherTask {
    refresher: PendingRefresher<TokenEndpoint>,
    first: Option<Credentials>,
}

impl RefresherTask {
    /// Runs the refresher as one of `tasks` until `stop` is cancelled.
    pub(super) fn spawn(self, tasks: &mut Tasks, stop: &CancellationToken) {
        const NAME: &str = "token refresher";
        match self.first {
            Some(credentials) => {
                tasks.spawn(NAME, self.refresher.with_credentials(credentials).run(stop.clone()));
            }
            None => tasks.spawn(NAME, self.refresher.run(stop.clone())),
        }
    }
}

/// Builds the refresher. `first` are the credentials from `source`, or `None` if they are sent to the refresher later.
///
/// # Errors
///
/// Fails when the lock-out state in `state_dir` cannot be opened, or the client of the token endpoint cannot be built.
pub(super) fn build(
    config: token::Config,
    first: Option<Credentials>,
    source: &dyn CredentialSource,
    state_dir: Option<&Path>,
    shared: &Shared,
) -> Result<TokenRefresh, StartError> {
    let lockout = Lockout::open(state_dir)?;
    let durability = Durability::of(state_dir.filter(|_| lockout.is_persistent()));
    if let Some(credentials) = &first {
        credential_rotation::log_loaded(source, credentials);
    }

    let (writer, token) = token::channel(Clock::Boot, config.token_wait);
    let (control, commands) = token::command_channel();
    let default_lifetime = config.default_lifetime;
    let startup_delay = config.startup_jitter.mul_f64(fastrand::f64());
    let (partner_writer, partner) = watch::channel(first.as_ref().and_then(Credentials::partner));
    let endpoint = TokenEndpoint::new(config, shared.resolver.clone(), shared.trust_store.clone())?;
    let metrics = Arc::clone(&shared.metrics);
    let refresher = PendingRefresher::new(writer, endpoint, lockout, commands, default_lifetime, metrics)
        .with_scrubber(logging::scrubber())
        .with_partner_in_use(partner_writer)
        .delayed(startup_delay);
    let refresher = RefresherTask { refresher, first };
    Ok(TokenRefresh { refresher, token, partner, control, durability })
}

/// Warns if a rejection of the credentials is lost at a restart.
pub(super) fn warn_of_memory(durability: Durability, state_dir: Option<&Path>) {
    if durability == Durability::Memory {
        let why = if state_dir.is_none() { "is not set" } else { "is on a read-only file system" };
        warn!("auth.state_dir {why}: a rejection of the credentials is lost at the next restart");
    }
}
