//! The limit of requests in flight and its queue.

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::factory::MetricFactory;

/// Times in the queue: `limits.queue_timeout` is a second unless somebody changes it, and a minute would be a mistake.
const QUEUE_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The metrics of the requests in flight and of those that wait for a permit.
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
            in_flight: factory
                .gauge("requests_in_flight", "Requests being worked on, answers being streamed included."),
            queued: factory
                .gauge("requests_queued", "Requests that wait, since limits.concurrency are being worked on."),
            queue_wait: factory.histogram(
                "queue_wait_seconds",
                "Time that a request waited for a place, if it did.",
                &QUEUE_BUCKETS_S,
            ),
            shed: factory.counter_vec(
                "requests_shed_total",
                "Requests that found no place in time, by reason.",
                &["reason"],
            ),
        }
    }
}
