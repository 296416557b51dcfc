//! Builds what obtains and holds the token: the lock-out guard, the token endpoint, the refresher.

use std::{path::Path, sync::Arc};

use tracing::warn;

use super::{StartError, startup::Durability};
use crate::{
    credentials::lockout::Lockout,
    dns::Resolver,
    telemetry::{Metrics, logging},
    tls::TrustStore,
    token::{self, Clock, PendingRefresher, TokenControl, TokenEndpoint, TokenReader},
};

/// The refresher, which has not been started, and the handles to it.
pub(super) struct TokenRefresh {
    pub(super) refresher: PendingRefresher<TokenEndpoint>,
    pub(super) token: TokenReader,
    pub(super) control: TokenControl,
    pub(super) durability: Durability,
}

/// Builds the refresher, which has no credentials yet.
///
/// # Errors
///
/// When the lock-out state in `state_dir` or the token endpoint cannot be used.
pub(super) fn build(
    config: token::Config,
    state_dir: Option<&Path>,
    (resolver, trust_store): (Resolver, TrustStore),
    metrics: &Arc<Metrics>,
) -> Result<TokenRefresh, StartError> {
    let lockout = Lockout::open(state_dir)?;
    let durability = Durability::of(state_dir.filter(|_| lockout.is_persistent()));

    let (writer, token) = token::channel(Clock::Boot, config.token_wait);
    let (control, commands) = token::command_channel();
    let default_lifetime = config.default_lifetime;
    let startup_delay = config.startup_jitter.mul_f64(fastrand::f64());
    let endpoint = TokenEndpoint::new(config, resolver, trust_store)?;
    let metrics = Arc::clone(metrics);
    let refresher = PendingRefresher::new(writer, endpoint, lockout, commands, default_lifetime, metrics)
        .with_scrubber(logging::scrubber())
        .delayed(startup_delay);
    Ok(TokenRefresh { refresher, token, control, durability })
}

/// Warns where a rejection of real credentials is forgotten at a restart.
pub(super) fn warn_of_memory(durability: Durability, state_dir: Option<&Path>) {
    if durability == Durability::Memory {
        let why = if state_dir.is_none() { "is not set" } else { "is on a read-only file system" };
        warn!("auth.state_dir {why}: a rejection of the credentials is forgotten at the next restart");
    }
}
