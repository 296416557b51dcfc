//! The results of the probes.

use prometheus::IntGauge;

use super::factory::MetricFactory;

/// The gauges of the probes, set when the metrics are read.
#[derive(Debug)]
pub(super) struct HealthMetrics {
    live: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
}

impl HealthMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        Self {
            live: factory.gauge("live", "1 while /livez passes: the event loops answer."),
            ready: factory.gauge("ready", "1 while /readyz passes: a token was obtained and nothing drains."),
            draining: factory.gauge("draining", "1 while the process ends and finishes what is in flight."),
        }
    }

    pub(super) fn set(&self, live: bool, ready: bool, draining: bool) {
        self.live.set(live.into());
        self.ready.set(ready.into());
        self.draining.set(draining.into());
    }
}
