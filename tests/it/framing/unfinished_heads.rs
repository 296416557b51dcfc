//! Request heads that do not end: what they may take over all connections, and that it is given back.

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

/// Legal as a whole, with the limits that a proxy has by default.
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
    // Those of all listeners count together.
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
    // Another head on a connection that is kept.
    third.send("GET /x HTTP/1.1\r\n");
    proxy.wait_for_metric("unfinished_heads_bytes", 17);
    drop(third);
    proxy.wait_for_metric("unfinished_heads_bytes", 0);
}

#[test]
fn a_head_behind_a_request_is_counted_until_it_ends() {
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

/// The most resident memory that the heads may take, in KiB: 8 MiB of them, and what each connection takes beside.
const HELD_KIB: u64 = 40 * 1024;

/// The most that may be left when they are gone.
const LEFT_KIB: u64 = 8 * 1024;

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the documents say")]
fn unfinished_heads_take_little_memory_and_give_it_back() {
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
            // The first has been given up long ago.
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
