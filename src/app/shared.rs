//! Handles that most parts of the process use.

use std::sync::Arc;

use crate::{
    dns::Resolver,
    process::drain::Drain,
    server::{self, HeadBudget},
    telemetry::Metrics,
    tls::TrustStore,
};

/// Shared handles. Each part keeps clones of those that it needs.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) resolver: Resolver,
    pub(super) trust_store: TrustStore,
    pub(super) metrics: Arc<Metrics>,
    /// The stage of the shutdown.
    pub(super) drain: Drain,
    pub(super) head_budget: HeadBudget,
}

impl Shared {
    pub(super) fn new(trust_store: TrustStore, drain: Drain, limits: &server::Config) -> Self {
        let metrics = Arc::new(Metrics::new());
        let head_budget = HeadBudget::new(limits.unfinished_heads_bytes, Arc::clone(&metrics));
        Self { resolver: Resolver::new(), trust_store, metrics, drain, head_budget }
    }
}
