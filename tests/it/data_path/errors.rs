//! The proxy's own answers: when it makes them, and what they say.

use std::net::TcpListener;

use crate::support::{
    process::{Process, Proxy, serve_command},
    upstream::{ClosedPort, Reply, Upstream, server_config},
};

fn ok() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

#[test]
fn requests_that_must_not_be_forwarded_are_refused() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    for (head, status, code) in [
        ("GET /x HTTP/1.1\r\nHost: attacker.example\r\n", 421, "host_denied"),
        ("GET /x HTTP/1.1\r\n", 400, "bad_request"),
        ("GET /x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400, "bad_request"),
        ("GET /x HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n", 403, "origin_denied"),
        ("GET /x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403, "origin_denied"),
        ("GET http://evil.example/x HTTP/1.1\r\nHost: localhost\r\n", 400, "bad_request"),
        ("GET //evil.example/x HTTP/1.1\r\nHost: localhost\r\n", 400, "bad_request"),
        ("GET * HTTP/1.1\r\nHost: localhost\r\n", 400, "bad_request"),
        ("TRACE /x HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 5\r\n", 405, "method_not_allowed"),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n", 405, "method_not_allowed"),
    ] {
        let mut client = proxy.connect();
        client.send(format!("{head}\r\n"));
        client.read_response(false).unwrap().assert_problem(status, code);
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn an_answer_names_the_request_and_the_callers_own_name_for_it_is_kept() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let answer = client.call("TRACE", "/x", &["X-Request-Id: mine-1"], b"");
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert!(answer.text().contains(r#""request_id":"mine-1""#), "{}", answer.text());
    let answer = client.call("GET", "/x", &["X-Request-Id: bad id"], b"");
    assert_ne!(answer.header("x-request-id").unwrap(), "bad id");
}

#[test]
fn an_upstream_that_does_not_listen_is_unreachable() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    let _dead = upstream.into_closed_port();
    proxy.connect().get("/x").assert_problem(502, "upstream_unreachable");
}

#[test]
fn without_a_token_requests_wait_briefly_and_get_a_503() {
    let (upstream, dead) = (ok(), ClosedPort::new());
    let url = dead.url();
    let proxy = Proxy::launch(&upstream, &[("FINICITY__UPSTREAM__URL", &url), ("FINICITY__AUTH__TOKEN_WAIT", "100ms")]);
    let answer = proxy.connect().get("/x");
    answer.assert_problem(503, "token_unavailable");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(proxy.ops().get("/livez").status, 200);
    assert_eq!(proxy.ops().get("/readyz").status, 503);
}

#[test]
fn m17_m18_rejected_credentials_are_told_and_tried_once() {
    for (status, body) in
        [(401, "{}"), (400, r#"{"error":"invalid_client"}"#), (500, r#"{"code":24302}"#), (404, r#"{"code":"12401"}"#)]
    {
        let upstream = Upstream::start_raw(move |_| Reply::status(status, "Whatever", body));
        let mut proxy = Proxy::launch(&upstream, &[]);
        let line = proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
        assert!(line.contains(r#""level":"ERROR""#), "{line}");
        for _ in 0..3 {
            proxy.connect().get("/x").assert_problem(503, "credentials_rejected");
        }
        assert_eq!(proxy.ops().get("/readyz").status, 503);
        assert_eq!(upstream.received().len(), 1);
        proxy.process.signal(rustix::process::Signal::TERM);
        assert_eq!(proxy.process.wait().code(), Some(0));
    }
}

#[test]
fn j01_an_upstream_whose_certificate_is_not_trusted_gets_nothing() {
    let upstream = ok();
    let other = tempfile::tempdir().unwrap();
    server_config(&other.path().join("ca.pem"), &[]);
    let ca_file = other.path().join("ca.pem").display().to_string();
    let proxy = Proxy::launch(&upstream, &[("FINICITY__UPSTREAM__CA_FILE", &ca_file)]);
    let line = proxy.process.wait_for_log("token refresh failed: operator action required");
    assert_eq!(line["class"], "certificate");
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn j01_a_certificate_that_is_exchanged_later_is_upstream_tls() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    upstream.use_untrusted_certificate();
    proxy.connect().get("/x").assert_problem(502, "upstream_tls");
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn f08_f14_an_answer_that_is_not_http_is_a_502() {
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/garbage" => Reply::Bytes(b"nonsense\r\n\r\n".to_vec()),
        "/null" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n".to_vec()),
        "/many" => {
            let fields: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
            Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n").into_bytes())
        }
        "/switch" => {
            Reply::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec())
        }
        _ => Reply::Cut(Vec::new()),
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for target in ["/garbage", "/null", "/many", "/switch"] {
        client.get(target).assert_problem(502, "upstream_protocol");
    }
    client.get("/cut").assert_problem(502, "upstream_unreachable");
}

#[test]
fn f15_an_upstream_that_does_not_answer_is_a_504() {
    let gate = crate::support::upstream::Gate::new();
    let upstream = Upstream::start(3600, move |_| Reply::Held(gate.clone(), Vec::new()));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__FIRST_BYTE_TIMEOUT", "1s")]);
    proxy.connect().get("/x").assert_problem(504, "upstream_timeout");
}

#[test]
fn a_caller_that_stops_sending_is_told_so() {
    let upstream = ok();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__FIRST_BYTE_TIMEOUT", "1s")]);
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc");
    client.read_response(false).unwrap().assert_problem(408, "request_timeout");
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_1_and_nothing_stays_bound() {
    let upstream = ok();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["PROXY", "OPS", "ADMIN"] {
        let variable = format!("FINICITY__LISTEN__{key}");
        let mut process = Process::start(serve_command(&upstream, &[(&variable, &address)]));
        assert_eq!(process.wait().code(), Some(1));
        let output = process.output();
        let name = format!("listen.{}", key.to_lowercase());
        assert_eq!(output.lines().count(), 1, "{output}");
        assert!(output.contains(&name) && output.contains(&address) && output.contains("another process"), "{output}");
    }
    assert_eq!(upstream.received().len(), 0);
}
