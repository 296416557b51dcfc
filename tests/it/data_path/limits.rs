//! Limits of concurrent connections and requests, and what happens above them.

use std::{net::Shutdown, process::Command};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::support::{
    client::Client,
    process::{Proxy, serve_command},
    upstream::{Gate, Reply, Upstream},
};

/// An upstream that holds responses until the gate is open, except `/quick`, and stalls in the middle of `/half`.
fn holding(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(3600, move |request| match request.target() {
        "/quick" => Reply::json("{}"),
        "/half" => Reply::Stalled(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec(), gate.clone()),
        _ => Reply::Held(gate.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".to_vec()),
    })
}

/// A client that has sent a request for `target` and has not read the response.
fn request(proxy: &Proxy, target: &str) -> Client {
    let mut client = proxy.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client
}

fn limits<'a>(concurrency: &'a str, queue: &'a str, timeout: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("FINICITY__LIMITS__CONCURRENCY", concurrency),
        ("FINICITY__LIMITS__QUEUE", queue),
        ("FINICITY__LIMITS__QUEUE_TIMEOUT", timeout),
    ]
}

#[test]
fn i09_requests_over_the_limit_are_queued_and_then_shed() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = Proxy::start_with(&upstream, &limits("64", "36", "60s"));
    let mut clients: Vec<Client> = (0..200).map(|_| request(&proxy, "/held")).collect();
    proxy.wait_for_metric(r#"requests_shed_total{reason="queue_full"}"#, 100);
    proxy.wait_for_metric("requests_queued", 36);
    proxy.wait_for_metric("requests_in_flight", 100);
    assert!(upstream.requests().len() <= 64);
    // Requests that get a local reply need no permit.
    proxy.connect().call("TRACE", "/x", &[], b"").assert_problem(405, "method_not_allowed");

    gate.open();
    let responses: Vec<_> = clients.iter_mut().map(|client| client.read_response(false).unwrap()).collect();
    let shed: Vec<_> = responses.iter().filter(|response| response.status == 503).collect();
    assert_eq!(shed.len(), 100);
    for response in shed {
        response.assert_problem(503, "overloaded");
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 100);
    assert_eq!(upstream.requests().len(), 100);
    proxy.wait_for_metric("requests_in_flight", 0);
}

#[test]
fn i09_a_queued_request_fails_after_the_queue_timeout() {
    let upstream = holding(&Gate::new());
    let proxy = Proxy::start_with(&upstream, &limits("1", "10", "100ms"));
    let _working = request(&proxy, "/held");
    upstream.wait_for("/held");
    let response = proxy.connect().get("/quick");
    response.assert_problem(503, "overloaded");
    assert_eq!(response.header("retry-after"), Some("1"));
    proxy.wait_for_metric(r#"requests_shed_total{reason="queue_timeout"}"#, 1);
}

#[test]
fn g07_a_client_that_disconnects_releases_its_permit() {
    let upstream = holding(&Gate::new());
    let proxy = Proxy::start_with(&upstream, &limits("1", "1", "60s"));
    for target in ["/held", "/half"] {
        let working = request(&proxy, target);
        upstream.wait_for(target);
        if target == "/half" {
            // The head of the response has arrived; the permit is still held.
            proxy.wait_for_metric(r#"upstream_first_byte_seconds_count{method="_OTHER",route="other"}"#, 1);
        }
        let mut waiting = request(&proxy, "/quick");
        proxy.wait_for_metric("requests_queued", 1);
        drop(working);
        assert_eq!(waiting.read_response(false).unwrap().status, 200, "{target}");
    }
}

#[test]
fn a22_a_truncated_request_body_releases_its_permit() {
    let upstream = holding(&Gate::new());
    let proxy = Proxy::start_with(&upstream, &limits("1", "0", "0s"));
    let mut client = proxy.connect();
    client.send("POST /quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc");
    proxy.wait_for_metric("requests_in_flight", 1);
    client.writer().shutdown(Shutdown::Write).unwrap();
    match client.read_response(false) {
        Ok(response) => response.assert_problem(400, "bad_request"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
    }
    let line = proxy.process.wait_for_log("request");
    assert!(line["outcome"] == "aborted" || line["error.type"] == "bad_request", "{line}");
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(proxy.connect().get("/quick").status, 200);
}

#[test]
fn i06_connections_over_the_limit_wait_while_all_are_busy() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LIMITS__CONNECTIONS", "3")]);
    let mut busy: Vec<Client> = (0..3).map(|_| request(&proxy, "/held")).collect();
    proxy.wait_for_metric("requests_in_flight", 3);
    while upstream.requests().len() < 3 {
        std::thread::yield_now();
    }
    let waiting: Vec<Client> = (0..20).map(|_| request(&proxy, "/quick")).collect();
    let line = proxy.process.wait_for_log("connection limit reached; new ones wait");
    assert_eq!((line["level"].as_str(), line["limit"].as_u64()), (Some("WARN"), Some(3)));
    proxy.wait_for_metric("connections", 3);
    proxy.wait_for_metric("connections_limit", 3);
    proxy.wait_for_metric(r#"accept_problems_total{listener="proxy",problem="full"}"#, 1);
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(proxy.ops().get("/livez").status, 200);
    assert_eq!(Client::connect(proxy.admin).get("/api/status").status, 200);

    gate.open();
    for client in &mut busy {
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    // They stay open and are idle now.
    for mut client in waiting {
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    assert_eq!(upstream.requests().len(), 23);
}

#[test]
fn i08_few_file_descriptors_delay_but_fail_no_request() {
    let upstream = holding(&Gate::new());
    let serve = serve_command(&upstream, &[]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 64 && exec \"$0\" serve"]).arg(serve.get_program()).env_clear();
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut proxy = Proxy::run(command);
    let lowered = proxy.process.wait_for_line(|line| line.contains("limits.connections does not fit"));
    assert!(lowered.contains(r#""configured":10000,"limit":10,"open_files":64"#), "{lowered}");
    proxy.process.wait_for_log("token obtained");

    let clients: Vec<Client> = (0..100).map(|_| request(&proxy, "/quick")).collect();
    proxy.process.wait_for_log("connection limit reached; closed the longest idle connection for a new one");
    assert_eq!(proxy.ops().get("/livez").status, 200);
    assert_eq!(proxy.ops().get("/readyz").status, 200);
    for mut client in clients {
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    proxy.wait_for_metric("connections", 0);
    proxy.wait_for_metric(r#"accept_problems_total{listener="proxy",problem="failed"}"#, 0);
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn i08_accepting_pauses_while_no_file_descriptor_is_free() {
    let upstream = holding(&Gate::new());
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__POOL_IDLE_TIMEOUT", "1h")]);
    let (mut open, mut admin) = (proxy.connect(), Client::connect(proxy.admin));
    assert_eq!((open.get("/quick").status, admin.get("/api/status").status), (200, 200));
    let pid = Pid::from_raw(proxy.process.id().try_into().unwrap());
    let limit_files = |current| {
        // The child process inherited the hard limit of this process.
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap()
    };
    let before = limit_files(Some(3));

    let mut waiting = request(&proxy, "/quick");
    let line = proxy.process.wait_for_log("cannot accept connections: raise RLIMIT_NOFILE");
    assert_eq!((line["level"].as_str(), line["listener"].as_str()), (Some("ERROR"), Some("proxy")));
    assert_eq!(
        (open.get("/quick").status, admin.get("/api/status").status),
        (200, 200),
        "open connections are still served"
    );
    limit_files(before.current);
    assert_eq!(waiting.read_response(false).unwrap().status, 200);
    proxy.wait_for_metric("connections", 2);
}
