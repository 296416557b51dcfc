//! Starts the workers that serve requests.

use std::sync::Arc;

use super::{StartError, shared::Shared, token_refresh::TokenRefresh};
use crate::{
    message::transport::PerTransport,
    proxy::{self, ConcurrencyLayer, UpstreamPool},
    server::{self, EvictionResponse, Server},
};

/// Starts the workers. Each has its own pool of upstream connections, and one stack of layers for each transport over it.
///
/// # Errors
///
/// When a worker thread cannot be started.
pub(super) fn start(
    server: &server::Config,
    config: &proxy::Config,
    refresh: &TokenRefresh,
    shared: &Shared,
) -> Result<Arc<Server>, StartError> {
    let Shared { resolver, trust_store, metrics, drain, head_budget } = shared;
    let state = proxy::ProxyState {
        concurrency: ConcurrencyLayer::new(config, Arc::clone(metrics)),
        token: refresh.token.clone(),
        credentials: refresh.in_use.clone(),
        control: refresh.control.clone(),
        metrics: Arc::clone(metrics),
        drain: drain.clone(),
    };
    let stack = || {
        let pool = UpstreamPool::new(config, resolver.for_runtime(), trust_store.clone(), Arc::clone(metrics));
        PerTransport::new(|transport| proxy::stack(config, transport, pool.clone(), state.clone()))
    };
    let given_up =
        EvictionResponse { text: proxy::UNFINISHED_HEAD_RESPONSE, code: proxy::Code::RequestTimeout.as_str() };
    let started = Server::start(server, Arc::clone(metrics), head_budget.clone(), given_up, drain.clone(), stack);
    Ok(Arc::new(started.map_err(StartError::Worker)?))
}
