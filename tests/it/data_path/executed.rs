//! `X-Finicity-Proxy-Executed`: whether the upstream can have executed a request that gets an error of the proxy.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use rustix::process::Signal;

use crate::support::{
    process::Proxy,
    upstream::{Gate, Reply, Upstream, token, token_response},
};

/// An operation that only reads and is free: it is retried once if a reused connection closes.
const FREE: &str = "/aggregation/v1/customers";

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// The start of a request with an incomplete body.
const BODY_BEGUN: &str = "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

#[test]
fn a_request_rejected_by_the_proxy_was_not_executed() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LIMITS__BODY_BYTES", "10")]);
    for (request, status, code) in [
        ("GET /x HTTP/1.1\r\nHost: attacker.example\r\n\r\n", 421, "host_denied"),
        ("GET /x HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403, "origin_denied"),
        ("GET /a/../b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"),
        ("TRACE /x HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method_not_allowed"),
        ("PUT /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 403, "route_denied"),
        ("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n", 413, "body_too_large"),
        (
            "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "not_implemented",
        ),
    ] {
        let mut client = proxy.connect();
        client.send(request);
        client.read_response(false).unwrap().assert_executed(status, code, "no");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_request_without_a_connection_was_not_executed() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(
        &upstream,
        &[("FINICITY__UPSTREAM__FIRST_BYTE_TIMEOUT", "1s"), ("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "60s")],
    );
    upstream.use_untrusted_certificate();
    proxy.connect().get("/x").assert_executed(502, "upstream_tls", "no");
    let port = upstream.port();
    let closed = upstream.into_closed_port();
    proxy.connect().get("/x").assert_executed(502, "upstream_unreachable", "no");
    drop(closed);
    // The kernel accepts the connection, and there is no response to the TLS handshake.
    let _silent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    proxy.connect().get("/x").assert_executed(504, "upstream_timeout", "no");
    let mut client = proxy.connect();
    client.send(BODY_BEGUN);
    client.read_response(false).unwrap().assert_executed(504, "upstream_timeout", "no");
}

#[test]
fn a_request_that_was_sent_may_have_been_executed() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(3600, move |request| match request.target() {
        "/garbage" => Reply::Bytes(b"nonsense\r\n\r\n".to_vec()),
        "/switch" => Reply::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".to_vec()),
        "/held" => Reply::Held(held.clone(), OK.to_vec()),
        _ => Reply::Cut(Vec::new()),
    });
    let proxy = Proxy::start_with(
        &upstream,
        &[("FINICITY__UPSTREAM__FIRST_BYTE_TIMEOUT", "1s"), ("FINICITY__LIMITS__BODY_BYTES", "10")],
    );
    let mut client = proxy.connect();
    client.get("/garbage").assert_executed(502, "upstream_protocol", "unknown");
    client.get("/switch").assert_executed(502, "upstream_protocol", "unknown");
    client.get("/cut").assert_executed(502, "upstream_unreachable", "unknown");
    client.get("/held").assert_executed(504, "upstream_timeout", "unknown");

    let mut client = proxy.connect();
    client.send(BODY_BEGUN);
    client.read_response(false).unwrap().assert_executed(408, "request_timeout", "unknown");
    let mut client = proxy.connect();
    client.send(BODY_BEGUN);
    client.send("9\r\n123456789\r\n");
    client.read_response(false).unwrap().assert_executed(413, "body_too_large", "unknown");
}

#[test]
fn a_drain_reports_a_sent_request_unknown_and_a_queued_one_no() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(3600, move |_| Reply::Held(held.clone(), OK.to_vec()));
    let mut proxy = Proxy::start_with(
        &upstream,
        &[
            ("FINICITY__LIMITS__CONCURRENCY", "1"),
            ("FINICITY__LIMITS__QUEUE_TIMEOUT", "60s"),
            ("FINICITY__SHUTDOWN__DRAIN_TIMEOUT", "200ms"),
        ],
    );
    let (mut in_flight, mut queued) = (proxy.connect(), proxy.connect());
    in_flight.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/first");
    queued.send("GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n");
    proxy.wait_for_metric("requests_queued", 1);
    proxy.process.signal(Signal::TERM);
    let (cut_off, queued) = (in_flight.read_response(false).unwrap(), queued.read_response(false).unwrap());
    cut_off.assert_executed(503, "draining", "unknown");
    queued.assert_executed(503, "draining", "no");
    assert_eq!(queued.header("retry-after"), Some("1"));
    assert_eq!(proxy.process.wait().code(), Some(1));
    assert_eq!(upstream.requests().len(), 1);
}

/// A free read is sent on a reused connection, which closes. Then no other connection can be opened.
#[test]
fn a_lost_request_stays_unknown_if_its_retry_is_not_sent() {
    let lost = Gate::new();
    let held = lost.clone();
    let upstream = Upstream::start(3600, move |request| match request.index {
        0 => Reply::Bytes(OK.to_vec()),
        _ => Reply::Stalled(Vec::new(), held.clone()),
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    assert_eq!(client.get(FREE).status, 200);
    let target = format!("{FREE}?n=2");
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    upstream.wait_for(&target);
    // Closes its connections; new ones are refused.
    let _closed = upstream.into_closed_port();
    client.read_response(false).unwrap().assert_executed(502, "upstream_unreachable", "unknown");
    let access = proxy.process.wait_for_line(|line| line.contains(r#""retried":true"#));
    assert!(access.contains("TCP connect failed"), "{access}");
}

#[test]
fn a_request_lost_after_a_refused_token_is_unknown() {
    let refused = Arc::new(AtomicBool::new(false));
    let is_refused = Arc::clone(&refused);
    let upstream = Upstream::start(3600, move |request| {
        if request.headers("authorization") != [format!("Bearer {}", token(1))] || !is_refused.load(SeqCst) {
            return Reply::Cut(Vec::new());
        }
        let body = r#"{"code":"10023","message":"Expired (Finicity-App-Token)"}"#;
        let length = body.len();
        Reply::Close(format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
    });
    let proxy = Proxy::start(&upstream);
    refused.store(true, SeqCst);
    proxy.connect().get("/x").assert_executed(502, "upstream_unreachable", "unknown");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_request_not_resent_after_a_refused_token_was_not_executed() {
    let gate = Gate::new();
    let (held, token_requests) = (gate.clone(), AtomicU64::new(0));
    let upstream = Upstream::start_raw(move |request| {
        if request.target() == "/oauth/token" {
            let version = token_requests.fetch_add(1, SeqCst) + 1;
            let issued = Reply::json(&token_response(version, 3600));
            return if version == 1 { issued } else { issued.held(&held) };
        }
        let body = r#"{"code":"10023","message":"Expired (Finicity-App-Token)"}"#;
        let length = body.len();
        Reply::Close(format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
    });
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__AUTH__TOKEN_WAIT", "60s")]);
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    upstream.wait_for_requests(2, |request| request.target() == "/oauth/token");
    // The connection of the 401 is closed; the next one gets an untrusted certificate.
    upstream.use_untrusted_certificate();
    gate.open();
    client.read_response(false).unwrap().assert_executed(502, "upstream_tls", "no");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn proxy_headers_sent_by_the_upstream_are_removed() {
    let upstream = Upstream::start(3600, |_| {
        let fields = "x-finicity-proxy-error: overloaded\r\nX_Finicity_Proxy_Executed: no\r\n\
                      x-finicity-proxy-executed: no\r\nx-finicity-proxy: kept\r\n";
        Reply::Bytes(format!("HTTP/1.1 502 Bad Gateway\r\n{fields}content-length: 0\r\n\r\n").into_bytes())
    });
    let proxy = Proxy::start(&upstream);
    let response = proxy.connect().get("/x");
    let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-finicity-proxy", "x-request-id", "content-length", "date"], "{response:?}");
}
