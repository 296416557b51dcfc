//! How a connection to the upstream lives and ends, for the metrics.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::telemetry::{Closed, Metrics};

/// Counts a connection as open, and remembers why it is going to end. Costs a request nothing.
#[derive(Debug)]
pub(super) struct Life {
    metrics: Arc<Metrics>,
    reason: OnceLock<Closed>,
}

impl Life {
    /// The life of a connection that took so long to open.
    pub(super) fn begin(metrics: Arc<Metrics>, took: Duration) -> Arc<Self> {
        metrics.upstream().opened(took);
        Arc::new(Self { metrics, reason: OnceLock::new() })
    }

    /// Notes why it ends; the first reason is the one that counts.
    pub(super) fn ends_because(&self, reason: Closed) {
        let _ = self.reason.set(reason);
    }

    /// To be held while an answer is waited for. Should it be dropped before [`Pending::ended`], that ends the connection.
    pub(super) fn pending(self: &Arc<Self>) -> Pending {
        Pending(Some(Arc::clone(self)))
    }
}

/// Counts the end of a connection when it is dropped. It belongs to whatever the connection belongs to.
#[derive(Debug)]
pub(super) struct Open(pub(super) Arc<Life>);

impl Drop for Open {
    fn drop(&mut self) {
        let Life { metrics, reason } = &*self.0;
        metrics.upstream().closed(reason.get().copied().unwrap_or(Closed::Upstream));
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending(Option<Arc<Life>>);

impl Pending {
    /// It waits no more.
    pub(super) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(life) = &self.0 {
            life.ends_because(Closed::Unfinished);
        }
    }
}
