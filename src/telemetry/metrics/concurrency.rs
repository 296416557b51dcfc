//! The limit of requests in flight and its queue.

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::factory::MetricFactory;

/// Buckets for the time in the queue: `limits.queue_timeout` is 1 s by default, and 60 s at most.
const QUEUE_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Metrics of requests in flight and of requests that wait for a permit.
#[derive(Debug)]
pub(super) struct ConcurrencyMetrics {
    pub(super) in_flight: IntGauge,
    pub(super) queued: IntGauge,
    pub(super) queue_wait: Histogram,
    /// By reason.
    pub(super) shed: IntCounterVec,
}

impl ConcurrencyMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        Self {
            in_flight: factory.gauge("requests_in_flight", "Requests in flight, including responses being streamed."),
            queued: factory.gauge("requests_queued", "Requests waiting because limits.concurrency is reached."),
            queue_wait: factory.histogram(
                "queue_wait_seconds",
                "Time that queued requests waited for a permit.",
                &QUEUE_BUCKETS_S,
            ),
            shed: factory.counter_vec(
                "requests_shed_total",
                "Requests rejected because they got no permit in time, by reason.",
                &["reason"],
            ),
        }
    }
}
