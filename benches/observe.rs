//! The cost of observing a request: its access line, formatted and passed to the log writer's thread, and its metrics.
//!
//! ```console
//! $ cargo bench --bench observe
//! ```
//!
//! Prints nanoseconds per request: wall-clock time on the requesting threads, one and two at once, and CPU time of all threads, including the
//! log writer and its search for secrets. Some lines are dropped, which costs less; their number is printed too.
//! Exit code 1 if a request costs more than [`TARGET`].

#![expect(clippy::print_stdout, reason = "a benchmark talks to a terminal")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "threads without a runtime are measured in real time"
)]

use std::{
    fs, io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use finicity_proxy::{
    secret::Secret,
    telemetry::{
        AccessLine, Metrics,
        logging::{self, Config, Format},
    },
};
use http::StatusCode;

/// The maximum cost of a request's access line and metrics.
const TARGET: Duration = Duration::from_micros(3);

const REQUESTS: u32 = 400_000;

/// The log writer catches up in a pause after each burst: a real proxy does not get requests as fast as this loop makes them.
const BURST: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(6);

fn main() -> ExitCode {
    let config = Config { format: Some(Format::Json), level: Default::default() };
    logging::init_to(&config, io::sink(), false).expect("logging is initialized once");
    // As many secrets as during a rotation, with tokens of a typical length.
    for (holder, lengths) in [("the credentials", [20, 32]), ("new credentials", [20, 32]), ("the token", [900, 0])] {
        for version in 0..2 {
            let secret = |length: usize| Secret::new((0..length).map(|_| fastrand::alphanumeric() as u8).collect());
            let known = lengths.map(|length| length + version).into_iter().filter(|length| *length > 6);
            logging::scrubber().register(holder, known.map(secret).collect());
        }
    }
    let metrics = Metrics::new();
    let mut slowest = Duration::ZERO;
    println!("what                 threads  ns/request  CPU ns/request of all threads  dropped");
    for (what, line) in [("line and metrics", true), ("metrics alone", false)] {
        for threads in [1, 2] {
            let (cpu, dropped) = (cpu(), logging::dropped_lines());
            let took = thread::scope(|scope| {
                let made: Vec<_> = (0..threads).map(|_| scope.spawn(|| requests(&metrics, line))).collect();
                let took = made.into_iter().map(|made| made.join().expect("no thread panics"));
                took.max().expect("there is a thread")
            });
            logging::flush();
            let all = (self::cpu() - cpu) / (f64::from(REQUESTS) * f64::from(threads)) * 1e9;
            let dropped = logging::dropped_lines() - dropped;
            println!("{what:<19}  {threads:>7}  {:>10}  {all:>29.0}  {dropped:>7}", took.as_nanos());
            slowest = slowest.max(took);
        }
    }
    if slowest > TARGET {
        println!("too slow: {slowest:?} per request, the maximum is {TARGET:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Observes requests. Returns the time per request.
fn requests(metrics: &Metrics, line: bool) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..REQUESTS / BURST {
        let started = Instant::now();
        for number in 0..BURST {
            request(metrics, line, number);
        }
        took += started.elapsed();
        thread::sleep(PAUSE);
    }
    took / REQUESTS
}

fn request(metrics: &Metrics, line: bool, number: u32) {
    let first_byte = Duration::from_micros(u64::from(number) * 7 + 1234);
    metrics.in_flight().inc();
    metrics.upstream().request_sent(true);
    let route = metrics.route(Some(7), "GET", "/aggregation/v1/customers/{customerId}/accounts", true);
    route.finished(Some(StatusCode::OK), first_byte * 2);
    route.reached_upstream();
    route.observe_first_byte(first_byte);
    metrics.in_flight().dec();
    if !line {
        return;
    }
    AccessLine {
        method: "GET",
        route: "/aggregation/v1/customers/{customerId}/accounts",
        path_prefix: None,
        transport: "tcp",
        status: Some(200),
        upstream_status: Some(200),
        policy_denial: None,
        vendor_code: None,
        outcome: "complete",
        duration: first_byte * 2,
        queue_wait: None,
        token_wait: None,
        first_byte: Some(first_byte),
        request_bytes: 0,
        response_bytes: 1234,
        request_id: "7b1f2c9e-0000-4000-8000-123456789abc",
        token_version: Some(17),
        connection_reused: Some(true),
        replayed: false,
        retried: false,
        is_own_failure: false,
        error: None,
        cause: None,
    }
    .log();
}

/// The CPU time of all threads so far, in seconds. The kernel's unit is 10 ms, which is precise enough for the seconds measured here.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux has this file");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a line").split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
