//! Graceful shutdown: what is still served, what is not, and the exit code.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Gate, Reply, Upstream, token},
};

/// Longer than the time in which another signal is treated as a repetition of the first one.
const REPEAT_WINDOW: Duration = Duration::from_millis(1100);

/// An upstream that holds `/held` until the gate is open.
fn holding(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(3600, move |request| match request.target() {
        "/held" => Reply::Held(gate.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".to_vec()),
        _ => Reply::json("{}"),
    })
}

/// A client with a request that is held at the upstream.
fn in_flight(proxy: &Proxy, upstream: &Upstream) -> Client {
    let mut client = proxy.connect();
    client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    client
}

#[test]
fn q02_a_drain_finishes_requests_and_accepts_no_connection() {
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::new();
        let upstream = holding(&gate);
        let mut proxy = Proxy::start(&upstream);
        let mut client = in_flight(&proxy, &upstream);
        proxy.process.signal(signal);
        proxy.process.wait_for_log("draining");
        assert_eq!(proxy.ops().get("/readyz").text(), "not ok: draining\n");
        assert_eq!(proxy.ops().get("/livez").status, 200);
        let metrics = proxy.ops().get("/metrics").text();
        for line in ["finicity_proxy_draining 1", "finicity_proxy_ready 0", "finicity_proxy_live 1"] {
            assert!(metrics.contains(line), "{metrics}");
        }
        // The listeners are closed by the tasks that own them, shortly after the log line.
        let refused = (0..10_000).any(|_| {
            std::thread::yield_now();
            Client::try_connect(proxy.proxy[0]).is_err()
        });
        assert!(refused, "new connections are still accepted");
        gate.open();
        let response = client.read_response(false).unwrap();
        assert_eq!(
            (response.status, response.text().as_str(), response.header("connection")),
            (200, "done", Some("close"))
        );
        client.assert_closed();
        assert_eq!(proxy.process.wait().code(), Some(0));
        proxy.process.wait_for_log("drained");
    }
}

#[test]
fn q02_a_token_refused_during_a_drain_is_replaced() {
    let gate = Gate::new();
    let held = gate.clone();
    let expired = "{\"code\":\"10023\",\"message\":\"Expired (Finicity-App-Token)\"}";
    let upstream = Upstream::start(3600, move |request| {
        if request.headers("authorization") == [format!("Bearer {}", token(1))] {
            return Reply::status(401, "Unauthorized", expired).held(&held);
        }
        Reply::json("{}")
    });
    let mut proxy = Proxy::start(&upstream);
    let mut client = in_flight(&proxy, &upstream);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    gate.open();
    let response = client.read_response(false).unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!((upstream.token_requests(), upstream.requests().len()), (2, 2));
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn q02_a_response_is_not_lost_to_pipelined_requests() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = Proxy::start(&upstream);
    let mut client = in_flight(&proxy, &upstream);
    // Far more than the proxy reads ahead, so that the kernel still has some of it at the close.
    client.send("GET /ahead HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5_000));
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    gate.open();
    let response = client.read_response(false).unwrap();
    assert_eq!((response.text().as_str(), response.header("connection")), ("done", Some("close")));
    assert_eq!(client.read_to_end().unwrap(), b"", "closed without a reset");
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn q04_a_drain_closes_idle_connections_immediately() {
    let upstream = holding(&Gate::new());
    let mut proxy = Proxy::start(&upstream);
    let mut idle: Vec<Client> = (0..100).map(|_| proxy.connect()).collect();
    for client in &mut idle[..50] {
        assert_eq!(client.get("/x").status, 200);
    }
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
    idle.iter_mut().for_each(Client::assert_closed);
}

#[test]
fn q03_an_unfinished_request_gets_503_at_the_drain_timeout() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__SHUTDOWN__DRAIN_TIMEOUT", "200ms")]);
    let mut client = in_flight(&proxy, &upstream);
    proxy.process.signal(Signal::TERM);
    let response = client.read_response(false).unwrap();
    response.assert_problem(503, "draining");
    assert_eq!((response.header("connection"), response.header("retry-after")), (Some("close"), None));
    client.assert_closed();
    assert_eq!(proxy.process.wait().code(), Some(1));
    let line = &proxy.process.logs("drain timeout expired; requests in flight were aborted")[0];
    assert_eq!(line["requests"], 1);
    let access = &proxy.process.logs("request")[0];
    assert_eq!((access["outcome"].as_str(), access["error.type"].as_str()), (Some("complete"), Some("draining")));
}

#[test]
fn q03_a_response_cut_off_by_a_drain_looks_truncated() {
    let gate = Gate::new();
    let stalled = gate.clone();
    let upstream = Upstream::start(3600, move |_| {
        Reply::Stalled(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin".to_vec(), stalled.clone())
    });
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__SHUTDOWN__DRAIN_TIMEOUT", "200ms")]);
    let mut client = proxy.connect();
    client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/x");
    proxy.process.signal(Signal::TERM);
    assert!(client.read_response(false).is_err());
    assert_eq!(proxy.process.wait().code(), Some(1));
    assert_eq!(proxy.process.logs("drain timeout expired; requests in flight were aborted")[0]["requests"], 1);
    assert_eq!(proxy.process.logs("request")[0]["outcome"], "aborted");
    gate.open();
}

#[test]
fn a_second_signal_aborts_and_counts_requests() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = Proxy::start(&upstream);
    let mut clients = [in_flight(&proxy, &upstream), proxy.connect()];
    clients[1].send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for_requests(2, |request| request.target() == "/held");
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    clients[0].assert_silent_for(REPEAT_WINDOW);
    proxy.process.signal(Signal::INT);
    assert_eq!(proxy.process.wait().code(), Some(1));
    clients.iter_mut().for_each(Client::assert_closed);
    let stopped = proxy.process.wait_for_log("forced shutdown");
    assert_eq!((stopped["reason"].as_str(), stopped["requests"].as_u64()), (Some("SIGINT"), Some(2)));
    let outcomes: Vec<_> = proxy.process.logs("request").iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["aborted", "aborted"]);
}

#[test]
fn a_second_signal_without_requests_exits_0() {
    let upstream = holding(&Gate::new());
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__SHUTDOWN__DRAIN_DELAY", "1h")]);
    let (mut idle, mut unused, mut unfinished) = (proxy.connect(), proxy.connect(), proxy.connect());
    assert_eq!(idle.get("/x").status, 200);
    unfinished.send("GET /x HTTP/1.1\r\nHost");
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    unused.assert_silent_for(REPEAT_WINDOW);
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert_eq!(proxy.process.wait_for_log("forced shutdown")["requests"], 0);
    for client in [&mut idle, &mut unused, &mut unfinished] {
        client.assert_closed();
    }
}

#[test]
fn signals_within_a_second_count_as_one() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = Proxy::start(&upstream);
    let mut client = in_flight(&proxy, &upstream);
    // All are pending when the process continues, even on a slow machine.
    for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::TERM, Signal::CONT] {
        proxy.process.signal(signal);
    }
    proxy.process.wait_for_log("draining");
    proxy.process.wait_for_log("signal ignored: received within a second of the previous one");
    client.assert_silent_for(REPEAT_WINDOW);
    gate.open();
    assert_eq!(client.read_response(false).unwrap().text(), "done");
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert_eq!(proxy.process.logs("forced shutdown").len(), 0);
}

#[test]
fn n19_shutdown_does_not_wait_for_the_first_token_request() {
    let gate = Gate::new();
    let upstream = Upstream::start_raw(move |_| Reply::Held(gate.clone(), Vec::new()));
    let mut proxy = Proxy::launch(&upstream, &[]);
    upstream.wait_for("/oauth/token");
    assert_eq!(proxy.ops().get("/startupz").status, 503);
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
}
