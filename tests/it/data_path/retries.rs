//! Which requests are retried when the upstream closes connections, and which are not.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::support::{
    TIMEOUT,
    client::Client,
    process::Proxy,
    upstream::{Gate, ReceivedRequest, Reply, Upstream},
};

/// An operation that only reads and is free, and one that is billed.
const FREE: &str = "/aggregation/v1/customers";
const BILLED: &str = "/aggregation/v1/customers/1/accounts/2/owner";

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// How often each target has arrived.
fn counts(upstream: &Upstream) -> HashMap<String, usize> {
    upstream.requests().iter().fold(HashMap::new(), |mut counts, request| {
        *counts.entry(request.target().to_owned()).or_default() += 1;
        counts
    })
}

fn get(client: &mut Client, target: &str) -> u16 {
    client.get(target).status
}

fn post(client: &mut Client, target: &str) -> u16 {
    client.call("POST", target, &["Content-Length: 4"], b"body").status
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    let text = proxy.ops().get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("finicity_proxy_{name} ")));
    line.unwrap().parse().unwrap()
}

/// An upstream that serves `served` requests per connection and fails the next one with `failure`.
fn failing_after(served: usize, failure: fn(Vec<u8>) -> Reply) -> Upstream {
    Upstream::start(
        3600,
        move |request| {
            if request.index == served { failure(Vec::new()) } else { Reply::Bytes(OK.to_vec()) }
        },
    )
}

/// Each connection is closed after its response without `Connection: close`, and the next request is sent after that.
fn check_closing_after_each(closing: fn(Vec<u8>) -> Reply, send: fn(&mut Client, &str) -> u16, path: &str) {
    let upstream = Upstream::start(3600, move |_| closing(OK.to_vec()));
    let proxy = Proxy::start(&upstream);
    upstream.wait_for_closed(1);
    let mut client = proxy.connect();
    for number in 0..250 {
        assert_eq!(send(&mut client, &format!("{path}?n={number}")), 200);
        upstream.wait_for_closed(2 + number);
    }
    assert!(counts(&upstream).values().all(|count| *count == 1));
}

#[test]
fn g01_connections_closed_after_each_response_fail_no_request() {
    check_closing_after_each(Reply::Cut, get, FREE);
    check_closing_after_each(Reply::Close, get, FREE);
}

#[test]
fn g02_closed_connections_fail_no_unrepeatable_request() {
    check_closing_after_each(Reply::Cut, post, "/aggregation/v1/customers/testing");
    check_closing_after_each(Reply::Close, get, BILLED);
}

#[test]
fn g01_a_free_read_lost_on_a_closed_connection_is_retried() {
    for failure in [Reply::Cut, Reply::Close, Reply::Reset] {
        let upstream = failing_after(8, failure);
        let proxy = Proxy::start(&upstream);
        let mut client = proxy.connect();
        for number in 0..500 {
            assert_eq!(get(&mut client, &format!("{FREE}?n={number}")), 200, "{number}");
        }
        let counts = counts(&upstream);
        assert_eq!(counts.len(), 500);
        // The ninth request of each connection was lost, and is resent as the first of the next connection.
        assert_eq!(counts.values().filter(|count| **count == 2).count(), 62);
        assert_eq!(upstream.requests().len(), 562);
        assert_eq!(metric(&proxy, "retries_total"), 62.0);
        proxy.process.wait_for_lines(62, |line| line.contains(r#""retried":true"#) && line.contains(":200,"));
    }
}

#[test]
fn g02_other_lost_requests_are_not_retried() {
    for (send, path) in [
        (post as fn(&mut Client, &str) -> u16, "/aggregation/v1/customers/testing"),
        (post, FREE),
        (get, BILLED),
        (get, "/aggregation/v1/customers/1/accounts"),
        (get, "/not/in/the/catalogue"),
    ] {
        let upstream = failing_after(4, Reply::Cut);
        let proxy = Proxy::start(&upstream);
        let mut client = proxy.connect();
        let statuses: Vec<u16> = (0..100).map(|number| send(&mut client, &format!("{path}?n={number}"))).collect();
        assert!(statuses.iter().enumerate().all(|(number, status)| *status == if number % 5 == 4 { 502 } else { 200 }));
        assert!(counts(&upstream).values().all(|count| *count == 1), "{path}");
        assert_eq!(metric(&proxy, "retries_total"), 0.0);
    }
}

#[test]
fn g01_a_failure_on_a_new_connection_is_not_retried() {
    let upstream = Upstream::start(3600, |_| Reply::Cut(Vec::new()));
    let proxy = Proxy::start(&upstream);
    for _ in 0..3 {
        proxy.connect().get(FREE).assert_problem(502, "upstream_unreachable");
    }
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn g01_a_response_that_has_begun_is_not_retried() {
    let upstream = Upstream::start(3600, |request| match request.index {
        0 => Reply::Bytes(OK.to_vec()),
        _ => Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    assert_eq!(get(&mut client, FREE), 200);
    assert_eq!(get(&mut client, FREE), 502);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn g03_retries_are_at_most_a_fifth_and_one_per_request() {
    let upstream = failing_after(1, Reply::Cut);
    let proxy = Proxy::start(&upstream);
    let started = Instant::now();
    let mut client = proxy.connect();
    let failed = (0..400).filter(|number| get(&mut client, &format!("{FREE}?n={number}")) == 502).count();
    assert!(failed > 0, "every second request needs a retry");
    assert!(counts(&upstream).values().all(|count| *count <= 2));
    let extra = upstream.requests().len() - 400;
    // A fifth, and ten for each started period of ten seconds.
    let allowed = 80.0 + 10.0 * (2.0 + started.elapsed().as_secs_f64() / 10.0);
    assert!(extra >= 60 && extra as f64 <= allowed, "{extra} requests more than the 400, {allowed} allowed");
}

#[test]
fn g04_an_interrupted_upload_is_not_resent() {
    let upstream = failing_after(1, Reply::Reset);
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    assert_eq!(get(&mut client, FREE), 200);
    let body = vec![7; 1024 * 1024];
    let response = client.call("PUT", "/aggregation/v1/customers/1", &["Content-Length: 1048576"], &body);
    response.assert_problem(502, "upstream_unreachable");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn g07_a_client_disconnect_aborts_the_upstream_request() {
    let gate = Gate::new();
    let upstream = Upstream::start(3600, move |_| Reply::Held(gate.clone(), OK.to_vec()));
    let proxy = Proxy::start(&upstream);
    upstream.wait_for_closed(1);
    let mut client = proxy.connect();
    client.send(format!("GET {FREE} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    upstream.wait_for(FREE);
    drop(client);
    upstream.wait_for_closed(2);
    assert_eq!(proxy.process.wait_for_log("request")["outcome"], "aborted");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn g11_an_old_connection_is_replaced_without_a_failure() {
    let upstream = Upstream::start(3600, |_| Reply::Bytes(OK.to_vec()));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__CONNECTION_AGE", "1s")]);
    let mut client = proxy.connect();
    let started = Instant::now();
    while upstream.connections() < 4 {
        assert_eq!(get(&mut client, FREE), 200);
        assert!(started.elapsed() < TIMEOUT);
    }
    // One connection for the token request; two of the others were replaced.
    assert!(started.elapsed() >= 2 * Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(metric(&proxy, "retries_total"), 0.0);
}

#[test]
fn a_retried_request_is_also_reauthenticated() {
    let upstream = Upstream::start(3600, |request: &ReceivedRequest| {
        let first_token = request.headers("authorization")[0].ends_with('1');
        match (request.target(), request.connection) {
            ("/warm", _) => Reply::Bytes(OK.to_vec()),
            (_, 1) => Reply::Cut(Vec::new()),
            _ if first_token => Reply::status(401, "Unauthorized", r#"{"code":"10023"}"#),
            _ => Reply::Bytes(OK.to_vec()),
        }
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    assert_eq!(get(&mut client, "/warm"), 200);
    assert_eq!(get(&mut client, FREE), 200);
    let line = proxy.process.wait_for_line(|line| line.contains(r#""retried":true"#));
    assert!(line.contains(r#""replayed":true"#), "{line}");
    assert_eq!(upstream.requests().len(), 4);
}
