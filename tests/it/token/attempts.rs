//! Token requests with credentials that have never obtained a token: how many the vendor receives, for each fate of the response and
//! the process.

use std::{
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
    time::Instant,
};

use rustix::process::Signal;

use crate::support::{
    process::{Proxy, serve_command},
    upstream::{ClosedPort, Gate, ReceivedRequest, Reply, Upstream, token_response},
};

fn is_attempt(request: &ReceivedRequest) -> bool {
    request.head.starts_with("POST /oauth/token ")
}

fn is_probe(request: &ReceivedRequest) -> bool {
    request.head.starts_with("GET /oauth/token ")
}

fn attempts(upstream: &Upstream) -> usize {
    upstream.received().iter().filter(|request| is_attempt(request)).count()
}

fn start(upstream: &Upstream, state: &Path) -> Proxy {
    Proxy::launch(upstream, &[("FINICITY__AUTH__STATE_DIR", state.to_str().unwrap())])
}

/// An upstream that never responds to a token request, nor to a probe.
fn hanging() -> Upstream {
    let never = Gate::new();
    Upstream::start_raw(move |_| Reply::Held(never.clone(), Vec::new()))
}

#[test]
fn a_probe_precedes_the_next_attempt_after_a_cut_response() {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&times);
    let upstream = Upstream::start_raw(move |request| {
        if is_probe(request) {
            return Reply::status(405, "Method Not Allowed", "{}");
        }
        let mut noted = noted.lock().unwrap();
        noted.push(Instant::now());
        match noted.len() {
            1 => Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"access_token\":".to_vec()),
            _ => Reply::json(&token_response(1, 3600)),
        }
    });
    let state = tempfile::tempdir().unwrap();
    let proxy = start(&upstream, state.path());
    let lost = proxy.process.wait_for_line(|line| line.contains("token refresh failed with an unknown outcome"));
    assert!(lost.contains("\"unresolved\":1"), "{lost}");
    let page = proxy.ops().get("/readyz?verbose").text();
    assert!(page.contains("token requests with an unknown outcome: 1\n"), "{page}");
    proxy.process.wait_for_log("token obtained");

    let received = upstream.received();
    let order: Vec<bool> = received.iter().map(is_probe).collect();
    assert_eq!(order, [false, true, false]);
    let times = times.lock().unwrap().clone();
    assert!(times[1] - times[0] >= Duration::from_secs(15), "{times:?}");
    let probe = &received[1];
    for name in ["finicity-app-key", "authorization", "content-type", "content-length", "cookie"] {
        assert!(probe.headers(name).is_empty(), "{}", probe.head);
    }
    let page = proxy.ops().get("/readyz?verbose").text();
    assert!(page.contains("token requests with an unknown outcome: 0\n"), "{page}");
}

#[test]
fn an_attempt_interrupted_by_an_exit_is_not_repeated() {
    let upstream = hanging();
    let state = tempfile::tempdir().unwrap();
    for (probes, signal) in [Signal::KILL, Signal::TERM, Signal::KILL].into_iter().enumerate() {
        let mut proxy = start(&upstream, state.path());
        upstream.wait_for_requests(1, is_attempt);
        upstream.wait_for_requests(probes, is_probe);
        proxy.process.signal(signal);
        proxy.process.wait();
    }
    assert_eq!(attempts(&upstream), 1);
}

#[test]
fn processes_that_share_a_state_dir_make_one_attempt() {
    let (gate, held) = (Gate::new(), Gate::new());
    let open = gate.clone();
    let upstream = Upstream::start_raw(move |request| {
        if is_probe(request) {
            return Reply::Held(held.clone(), Vec::new());
        }
        Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#).held(&gate)
    });
    let state = tempfile::tempdir().unwrap();
    let proxies: Vec<Proxy> = (0..6).map(|_| start(&upstream, state.path())).collect();
    upstream.wait_for_requests(1, is_attempt);
    open.open();
    for proxy in &proxies {
        proxy.wait_for_metric("lockout_latched", 1);
    }
    assert_eq!(attempts(&upstream), 1);
}

#[test]
fn an_attempt_that_cannot_be_recorded_is_not_sent() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let state = tempfile::tempdir().unwrap();
    drop(Proxy::start_with(&upstream, &[("FINICITY__AUTH__STATE_DIR", state.path().to_str().unwrap())]));
    assert_eq!(attempts(&upstream), 1);
    // Makes the credentials unproven again, and the file unwritable: a directory at the temporary name also stops root.
    std::fs::remove_file(state.path().join("attempts.json")).unwrap();
    std::fs::create_dir(state.path().join("attempts.json.tmp")).unwrap();
    let proxy = start(&upstream, state.path());
    let line = proxy.process.wait_for_line(|line| line.contains("the attempt cannot be recorded"));
    assert!(line.contains("attempts.json") && line.contains("make its directory writable"), "{line}");
    assert_eq!(attempts(&upstream), 1);
}

#[test]
fn proven_credentials_are_tried_immediately_after_a_restart() {
    let (state, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let first = std::sync::atomic::AtomicBool::new(true);
    let upstream = Upstream::start_raw(move |_| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
        true => Reply::json(&token_response(1, 3600)),
        false => Reply::Held(gate.clone(), Vec::new()),
    });
    let proxy = start(&upstream, state.path());
    proxy.process.wait_for_log("token obtained");
    drop(proxy);
    for restart in 2..5 {
        let _proxy = start(&upstream, state.path());
        upstream.wait_for_requests(restart, is_attempt);
    }
    assert!(!upstream.received().iter().any(is_probe));
}

/// Waits for the first failed token request, and returns the number of requests with an unknown outcome.
fn unresolved_after_a_failure(command: std::process::Command) -> String {
    let proxy = Proxy::run(command);
    proxy.process.wait_for_line(|line| line.contains("token refresh failed"));
    let page = proxy.ops().get("/readyz?verbose").text();
    let line = page.lines().find(|line| line.starts_with("token requests with an unknown outcome")).unwrap();
    line.split(": ").nth(1).unwrap().to_owned()
}

#[test]
fn a_request_that_was_not_sent_is_not_an_attempt() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let closes = TcpListener::bind("127.0.0.1:0").unwrap();
    let closing = format!("https://{}", closes.local_addr().unwrap());
    thread::spawn(move || closes.incoming().for_each(drop));
    let dead = ClosedPort::new();
    for (what, key, value) in [
        ("connection refused", "FINICITY__UPSTREAM__URL", dead.url()),
        ("TLS handshake cut", "FINICITY__UPSTREAM__URL", closing.clone()),
        ("name not found", "FINICITY__UPSTREAM__URL", "https://no-such-host.invalid".to_owned()),
        ("egress proxy down", "FINICITY__UPSTREAM__EGRESS_PROXY", dead.url().replace("https", "http")),
        ("egress proxy cut", "FINICITY__UPSTREAM__EGRESS_PROXY", closing.replace("https", "http")),
    ] {
        assert_eq!(unresolved_after_a_failure(serve_command(&upstream, &[(key, &value)])), "0", "{what}");
    }
    upstream.use_untrusted_certificate();
    assert_eq!(unresolved_after_a_failure(serve_command(&upstream, &[])), "0", "certificate not trusted");
}

#[test]
fn only_an_incomplete_response_is_an_unknown_outcome() {
    let unknown: [&[u8]; 8] = [
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 999\r\n\r\n{\"code\":24302",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"acc\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 9\r\n\r\n{}",
    ];
    let complete: [&[u8]; 4] = [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ];
    // Larger than any token response, and still read completely.
    let page = |length: usize| {
        let head = format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; 200_000]].concat()
    };
    let unknown = unknown.map(<[u8]>::to_vec).into_iter().chain([page(200_001)]).map(|bytes| (bytes, "1"));
    let complete = complete.map(<[u8]>::to_vec).into_iter().chain([page(200_000)]).map(|bytes| (bytes, "0"));
    for (bytes, expected) in unknown.chain(complete) {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
        let upstream = Upstream::start_raw(move |_| Reply::Cut(bytes.clone()));
        assert_eq!(unresolved_after_a_failure(serve_command(&upstream, &[])), expected, "{shown}");
    }
}

#[test]
fn a_rejection_with_a_truncated_body_is_a_rejection() {
    let upstream =
        Upstream::start_raw(|_| Reply::Cut(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\n{}".to_vec()));
    let state = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let proxy = start(&upstream, state.path());
        proxy.wait_for_metric("lockout_latched", 1);
        proxy.wait_for_metric("lockout_unresolved_attempts", 0);
    }
    assert_eq!(attempts(&upstream), 1);
}

#[test]
fn a_rejection_at_the_end_of_a_large_response_is_read() {
    let pad = "x".repeat(70 * 1024);
    let body = format!(r#"{{"message":"{pad}","code":24302}}"#);
    let upstream = Upstream::start_raw(move |_| Reply::status(500, "Internal Server Error", &body));
    let state = tempfile::tempdir().unwrap();
    let proxy = start(&upstream, state.path());
    proxy.wait_for_metric("lockout_latched", 1);
    assert_eq!(attempts(&upstream), 1);
}

#[test]
fn an_oversized_response_is_an_unknown_outcome() {
    for status in [200, 500] {
        // Its end, which says that the account is locked, is not read.
        let body = format!(r#"{{"message":"{}","code":24302}}"#, "x".repeat(1100 * 1024));
        let upstream = Upstream::start_raw(move |_| Reply::status(status, "Large", &body));
        assert_eq!(unresolved_after_a_failure(serve_command(&upstream, &[])), "1", "{status}");
    }
}

#[test]
fn a_close_delimited_probe_response_is_accepted() {
    // Some gateways end a close-delimited response without close_notify.
    let first = std::sync::atomic::AtomicBool::new(true);
    let upstream = Upstream::start_raw(move |request| match is_probe(request) {
        true => Reply::Cut(b"HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\n\r\n{}".to_vec()),
        false if first.swap(false, std::sync::atomic::Ordering::SeqCst) => Reply::Cut(Vec::new()),
        false => Reply::json(&token_response(1, 3600)),
    });
    let state = tempfile::tempdir().unwrap();
    let proxy = start(&upstream, state.path());
    proxy.process.wait_for_log("token obtained");
    assert_eq!(upstream.received().iter().filter(|request| is_probe(request)).count(), 1);
}
