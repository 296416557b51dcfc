//! What became of the vendor's webhooks.

use prometheus::IntCounter;

use super::factory::MetricFactory;

labels! {
    /// What became of a request to the webhook listener.
    pub enum WebhookOutcome {
        /// Genuine, and the service answered 2xx.
        Forwarded = "forwarded",
        /// A genuine `ping`, which is answered at once.
        Ping = "ping",
        /// Genuine, and forwarded before: acknowledged.
        Replayed = "replayed",
        /// Not genuine: 401.
        Refused = "refused",
        /// There is no key to verify it by, as before the credentials have been read: 503.
        NoKey = "no_key",
        /// No request that could be a webhook: another method, or a body that is too large or did not arrive.
        Invalid = "invalid",
        /// Beyond the limits of rate, concurrency or memory.
        Limited = "limited",
        /// Genuine, while the same one is being forwarded.
        InProgress = "in_progress",
        /// Genuine, and the service did not answer 2xx.
        ServiceRefused = "service_refused",
        /// Genuine, and the service could not be reached, or its answer did not come in time.
        ServiceFailed = "service_failed",
    }
}

/// The counters of webhooks.
#[derive(Debug)]
pub(super) struct WebhookMetrics([IntCounter; WebhookOutcome::LABELS.len()]);

impl WebhookMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let help = "Requests to the webhook listener, by what became of them.";
        Self(factory.counters_by_label("webhooks_total", help, "outcome", WebhookOutcome::LABELS))
    }

    pub(super) fn count(&self, outcome: WebhookOutcome) {
        self.0[outcome as usize].inc();
    }
}
