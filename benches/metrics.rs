//! The cost of a request's metrics, on one thread and on two threads that share the counters.
//!
//! ```console
//! $ cargo bench --bench metrics
//! ```
//!
//! Prints nanoseconds per request, and the size and rendering time of a page on which every operation was used.

#![expect(clippy::print_stdout, reason = "a benchmark talks to a terminal")]
#![expect(clippy::disallowed_types, reason = "threads without a runtime are measured in real time")]

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use finicity_proxy::{
    telemetry::Metrics,
    vendor::catalogue::{Catalogue, Operation},
};
use http::{Method, StatusCode};

const REQUESTS: u32 = 2_000_000;

fn main() {
    let metrics = Metrics::new();
    let route = Catalogue::us().find(&Method::GET, "/aggregation/v1/customers");
    for threads in [1, 2] {
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..REQUESTS).for_each(|_| request(&metrics, black_box(route))));
            }
        });
        println!("{threads} thread(s): {:.0} ns/request", started.elapsed().as_secs_f64() / f64::from(REQUESTS) * 1e9);
    }

    let operations = Catalogue::us().operations().len();
    for index in 0..operations {
        let template = format!("/aggregation/v1/{index:04}/{{customerId}}/accounts/{{accountId}}/transactions");
        metrics.route(Some(index), "DELETE", &template, true).finished(Some(StatusCode::OK), Duration::from_millis(9));
    }
    let started = Instant::now();
    let bytes = metrics.render().len();
    println!("a page with {operations} operations: {} KiB in {:.1?}", bytes / 1024, started.elapsed());
}

/// Counts what the layers count for a request on a reused connection.
fn request(metrics: &Metrics, route: Operation) {
    metrics.in_flight().inc();
    metrics.upstream().idle().dec();
    metrics.upstream().request_sent(true);
    metrics.upstream().idle().inc();
    let counters = metrics.route(route.index(), route.method(), route.template(), route.is_billable());
    counters.finished(Some(StatusCode::OK), black_box(Duration::from_millis(42)));
    counters.reached_upstream();
    counters.observe_first_byte(black_box(Duration::from_millis(40)));
    metrics.in_flight().dec();
}
