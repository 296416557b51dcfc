//! A soak test: requests at a steady rate, short-lived tokens, and faults on both sides. The resources of the process must not grow.
//!
//! The variable `SOAK_SECONDS` sets its duration, 6 s by default: `SOAK_SECONDS=7200 cargo test --test it soak -- --nocapture`.

use std::{
    collections::BTreeMap,
    env, fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    TIMEOUT,
    client::Response,
    process::Proxy,
    upstream::{ReceivedRequest, Reply, Upstream, token, token_response},
};

/// The number of clients, which together make 200 requests a second.
const CLIENTS: u64 = 8;
const BEAT: Duration = Duration::from_millis(40);

/// Short, so that tokens are obtained often.
const TOKEN_LIFETIME: Duration = Duration::from_secs(20);

/// The maximum growth of the process after the first part of the test, in KiB. Allocators keep freed memory, so the size settles slowly;
/// a leak of one response head per request would be a hundred times this in an hour.
const GROWTH_KIB: u64 = 6 * 1024;

/// The maximum number of open files in addition to those before the first request: connections of the measurement and of a token request.
const OWN_FILES: usize = 3;

const STREAM: u64 = 300_000;

/// The state of the upstream: the tokens that it has issued, and violations that it has seen.
#[derive(Default)]
struct Watch {
    issued: Mutex<Vec<Instant>>,
    violations: Mutex<Vec<String>>,
    forwarded: AtomicU64,
}

impl Watch {
    fn reply(&self, request: &ReceivedRequest) -> Reply {
        if request.target() == "/oauth/token" {
            let mut issued = self.issued.lock().unwrap();
            issued.push(Instant::now());
            // Every third token request fails.
            if issued.len().is_multiple_of(3) {
                return Reply::status(503, "Service Unavailable", "{}");
            }
            return Reply::json(&token_response(issued.len() as u64, TOKEN_LIFETIME.as_secs()));
        }
        self.forwarded.fetch_add(1, SeqCst);
        self.check_token(request);
        match request.target() {
            "/status" => Reply::status(503, "Service Unavailable", "{}"),
            "/refused" => Reply::status(401, "Unauthorized", r#"{"code":"10023","message":"Expired"}"#),
            "/cut" => Reply::Cut(Vec::new()),
            "/reset" => Reply::Reset(Vec::new()),
            "/half" => Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()),
            "/stream" => Reply::Stream(STREAM),
            _ => Reply::json("{}"),
        }
    }

    /// Records a request with an expired or unknown token as a violation.
    fn check_token(&self, request: &ReceivedRequest) {
        let issued = self.issued.lock().unwrap();
        let authorization = request.headers("authorization");
        let matches = |version: &usize| authorization == [format!("Bearer {}", token(*version as u64))];
        let age = (1..=issued.len()).rev().find(matches).map(|version| issued[version - 1].elapsed());
        if age.is_none_or(|age| age > TOKEN_LIFETIME) {
            self.violations.lock().unwrap().push(format!("a token of age {age:?} for {}", request.target()));
        }
    }
}

/// The resources of the process while no client is connected.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_kib: u64,
    files: usize,
    threads: u64,
}

/// Waits until all connections are closed, including those of the pool, and measures the resources.
fn measure(proxy: &Proxy, max_files: usize) -> Held {
    for metric in ["connections", "requests_in_flight", "requests_queued"] {
        proxy.wait_for_metric(metric, 0);
    }
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let held = Held {
            resident_kib: proxy.process.status_kib("VmRSS:"),
            files: open_files(proxy.process.id()),
            threads: proxy.process.status_kib("Threads:"),
        };
        if held.files <= max_files {
            return held;
        }
        assert!(Instant::now() < deadline, "{held:?}, expected at most {max_files} files");
        thread::yield_now();
    }
}

/// The number of open files of the process; 0 if this test cannot read it.
fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Makes the requests of one client until `stop` is closed: mostly plain ones on one connection, and in each hundred one fault of each kind.
fn call(proxy: &Proxy, first: u64, stop: &mpsc::Receiver<()>, seen: &Mutex<BTreeMap<String, u64>>) {
    let mut client = proxy.connect();
    let note = |what: &str, response: std::io::Result<Response>| {
        let outcome = response.map_or_else(
            |_| "broken".to_owned(),
            |response| match response.header("x-finicity-proxy-error") {
                Some(code) => format!("{} {code}", response.status),
                None => response.status.to_string(),
            },
        );
        *seen.lock().unwrap().entry(format!("{what}: {outcome}")).or_default() += 1;
        outcome == "broken"
    };
    let mut beat = Instant::now();
    for number in first.. {
        let target = match number % 100 {
            10 => "/status",
            20 => "/refused",
            30 => "/cut",
            40 => "/reset",
            50 => "/half",
            60 => "/stream",
            _ => "/x",
        };
        let request = format!("{target} HTTP/1.1\r\nHost: localhost\r\n");
        match number % 100 {
            // The client disconnects in the middle of its request, or without waiting for the response.
            70 => proxy.connect().send(format!("GET {request}")),
            71 => proxy.connect().send(format!("GET {request}\r\n")),
            72 => {
                let mut once = proxy.connect();
                once.send(format!("GET {request}Connection: close\r\n\r\n"));
                note("close", once.read_response(false));
            }
            73 => {
                client.send(format!("POST {request}Content-Length: 100000\r\n\r\n{}", "x".repeat(100_000)));
                note("post", client.read_response(false));
            }
            74 => {
                client = proxy.connect();
                client.send("nonsense\r\n\r\n");
                note("nonsense", client.read_response(false));
                client = proxy.connect();
            }
            _ => {
                client.send(format!("GET {request}\r\n"));
                if note(target, client.read_response(false)) {
                    client = proxy.connect();
                }
            }
        }
        beat += BEAT;
        let pause = beat.saturating_duration_since(Instant::now());
        if !matches!(stop.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

/// Makes requests for `time`, and counts the outcomes in `seen`.
fn round(proxy: &Proxy, upstream: &Upstream, time: Duration, seen: &Mutex<BTreeMap<String, u64>>) {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let stops: Vec<mpsc::Sender<()>> = (0..CLIENTS)
            .map(|client| {
                let (stop, stopped) = mpsc::channel();
                scope.spawn(move || call(proxy, client * 12, &stopped, seen));
                stop
            })
            .collect();
        let (_never, ticks) = mpsc::channel::<()>();
        while Instant::now() < end {
            let _ = ticks.recv_timeout(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())));
            upstream.clear_received();
        }
        drop(stops);
    });
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what a long run is for")]
fn q16_a_steady_load_with_faults_leaks_nothing() {
    let time = Duration::from_secs(env::var("SOAK_SECONDS").map_or(6, |seconds| seconds.parse().unwrap()));
    let watch = Arc::new(Watch::default());
    let watching = Arc::clone(&watch);
    let upstream = Upstream::start_raw(move |request| watching.reply(request));
    let variables = [
        ("FINICITY__LOG__LEVEL", "error,finicity_proxy::app=info,finicity_proxy::audit=info"),
        ("FINICITY__UPSTREAM__POOL_IDLE_TIMEOUT", "1s"),
        ("FINICITY__UPSTREAM__CONNECTION_AGE", "5s"),
    ];
    let mut proxy = Proxy::start_with(&upstream, &variables);
    let max_files = open_files(proxy.process.id()) + OWN_FILES;
    let seen = Mutex::new(BTreeMap::new());
    let first = (time / 3).min(Duration::from_secs(120));
    round(&proxy, &upstream, first, &seen);
    let early = measure(&proxy, max_files);
    round(&proxy, &upstream, time.saturating_sub(first), &seen);
    let late = measure(&proxy, max_files);

    let seen = seen.into_inner().unwrap();
    println!("{early:?}\n{late:?}\n{seen:#?}");
    // DNS lookups run on temporary threads.
    assert!(late.threads <= early.threads + CLIENTS, "{early:?} {late:?}");
    assert!(late.resident_kib <= early.resident_kib + GROWTH_KIB, "{early:?} {late:?}");
    assert_eq!(*watch.violations.lock().unwrap(), Vec::<String>::new());
    let expected = [
        "/x: 200",
        "/stream: 200",
        "/status: 503",
        "/refused: 401",
        "/cut: 502 upstream_unreachable",
        "/half: broken",
        "/reset: 502 upstream_unreachable",
        "post: 200",
        "close: 200",
        "nonsense: 400 bad_request",
    ];
    for (what, times) in &seen {
        assert!(expected.contains(&what.as_str()), "{what}, {times} times, in {seen:#?}");
    }
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
}
