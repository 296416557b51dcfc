//! Unfinished request heads: the memory limit over all connections, and that the memory is released.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{
    TIMEOUT,
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

/// A head within the default limits.
fn head_of_40_kb() -> Vec<u8> {
    let target = "x".repeat(8000);
    format!("GET /{target} HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(32_000)).into_bytes()
}

fn variables(bytes: &str) -> [(&str, &str); 5] {
    [
        ("FINICITY__LIMITS__UNFINISHED_HEADS_BYTES", bytes),
        ("FINICITY__LIMITS__HEADER_TIMEOUT", "1h"),
        // As in the shipped manifests.
        ("FINICITY__LIMITS__CONNECTIONS", "1000"),
        ("FINICITY__LIMITS__CONCURRENCY", "128"),
        ("FINICITY__LOG__LEVEL", "info,finicity_proxy::access=warn"),
    ]
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
}

#[test]
fn above_the_limit_the_oldest_unfinished_head_gets_408() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &variables("65536"));
    let begin = |length: usize, connect: &dyn Fn() -> Client| {
        let mut client = connect();
        client.send(format!("GET /x HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(length - 37)));
        client
    };
    let proxied = || proxy.connect();
    let ops = || proxy.ops();
    let mut first = begin(20_000, &proxied);
    proxy.wait_for_metric("unfinished_heads_bytes", 20_000);
    let mut second = begin(20_000, &ops);
    proxy.wait_for_metric("unfinished_heads_bytes", 40_000);
    let mut third = begin(20_000, &proxied);
    proxy.wait_for_metric("unfinished_heads_bytes", 60_000);
    let mut fourth = begin(20_000, &proxied);
    first.read_response(false).unwrap().assert_problem(408, "request_timeout");
    first.assert_closed();
    proxy.wait_for_metric("unfinished_heads_bytes", 60_000);
    proxy.wait_for_metric(r#"errors_total{code="request_timeout"}"#, 1);
    proxy.wait_for_metric(r#"connections_evicted_total{listener="proxy",reason="unfinished_heads_bytes"}"#, 1);
    // The limit is shared by all listeners.
    let mut fifth = begin(20_000, &proxied);
    assert_eq!(second.read_response(false).unwrap().status, 408);
    let line = proxy
        .process
        .wait_for_log("limits.unfinished_heads_bytes reached; closed the connection with the oldest unfinished head");
    assert_eq!(line["level"].as_str(), Some("WARN"));
    for client in [&mut third, &mut fourth, &mut fifth] {
        client.send("\r\n\r\n");
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    proxy.wait_for_metric("unfinished_heads_bytes", 0);
    // Another head on a kept connection.
    third.send("GET /x HTTP/1.1\r\n");
    proxy.wait_for_metric("unfinished_heads_bytes", 17);
    drop(third);
    proxy.wait_for_metric("unfinished_heads_bytes", 0);
}

/// Checks that an abandoned head is treated like any other request: it gets a response with a request id, an access line and a metric,
/// and its connection is closed.
fn assert_served(proxy: &Proxy, client: &mut Client, id: Option<&str>, count: u64) {
    let response = client.read_response(false).unwrap();
    response.assert_executed(408, "request_timeout", "no");
    assert_eq!(response.header("connection"), Some("close"), "{response:?}");
    let given = response.header("x-request-id").unwrap();
    assert!(!given.is_empty() && id.is_none_or(|id| id == given), "{response:?}");
    client.assert_closed();
    let line = proxy.process.wait_for_line(|line| line.contains(r#""message":"request""#) && line.contains(given));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (line["http.response.status_code"].as_u64(), line["error.type"].as_str()),
        (Some(408), Some("request_timeout"))
    );
    assert_eq!((line["http.route"].as_str(), line["http.request.method"].as_str()), (Some("other"), Some("GET")));
    proxy.wait_for_metric(r#"errors_total{code="request_timeout"}"#, count);
    proxy.wait_for_metric(r#"requests_total{method="_OTHER",route="other",status_class="4xx"}"#, count);
    proxy.wait_for_metric("unfinished_heads_bytes", 0);
}

/// A client that makes `requests` requests, and then sends the start of a head.
fn begin(proxy: &Proxy, requests: usize, head: &str) -> Client {
    let mut client = proxy.connect();
    for _ in 0..requests {
        assert_eq!(client.get("/x").status, 200);
    }
    client.send(head);
    client
}

const HEAD: &str = "GET /x HTTP/1.1\r\nX-Request-Id: a-1\r\nHost: loc";

#[test]
fn a_timed_out_head_is_logged_and_counted_as_a_request() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LIMITS__HEADER_TIMEOUT", "1s")]);
    for (index, (requests, head, id)) in [
        (0, HEAD, Some("a-1")),
        (1, HEAD, Some("a-1")),
        (0, "GET", None),
        (1, "GET /x HTTP/1.1\r\nX-Request-Id: a-2", None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = begin(&proxy, requests, head);
        assert_served(&proxy, &mut client, id, index as u64 + 1);
    }
    // Pipelined after a request.
    let mut client = begin(&proxy, 0, &format!("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n{HEAD}"));
    assert_eq!(client.read_response(false).unwrap().status, 200);
    assert_served(&proxy, &mut client, Some("a-1"), 5);
    // No byte of a request has arrived.
    proxy.connect().assert_closed();
    proxy.wait_for_metric("connections", 0);
}

#[test]
fn an_evicted_head_is_logged_and_counted_as_a_request() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let limit = [("FINICITY__LIMITS__CONNECTIONS", "1"), ("FINICITY__LIMITS__HEADER_TIMEOUT", "1h")];
    let proxy = Proxy::start_with(&upstream, &limit);
    let behind = format!("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n{HEAD}");
    for (index, (requests, head)) in [(0, HEAD), (1, HEAD), (0, behind.as_str())].into_iter().enumerate() {
        let count = index as u64 + 1;
        let mut client = begin(&proxy, requests, head);
        if head == behind {
            assert_eq!(client.read_response(false).unwrap().status, 200);
        }
        proxy.wait_for_metric("unfinished_heads_bytes", HEAD.len() as u64);
        // Each new connection evicts exactly one.
        assert_eq!(proxy.connect().get("/x").status, 200);
        assert_served(&proxy, &mut client, Some("a-1"), count);
        proxy.wait_for_metric(r#"connections_evicted_total{listener="proxy",reason="unfinished_head"}"#, count);
        proxy.wait_for_metric("connections", 0);
    }
    proxy.wait_for_metric(r#"connections_evicted_total{listener="proxy",reason="idle"}"#, 0);
}

#[test]
fn a_head_over_the_byte_limit_is_counted_as_a_request() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &variables("65536"));
    let large = format!("{HEAD}alhost\r\nX: {}", "a".repeat(30_000));
    for (index, requests) in [0, 1].into_iter().enumerate() {
        let mut first = begin(&proxy, requests, &large);
        proxy.wait_for_metric("unfinished_heads_bytes", large.len() as u64);
        let others = [(); 2].map(|()| begin(&proxy, 0, &large));
        let response = first.read_response(false).unwrap();
        response.assert_executed(408, "request_timeout", "no");
        assert_eq!(response.header("x-request-id"), Some("a-1"));
        first.assert_closed();
        proxy.wait_for_metric(r#"errors_total{code="request_timeout"}"#, index as u64 + 1);
        drop(others);
        proxy.wait_for_metric("unfinished_heads_bytes", 0);
    }
}

#[test]
fn a_pipelined_head_counts_until_it_is_complete() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &variables("65536"));
    let mut client = proxy.connect();
    client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\nGET /y HTTP/1.1\r\n");
    assert_eq!(client.read_response(false).unwrap().status, 200);
    proxy.wait_for_metric("unfinished_heads_bytes", 17);
    client.send("Host: localhost\r\n\r\n");
    assert_eq!(client.read_response(false).unwrap().status, 200);
    proxy.wait_for_metric("unfinished_heads_bytes", 0);
}

/// The maximum increase of resident memory by the heads, in KiB: 8 MiB of heads, and the memory of the connections.
const HELD_KIB: u64 = 40 * 1024;

/// The maximum that can remain after they are closed.
const LEFT_KIB: u64 = 8 * 1024;

#[test]
#[expect(clippy::print_stdout, reason = "the figures are for the documents")]
fn unfinished_heads_use_bounded_memory_and_release_it() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    for (bytes, head) in [(40_000, head_of_40_kb()), (1, b"G".to_vec())] {
        let proxy = Proxy::start_with(&upstream, &variables("8388608"));
        assert_eq!(proxy.connect().get("/x").status, 200);
        proxy.wait_for_metric("connections", 0);
        let resident = || proxy.process.status_kib("VmRSS");
        let (before, mut most) = (resident(), 0);
        let mut crowd: Vec<TcpStream> = Vec::new();
        for _ in 0..990 {
            let mut stream = TcpStream::connect(proxy.proxy[0]).unwrap();
            send(&mut stream, &head);
            crowd.push(stream);
            most = most.max(resident());
        }
        if head.len() > 1 {
            // The first has been abandoned long ago.
            let mut response = [0; 12];
            crowd[0].read_exact(&mut response).unwrap();
            assert_eq!(&response, b"HTTP/1.1 408");
        }
        most = most.max(resident());
        drop(crowd);
        proxy.wait_for_metric("connections", 0);
        let mut left = resident();
        let deadline = std::time::Instant::now() + TIMEOUT;
        while left > before + LEFT_KIB {
            assert!(std::time::Instant::now() < deadline, "{left} KiB, {before} before");
            std::thread::yield_now();
            left = resident();
        }
        println!("990 unfinished heads of {bytes} bytes: {before} KiB resident before, {most} at most, {left} after");
        assert!(most <= before + HELD_KIB, "{most} KiB, {before} before");
    }
}
