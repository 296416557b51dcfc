//! Methods, expectations and upgrades: which are forwarded, which get a local reply, and which are rejected.

use crate::support::{
    client::{Client, Response},
    process::Proxy,
    upstream::{Reply, Upstream},
};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start(&upstream);
    (upstream, proxy)
}

#[track_caller]
fn assert_not_allowed(response: &Response) {
    response.assert_problem(405, "method_not_allowed");
    assert_eq!(response.header("allow"), Some(METHODS));
}

#[test]
fn e01_e02_an_unsupported_method_is_not_forwarded() {
    let (upstream, proxy) = start();
    let mut client = proxy.connect();
    for method in ["TRACE", "get", "FOO", "PROPFIND", "PRI", "OPTION"] {
        for target in ["/x", "*", "/oauth/token"] {
            for lines in [&["Max-Forwards: 0"][..], &["Max-Forwards: 5"], &[]] {
                assert_not_allowed(&client.call(method, target, lines, b""));
            }
        }
    }
    for method in METHODS.split(", ") {
        assert_eq!(client.call(method, "/x", &["Content-Length: 2"], b"{}").status, 200, "{method}");
    }
    let lines: Vec<String> = upstream.requests().iter().map(|r| r.head.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines, METHODS.split(", ").map(|method| format!("{method} /x HTTP/1.1")).collect::<Vec<_>>());
}

#[test]
fn c04_e01_connect_is_rejected_and_its_connection_closed() {
    let (upstream, proxy) = start();
    for (target, extra) in [
        ("evil.example:443", ""),
        (upstream.authority().as_str(), "Connection: keep-alive\r\n"),
        ("/x", "Content-Length: 0\r\n"),
    ] {
        let mut client = proxy.connect();
        client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n"));
        let response = client.read_response(false).unwrap();
        assert_not_allowed(&response);
        assert_eq!(response.header("connection"), Some("close"));
        client.assert_closed();
    }
    // The bytes after it are not parsed as a request.
    let mut client = proxy.connect();
    client.send(
        "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /tunnelled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_not_allowed(&client.read_response(false).unwrap());
    client.assert_closed();
    // The same for a rejection for another reason.
    let mut client = proxy.connect();
    client.send("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n");
    client.read_response(false).unwrap().assert_problem(421, "host_denied");
    client.assert_closed();
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn e03_options_for_the_proxy_gets_a_local_reply() {
    let (upstream, proxy) = start();
    let mut client = proxy.connect();
    for (target, lines) in [("*", &[][..]), ("*", &["Max-Forwards: 7"]), ("/x", &["Max-Forwards: 0"])] {
        let response = client.call("OPTIONS", target, lines, b"");
        assert_eq!((response.status, response.header("allow")), (204, Some(METHODS)), "{target} {lines:?}");
        assert!(
            response.header("x-request-id").is_some() && response.header("content-length").is_none(),
            "{response:?}"
        );
    }
    assert_eq!(upstream.requests().len(), 0);
    proxy
        .process
        .wait_for_lines(3, |line| line.contains(r#""http.request.method":"OPTIONS""#) && line.contains(":204,"));
    let counted = r#"requests_total{method="_OTHER",route="other",status_class="2xx"} 3"#;
    assert!(proxy.ops().get("/metrics").text().contains(counted));

    for (lines, expected) in [
        (&[][..], vec![]),
        (&["Max-Forwards: 7"], vec!["6"]),
        (&["Max-Forwards: 1"], vec!["0"]),
        (&["Max-Forwards: many"], vec!["many"]),
        (&["Max-Forwards: 3", "Max-Forwards: 0"], vec!["3", "0"]),
    ] {
        assert_eq!(client.call("OPTIONS", "/x", lines, b"").status, 200, "{lines:?}");
        assert_eq!(upstream.requests().last().unwrap().headers("max-forwards"), expected);
    }
    assert_eq!(client.call("GET", "/x", &["Max-Forwards: 0"], b"").status, 200);
    assert_eq!(
        upstream.requests().last().unwrap().headers("max-forwards"),
        ["0"],
        "it applies only to OPTIONS and TRACE"
    );
}

#[test]
fn e04_an_unknown_expectation_is_dropped() {
    let (upstream, proxy) = start();
    let mut client = proxy.connect();
    let response = client.call("POST", "/x", &["Expect: x-custom", "Content-Length: 3"], b"abc");
    assert_eq!(response.status, 200);
    let request = upstream.requests().pop().unwrap();
    assert_eq!((request.headers("expect"), request.body.as_slice()), (vec![], &b"abc"[..]));
}

/// Sends a request for `/x` that asks for an upgrade, followed by the bytes `after`.
fn upgrading(proxy: &Proxy, lines: &[&str], after: &[u8]) -> (Client, Response) {
    let mut client = proxy.connect();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    client.send([format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").as_bytes(), after].concat());
    let response = client.read_response(false).unwrap();
    (client, response)
}

#[test]
fn e07_e08_an_upgrade_is_not_forwarded() {
    const WEBSOCKET: [&str; 4] = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    const H2C: [&str; 3] =
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"];
    // A WebSocket frame, and the start of an HTTP/2 connection. Neither is a request, so neither must reach the upstream.
    const FRAME: &[u8] = b"\x81\x85\x01\x02\x03\x04smuggled";
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let (upstream, proxy) = start();
    for (lines, after) in [(&WEBSOCKET[..], FRAME), (&H2C, PREFACE), (&H2C[1..], FRAME)] {
        let (mut client, response) = upgrading(&proxy, lines, b"");
        assert_eq!((response.status, response.header("upgrade"), response.header("connection")), (200, None, None));
        assert_eq!(client.get("/x").status, 200, "the connection is still usable");
        let (mut client, response) = upgrading(&proxy, lines, after);
        assert_eq!((response.status, response.header("upgrade")), (200, None));
        let rest = client.read_to_end().unwrap_or_default();
        assert!(is_rejection(&rest), "{}", String::from_utf8_lossy(&rest));
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 9);
    for request in requests {
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(request.headers(name), [""; 0], "{}", request.head);
        }
        assert!(request.head.starts_with("GET /x HTTP/1.1\r\n") && request.body.is_empty(), "{}", request.head);
    }
}

/// Whether `bytes` reject invalid input: a closed connection, 400, or 408 for an unfinished line.
fn is_rejection(bytes: &[u8]) -> bool {
    bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 400 ") || bytes.starts_with(b"HTTP/1.1 408 ")
}

#[test]
fn e09_http2_with_prior_knowledge_is_closed() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let (upstream, proxy) = start();
    for bytes in [[PREFACE, SETTINGS].concat(), PREFACE.to_vec(), b"PRI * HTTP/2.0\r\n".to_vec()] {
        let mut client = proxy.connect();
        client.send(&bytes);
        let response = client.read_to_end().unwrap_or_default();
        assert!(is_rejection(&response), "{}", String::from_utf8_lossy(&response));
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(proxy.connect().get("/x").status, 200);
}
