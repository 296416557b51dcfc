//! Metrics of the vendor's webhooks.

use prometheus::IntCounter;

use super::factory::MetricFactory;

labels! {
    /// The outcome of a request to the webhook listener.
    pub enum WebhookOutcome {
        /// Verified, and the service responded with 2xx.
        Forwarded = "forwarded",
        /// A verified `ping`, which is acknowledged without forwarding.
        Ping = "ping",
        /// Verified and already forwarded before; acknowledged.
        Replayed = "replayed",
        /// No valid signature: 401.
        Refused = "refused",
        /// No key for verification, for example before the credentials have been read: 503.
        NoKey = "no_key",
        /// Not a webhook: another method, or a body that is too large or incomplete.
        Invalid = "invalid",
        /// Beyond the limits of rate, concurrency or memory.
        Limited = "limited",
        /// Verified, while the same event is being forwarded.
        InProgress = "in_progress",
        /// Verified, and the service did not respond with 2xx.
        ServiceRefused = "service_refused",
        /// Verified, and the service was unreachable or did not respond in time.
        ServiceFailed = "service_failed",
    }
}

/// Counters of webhooks, by outcome.
#[derive(Debug)]
pub(super) struct WebhookMetrics([IntCounter; WebhookOutcome::LABELS.len()]);

impl WebhookMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let help = "Requests to the webhook listener, by outcome.";
        Self(factory.counters_by_label("webhooks_total", help, "outcome", WebhookOutcome::LABELS))
    }

    pub(super) fn count(&self, outcome: WebhookOutcome) {
        self.0[outcome as usize].inc();
    }
}
