//! Starts the workers that serve requests.

use std::sync::Arc;

use super::StartError;
use crate::{
    dns::Resolver,
    message::transport::PerTransport,
    proxy::{self, UpstreamPool},
    server::{self, HeadBudget, Server},
    tls::TrustStore,
};

/// Starts the workers. Each has its own pool of upstream connections, and one stack of layers for each transport over it.
///
/// # Errors
///
/// When a worker thread cannot be started.
pub(super) fn start(
    server: &server::Config,
    config: &proxy::Config,
    proxy_state: &proxy::ProxyState,
    resolver: &Resolver,
    trust_store: &TrustStore,
    heads: HeadBudget,
) -> Result<Arc<Server>, StartError> {
    let stack = || {
        let pool =
            UpstreamPool::new(config, resolver.for_runtime(), trust_store.clone(), Arc::clone(&proxy_state.metrics));
        PerTransport::new(|transport| proxy::stack(config, transport, pool.clone(), proxy_state.clone()))
    };
    let (metrics, drain) = (Arc::clone(&proxy_state.metrics), proxy_state.drain.clone());
    let started = Server::start(server, metrics, heads, drain, stack);
    Ok(Arc::new(started.map_err(StartError::Worker)?))
}
