//! A rollout from the view of clients: during shutdown, a connection is either served or not accepted.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// Checks that the response is from the upstream, and the last one of its connection.
#[track_caller]
fn check_last<S: io::Read + io::Write>(client: &mut Client<S>) {
    let response = client.read_response(false).unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")), "{response:?}");
    assert_eq!(client.read_to_end().unwrap(), b"", "closed without a reset");
}

#[test]
fn q02_requests_during_the_drain_delay_get_connection_close() {
    let upstream = upstream();
    let dir = tempfile::tempdir().unwrap();
    let both = format!("127.0.0.1:0,unix:{}", dir.path().join("proxy.sock").display());
    let variables = [("FINICITY__LISTEN__PROXY", both.as_str()), ("FINICITY__SHUTDOWN__DRAIN_DELAY", "1h")];
    let mut proxy = Proxy::start_with(&upstream, &variables);
    let mut kept = proxy.connect();
    assert_eq!(kept.get("/x").header("connection"), None);
    let mut idle = proxy.connect();

    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait_for_log("draining")["drain_delay_s"], 3600);
    assert_eq!(proxy.ops().get("/readyz").text(), "not ok: draining\n");
    assert_eq!(proxy.ops().get("/livez").status, 200);
    // A connection that was used, one that was not, and new ones.
    for client in [&mut kept, &mut idle, &mut proxy.connect(), &mut proxy.connect()] {
        client.send(REQUEST);
        check_last(client);
    }
    let mut on_socket = proxy.connect_socket();
    on_socket.send(REQUEST);
    check_last(&mut on_socket);

    // A signal within a second is treated as a repetition of the first one.
    proxy.connect().assert_silent_for(Duration::from_millis(1100));
    proxy.process.signal(Signal::INT);
    assert_eq!(proxy.process.wait().code(), Some(0));
    proxy.process.wait_for_log("forced shutdown");
}

#[test]
fn q02_no_connection_is_accepted_after_the_drain_delay() {
    let upstream = upstream();
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__SHUTDOWN__DRAIN_DELAY", "300ms")]);
    let started = Instant::now();
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(Client::try_connect(proxy.proxy[0]).is_err());
    proxy.process.wait_for_log("drained");
}

#[test]
fn q02_queued_connections_are_served_during_shutdown() {
    let upstream = upstream();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.sock");
    let both = format!("127.0.0.1:0,unix:{}", path.display());
    // All are served at the same time over new upstream connections, which take long on a busy machine.
    let variables = [("FINICITY__LISTEN__PROXY", both.as_str()), ("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "60s")];
    let mut proxy = Proxy::start_with(&upstream, &variables);
    // While the process is stopped, the kernel accepts connections and buffers requests.
    proxy.process.signal(Signal::STOP);
    let mut on_port: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    let mut on_socket: Vec<_> = (0..50).map(|_| proxy.connect_socket()).collect();
    on_port.iter_mut().for_each(|client| client.send(REQUEST));
    on_socket.iter_mut().for_each(|client| client.send(REQUEST));
    proxy.process.signal(Signal::TERM);
    proxy.process.signal(Signal::CONT);
    on_port.iter_mut().for_each(check_last);
    on_socket.iter_mut().for_each(check_last);
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn q02_queued_connections_over_the_limit_are_served() {
    let upstream = upstream();
    let dir = tempfile::tempdir().unwrap();
    let on_socket = format!("unix:{}", dir.path().join("proxy.sock").display());
    check_crowd(&upstream, "127.0.0.1:0", Proxy::connect);
    // Most of these are still in the accept queue when the socket is closed.
    check_crowd(&upstream, &on_socket, Proxy::connect_socket);
}

/// Checks that the requests of connections that are queued at `address` when shutdown begins are served, three at a time.
fn check_crowd<S: io::Read + io::Write + Send>(upstream: &Upstream, address: &str, connect: fn(&Proxy) -> Client<S>) {
    let variables = [
        ("FINICITY__LISTEN__PROXY", address),
        ("FINICITY__LIMITS__CONNECTIONS", "3"),
        ("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "60s"),
    ];
    let mut proxy = Proxy::start_with(upstream, &variables);
    proxy.process.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..20).map(|_| connect(&proxy)).collect();
    clients.iter_mut().for_each(|client| client.send(REQUEST));
    proxy.process.signal(Signal::TERM);
    proxy.process.signal(Signal::CONT);
    thread::scope(|scope| clients.iter_mut().for_each(|client| drop(scope.spawn(|| check_last(client)))));
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn q02_a_drain_waits_for_an_unfinished_head() {
    let upstream = upstream();
    let mut proxy = Proxy::start(&upstream);
    let (mut idle, mut new, mut kept) = (proxy.connect(), proxy.connect(), proxy.connect());
    assert_eq!(kept.get("/x").status, 200);
    let (begin, end) = REQUEST.split_at(20);
    new.send(begin);
    kept.send(begin);
    proxy.process.signal(Signal::TERM);
    // From now on, only unfinished requests are waited for.
    idle.assert_closed();
    new.send(end);
    kept.send(end);
    check_last(&mut new);
    check_last(&mut kept);
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn q02_a_rollout_fails_no_request_of_new_connections() {
    let upstream = upstream();
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "60s")]);
    let (address, responses) = (proxy.proxy[0], AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // Until no connection is accepted. Each accepted one must get a response.
                while let Ok(mut client) = Client::try_connect(address) {
                    client.send(REQUEST);
                    assert_eq!(client.read_response(false).unwrap().status, 200);
                    responses.fetch_add(1, SeqCst);
                }
            });
        }
        while responses.load(SeqCst) < 50 {
            thread::yield_now();
        }
        proxy.process.signal(Signal::TERM);
    });
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert_eq!(proxy.process.logs("request").len(), responses.load(SeqCst));
}
