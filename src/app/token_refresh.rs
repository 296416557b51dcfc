//! Builds what obtains and holds the token: the lock-out guard, the token endpoint, the refresher.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{StartError, shared::Shared, startup::Durability};
use crate::{
    credentials::{CredentialSource, Credentials, lockout::Lockout},
    telemetry::{AUDIT, logging},
    token::{self, Clock, Refresher, TokenControl, TokenEndpoint, TokenReader},
};

/// The refresher, which has not been started, and the handles to it.
pub(super) struct TokenRefresh {
    pub(super) refresher: Refresher<TokenEndpoint>,
    pub(super) token: TokenReader,
    /// The credentials in use.
    pub(super) in_use: watch::Receiver<Credentials>,
    pub(super) control: TokenControl,
    pub(super) durability: Durability,
}

/// Builds the refresher of `credentials`, which came from `source`.
///
/// # Errors
///
/// When the lock-out state in `state_dir` or the token endpoint cannot be used.
pub(super) fn build(
    config: token::Config,
    credentials: Credentials,
    source: &dyn CredentialSource,
    state_dir: Option<&Path>,
    shared: &Shared,
) -> Result<TokenRefresh, StartError> {
    let lockout = Lockout::open(state_dir)?;
    let durability = Durability::of(state_dir.filter(|_| lockout.is_persistent()));
    let scheme = credentials.scheme.as_str();
    info!(target: AUDIT, source = source.kind(), scheme, "credentials were loaded");

    let (writer, token) = token::channel(Clock::Boot, config.token_wait);
    let (control, commands) = token::command_channel();
    let default_lifetime = config.default_lifetime;
    let startup_delay = config.startup_jitter.mul_f64(fastrand::f64());
    let (in_use_writer, in_use) = watch::channel(credentials.clone());
    let endpoint = TokenEndpoint::new(config, shared.resolver.clone(), shared.trust_store.clone())?;
    let metrics = Arc::clone(&shared.metrics);
    let refresher = Refresher::new(writer, endpoint, credentials, lockout, commands, default_lifetime, metrics)
        .with_scrubber(logging::scrubber())
        .with_credentials_in_use(in_use_writer)
        .delayed(startup_delay);
    Ok(TokenRefresh { refresher, token, in_use, control, durability })
}

/// Warns where a rejection of real credentials is forgotten at a restart.
pub(super) fn warn_of_memory(durability: Durability, state_dir: Option<&Path>) {
    if durability == Durability::Memory {
        let why = if state_dir.is_none() { "is not set" } else { "is on a read-only file system" };
        warn!("auth.state_dir {why}: a rejection of the credentials is forgotten at the next restart");
    }
}
