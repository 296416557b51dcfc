//! The end of the process: what is still served, what is not, and the exit code.

use rustix::process::Signal;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Gate, Reply, Upstream},
};

/// An upstream that holds `/held` until the gate is opened.
fn holding(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(3600, move |request| match request.target() {
        "/held" => Reply::Held(gate.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".to_vec()),
        _ => Reply::json("{}"),
    })
}

/// A client whose request has arrived at the upstream and is held there.
fn in_flight(proxy: &Proxy, upstream: &Upstream) -> Client {
    let mut client = proxy.connect();
    client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    client
}

#[test]
fn q02_a_request_in_flight_is_finished_and_no_connection_taken_any_more() {
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::new();
        let upstream = holding(&gate);
        let mut proxy = Proxy::start(&upstream);
        let mut client = in_flight(&proxy, &upstream);
        proxy.process.signal(signal);
        proxy.process.wait_for_log("draining");
        assert_eq!(proxy.ops().get("/readyz").text(), "not ok: draining\n");
        assert_eq!(proxy.ops().get("/livez").status, 200);
        // The listeners are closed by the tasks that own them, a moment after the log line.
        let refused = (0..10_000).any(|_| {
            std::thread::yield_now();
            Client::try_connect(proxy.proxy[0]).is_err()
        });
        assert!(refused, "new connections are still accepted");
        gate.open();
        let answer = client.read_answer(false).unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.header("connection")), (200, "done", Some("close")));
        client.assert_closed();
        assert_eq!(proxy.process.wait().code(), Some(0));
        proxy.process.wait_for_log("drained");
    }
}

#[test]
fn q04_idle_connections_are_closed_at_once() {
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
fn q03_a_request_that_never_ends_is_cut_off_when_the_drain_timeout_is_over() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__SHUTDOWN__DRAIN_TIMEOUT", "200ms")]);
    let mut client = in_flight(&proxy, &upstream);
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(1));
    client.assert_closed();
    let line = &proxy.process.logs("the drain timeout is over; connections were cut off")[0];
    assert_eq!(line["connections"], 1);
    let access = &proxy.process.logs("request")[0];
    assert_eq!((access["outcome"].as_str(), access["http.response.status_code"].as_u64()), (Some("aborted"), None));
}

#[test]
fn a_second_signal_ends_at_once() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut proxy = Proxy::start(&upstream);
    let mut client = in_flight(&proxy, &upstream);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    proxy.process.signal(Signal::INT);
    assert_eq!(proxy.process.wait().code(), Some(1));
    client.assert_closed();
    proxy.process.wait_for_log("stopping at once");
}

#[test]
fn n19_a_stop_during_the_first_token_call_does_not_wait_for_it() {
    let gate = Gate::new();
    let upstream = Upstream::start_raw(move |_| Reply::Held(gate.clone(), Vec::new()));
    let mut proxy = Proxy::launch(&upstream, &[]);
    upstream.wait_for("/oauth/token");
    assert_eq!(proxy.ops().get("/startupz").status, 503);
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
}
