//! The results of the probes.

use prometheus::IntGauge;

use super::factory::MetricFactory;

/// Gauges for the probes, set at each scrape.
#[derive(Debug)]
pub(super) struct HealthMetrics {
    live: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
}

impl HealthMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        Self {
            live: factory.gauge("live", "1 while /livez passes: the event loops respond."),
            ready: factory
                .gauge("ready", "1 while /readyz passes: a token was obtained and the process is not draining."),
            draining: factory
                .gauge("draining", "1 while the process is shutting down and finishes requests in flight."),
        }
    }

    pub(super) fn set(&self, live: bool, ready: bool, draining: bool) {
        self.live.set(live.into());
        self.ready.set(ready.into());
        self.draining.set(draining.into());
    }
}
