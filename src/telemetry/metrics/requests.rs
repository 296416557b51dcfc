//! Metrics of requests, by operation of the vendor's API.

use std::{sync::OnceLock, time::Duration};

use http::StatusCode;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::factory::MetricFactory;

/// From 1 ms to the 240 s that the slowest calls may take.
pub(super) const LATENCY_BUCKETS_S: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 90.0, 240.0];

/// Status classes: `1xx` to `5xx`, and `aborted` for a request that ended without a response.
const CLASSES: [&str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Number of entries: more than any catalogue has operations. The last one is for requests outside the catalogue.
const MAX_ROUTES: usize = 512;

/// The counters of all routes. Those of a route are created when it is first used.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    routes: Box<[OnceLock<RouteMetrics>]>,
    requests: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    billable: IntCounterVec,
}

/// The counters of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    by_class: [IntCounter; CLASSES.len()],
    duration: Histogram,
    first_byte: Histogram,
    /// `None` if the operation is free.
    billable: Option<IntCounter>,
}

impl RouteMetrics {
    /// Counts a request that ended `elapsed` after its head. `status` is that of the response, or `None` if there was none.
    pub fn finished(&self, status: Option<StatusCode>, elapsed: Duration) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(CLASSES.len() - 1));
        self.by_class[class].inc();
        self.duration.observe(elapsed.as_secs_f64());
    }

    /// Records the time to the first byte of the upstream's response.
    pub fn observe_first_byte(&self, elapsed: Duration) {
        self.first_byte.observe(elapsed.as_secs_f64());
    }

    /// Counts a request that reached the upstream, if the vendor may bill it.
    pub fn reached_upstream(&self) {
        if let Some(billable) = &self.billable {
            billable.inc();
        }
    }
}

impl RequestMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        let route = ["method", "route"];
        Self {
            routes: (0..MAX_ROUTES).map(|_| OnceLock::new()).collect(),
            requests: factory.counter_vec(
                "requests_total",
                "Completed requests, by operation of the vendor's API and by status class of the response.",
                &["method", "route", "status_class"],
            ),
            duration: factory.histogram_vec(
                "request_duration_seconds",
                "Time from the request head until the response was fully read by the client, or aborted.",
                &route,
                &LATENCY_BUCKETS_S,
            ),
            first_byte: factory.histogram_vec(
                "upstream_first_byte_seconds",
                "Time from passing a request to the upstream connection until the response head.",
                &route,
                &LATENCY_BUCKETS_S,
            ),
            billable: factory.counter_vec(
                "billable_requests_total",
                "Requests that reached the upstream, for operations that the vendor may bill.",
                &route,
            ),
        }
    }

    /// The counters of the operation at `index` of the catalogue, or of all requests outside the catalogue.
    pub(super) fn route(&self, index: Option<usize>, method: &str, route: &str, billable: bool) -> &RouteMetrics {
        self.routes[index.unwrap_or(usize::MAX).min(MAX_ROUTES - 1)].get_or_init(|| RouteMetrics {
            by_class: CLASSES.map(|class| self.requests.with_label_values(&[method, route, class])),
            duration: self.duration.with_label_values(&[method, route]),
            first_byte: self.first_byte.with_label_values(&[method, route]),
            billable: billable.then(|| self.billable.with_label_values(&[method, route])),
        })
    }
}
