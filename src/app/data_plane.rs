//! Starts the workers that serve requests.

use std::sync::Arc;

use tracing::warn;

use super::{StartError, shared::Shared, state_files::StateFiles, token_refresh::TokenRefresh, webhooks::WebhookKeys};
use crate::{
    message::transport::PerTransport,
    proxy::{self, BillingBudget, ConcurrencyLayer, UpstreamPool},
    server::{self, Server},
    token::Clock,
};

/// The daily budget of billable calls, if configured. It is persisted in `states`.
pub(super) fn billing_budget(
    config: &proxy::Config,
    shared: &Shared,
    states: &mut StateFiles,
) -> Option<Arc<BillingBudget>> {
    let budget = BillingBudget::new(config.billable_per_day?, Clock::Boot, Arc::clone(&shared.metrics));
    if !states.are_kept() {
        warn!("auth.state_dir is not set: a restart resets the count for policy.billable_per_day");
    }
    states.add(Arc::clone(&budget));
    Some(budget)
}

/// Starts the workers. Each has its own pool of upstream connections, and one stack of layers per transport on top of it.
///
/// # Errors
///
/// Fails when a worker thread cannot be started.
pub(super) fn start(
    server: &server::Config,
    config: &proxy::Config,
    (refresh, webhook_keys, billing): (&TokenRefresh, &WebhookKeys, Option<&Arc<BillingBudget>>),
    shared: &Shared,
) -> Result<Arc<Server>, StartError> {
    let Shared { resolver, trust_store, metrics, drain, head_budget } = shared;
    let state = proxy::ProxyState {
        concurrency: ConcurrencyLayer::new(config, Arc::clone(metrics)),
        token: refresh.token.clone(),
        partner: refresh.partner.clone(),
        billing: billing.cloned(),
        signing_keys: webhook_keys.shared(),
        control: refresh.control.clone(),
        metrics: Arc::clone(metrics),
        drain: drain.clone(),
    };
    let stack = || {
        let pool = UpstreamPool::new(config, resolver.for_runtime(), trust_store.clone(), Arc::clone(metrics));
        PerTransport::new(|transport| proxy::stack(config, transport, pool.clone(), state.clone()))
    };
    let started = Server::start(server, Arc::clone(metrics), head_budget.clone(), drain.clone(), stack);
    Ok(Arc::new(started.map_err(StartError::Worker)?))
}
