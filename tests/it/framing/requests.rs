//! Requests that are malformed, too large or too slow.

use std::{
    io::{self, Write as _},
    thread,
};

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Gate, Reply, Upstream},
};

fn ok() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// A request that must get no response, because it follows one that must close the connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends each request on a new connection, followed by another request. Checks that each gets the expected error, that its
/// connection is closed, and that nothing reaches the upstream.
#[track_caller]
fn assert_rejected(variables: &[(&str, &str)], requests: &[(String, u16, &str)]) {
    let upstream = ok();
    let proxy = Proxy::start_with(&upstream, variables);
    for (request, status, code) in requests {
        let shown = &request[..request.len().min(200)];
        let mut client = proxy.connect();
        client.send(format!("{request}{NEXT}"));
        let response = client.read_response(false).unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!(response.status, *status, "{shown:?}");
        response.assert_problem(*status, code);
        assert!(response.header("x-request-id").is_some(), "{shown:?}");
        client.assert_closed();
    }
    assert_eq!(upstream.requests().len(), 0);
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n{body}")
}

#[test]
fn a01_a02_a03_a04_a06_a07_a08_ambiguous_lengths_get_400() {
    let mut requests = Vec::new();
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 003",
    ] {
        requests.push((post(fields, "0\r\n\r\n"), 400, "bad_request"));
    }
    // hyper rejects all of these.
    for length in
        ["3\r\nContent-Length: 4", "+3", "-1", "0x3", "3z", "", "\r\nContent-Length: 3", "18446744073709551616"]
    {
        requests.push((post(&format!("Content-Length: {length}"), "abc"), 400, "bad_request"));
    }
    requests.push((post("Content-Length: 18446744073709551615", "abc"), 400, "bad_request"));
    assert_rejected(&[], &requests);
}

#[test]
fn a09_a11_a13_a14_only_chunked_is_supported() {
    let body = "0\r\n\r\n";
    let mut requests = vec![
        (post("Transfer-Encoding: gzip, chunked", body), 501, "not_implemented"),
        (post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", body), 400, "bad_request"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", body), 400, "bad_request"),
        (post("Transfer-Encoding: chunked, chunked", body), 400, "bad_request"),
        ("POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400, "bad_request"),
    ];
    for coding in ["identity", "identity, xchunked", "\"chunked\"", "chunked;q=1", "cow chunked", "\u{b}chunked"] {
        requests.push((post(&format!("Transfer-Encoding: {coding}"), body), 400, "bad_request"));
    }
    assert_rejected(&[], &requests);
}

#[test]
fn b01_b03_b05_b11_c12_c13_ambiguous_heads_get_400() {
    let get = |field: &str| format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
    let mut requests: Vec<_> = [
        "X-A: b\0c",
        "X-A: b\rX: c",
        "X-A: b\u{7f}c",
        "X-A: b\u{1}c",
        "X-A: b\u{1b}[31mc",
        "X-A: b\r\n c",
        "X-A : b",
        "Transfer-Encoding\t: chunked",
        "Content-Length : 3",
    ]
    .iter()
    .map(|field| (get(field), 400, "bad_request"))
    .collect();
    for line in ["GET / HTTP/1.2", "GET / HTTP/2.0", "GET /", "GET /a\tb HTTP/1.1", "GET /a b HTTP/1.1"] {
        requests.push((format!("{line}\r\nHost: localhost\r\n\r\n"), 400, "bad_request"));
    }
    requests.push(("GET /denied#/allowed HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400, "bad_request"));
    assert_rejected(&[], &requests);
}

#[test]
fn b12_heads_and_targets_over_their_limits_get_431_or_414() {
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    assert_rejected(
        &[],
        &[
            (get("/x", &"X-A: b\r\n".repeat(64)), 431, "headers_too_large"),
            (get("/x", &format!("X-A: {}\r\n", "b".repeat(33_000))), 431, "headers_too_large"),
            (get(&format!("/{}", "x".repeat(8192)), ""), 414, "target_too_long"),
            // More than the proxy reads.
            (get("/x", &format!("X-A: {}\r\n", "b".repeat(500_000))), 431, "headers_too_large"),
            (get(&format!("/{}", "x".repeat(66_000)), ""), 414, "target_too_long"),
        ],
    );
}

#[test]
fn an_error_for_an_exceeded_limit_names_the_limit() {
    let upstream = ok();
    let limits = [
        ("FINICITY__LIMITS__TARGET_BYTES", "300"),
        ("FINICITY__LIMITS__HEADER_BYTES", "2000"),
        ("FINICITY__LIMITS__HEADERS", "9"),
        ("FINICITY__LIMITS__BODY_BYTES", "1000"),
    ];
    let proxy = Proxy::start_with(&upstream, &limits);
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let chunk = "x".repeat(1001);
    for (request, status, parts) in [
        (get(&format!("/{}", "x".repeat(300)), ""), 414, &["limits.target_bytes (300 bytes)"][..]),
        (get("/x", &"X-A: b\r\n".repeat(9)), 431, &["limits.headers (9 fields)", "limits.header_bytes (2000 bytes)"]),
        (get("/x", &format!("X-A: {}\r\n", "b".repeat(2000))), 431, &["limits.header_bytes (2000 bytes)"]),
        (post("Content-Length: 1001", ""), 413, &["limits.body_bytes (1000 bytes)"]),
        (
            post("Transfer-Encoding: chunked", &format!("3e9\r\n{chunk}\r\n0\r\n\r\n")),
            413,
            &["limits.body_bytes (1000 bytes)"],
        ),
    ] {
        let mut client = proxy.connect();
        client.send(request);
        let response = client.read_response(false).unwrap();
        assert_eq!(response.status, status, "{response:?}");
        for part in parts {
            assert!(response.text().contains(part), "{part:?} is not in {}", response.text());
        }
    }
}

#[test]
fn requests_hyper_cannot_parse_are_logged_and_counted() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    for (target, detail) in [
        ("/x?a=\"b\"", "Invalid request target: character \" at offset 5; percent-encode it as %22."),
        ("/x?a=<b>", "Invalid request target: character < at offset 5; percent-encode it as %3C."),
        ("/x>", "Invalid request target: character > at offset 2; percent-encode it as %3E."),
        ("/x`y?z", "Invalid request target: character ` at offset 2; percent-encode it as %60."),
        ("/x y", "Invalid request target: space at offset 2; percent-encode it as %20."),
        ("/x\u{1}", "Invalid request target: byte 0x01 at offset 2; percent-encode it as %01."),
    ] {
        // In one write, pipelined after another request, and byte by byte.
        for how in 0..3 {
            let mut client = proxy.connect();
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: caller-{how}\r\n\r\n{NEXT}");
            match how {
                0 => client.send(&request),
                1 => {
                    client.send(format!("GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n{request}"));
                    assert_eq!(client.read_response(false).unwrap().status, 200);
                }
                _ => {
                    let mut writer = client.writer();
                    let _ = request.bytes().try_for_each(|byte| writer.write_all(&[byte]));
                }
            }
            let response = client.read_response(false).unwrap();
            response.assert_problem(400, "bad_request");
            assert!(response.text().contains(&serde_json::to_string(detail).unwrap()[1..]), "{}", response.text());
            assert_eq!(response.header("x-request-id"), Some(format!("caller-{how}").as_str()));
            assert_eq!(response.header("connection"), Some("close"));
            client.assert_closed();
        }
    }
    let mut client = proxy.connect();
    client.send("HEAD /<> HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        client.read_to_end().unwrap().split(|byte| *byte == b'\n').next().unwrap(),
        b"HTTP/1.1 400 Bad Request\r"
    );
    proxy.wait_for_metric(r#"errors_total{code="bad_request"}"#, 19);
    proxy.process.wait_for_lines(19, |line| line.contains(r#""error.type":"bad_request""#));
    let lines = proxy.process.logs("request");
    let methods = |name| lines.iter().filter(|line| line["http.request.method"] == name).count();
    assert_eq!((methods("GET"), methods("HEAD")), (18 + 6, 1));
    assert_eq!(upstream.requests().len(), 6);
}

#[test]
fn ops_and_admin_reject_requests_hyper_cannot_parse() {
    let proxy = Proxy::start(&ok());
    for address in [proxy.ops, proxy.admin] {
        for request in
            ["GET /<> HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n"]
        {
            let mut client = Client::connect(address);
            client.send(request);
            let response = client.read_response(false).unwrap();
            assert_eq!((response.status, response.header("connection")), (400, Some("close")));
            client.assert_closed();
        }
    }
}

#[test]
fn i10_a_body_over_the_limit_gets_413() {
    let limit = [("FINICITY__LIMITS__BODY_BYTES", "1000")];
    assert_rejected(&limit, &[(post("Content-Length: 1001", ""), 413, "body_too_large")]);

    let upstream = ok();
    let proxy = Proxy::start_with(&upstream, &limit);
    let mut client = proxy.connect();
    client.send(post("Transfer-Encoding: chunked", ""));
    client.send(format!("258\r\n{0}\r\n258\r\n{0}\r\n", "x".repeat(600)));
    client.read_response(false).unwrap().assert_problem(413, "body_too_large");
    client.assert_closed();
    assert_eq!(proxy.connect().call("POST", "/y", &["Content-Length: 1000"], &[0; 1000]).status, 200);
    assert_eq!(upstream.requests().len(), 1, "the upstream did not get the large body completely");
}

#[test]
fn a16_a17_a_body_is_never_parsed_as_a_request() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\nFoo: bar\r\n\r\n";
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST"] {
        let mut client = proxy.connect();
        let length = format!("Content-Length: {}", smuggled.len());
        assert_eq!(client.call(method, "/a", &[&length], smuggled.as_bytes()).status, 200);
        let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
        assert_eq!(client.call(method, "/b", &["Transfer-Encoding: chunked"], chunk.as_bytes()).status, 200);
        assert_eq!(client.get("/c").status, 200);
    }
    let requests = upstream.requests();
    let targets: Vec<&str> = requests.iter().map(crate::support::upstream::ReceivedRequest::target).collect();
    assert_eq!(targets, ["/a", "/b", "/c"].repeat(5));
    for request in requests.iter().filter(|request| request.target() != "/c") {
        assert_eq!(request.body, smuggled.as_bytes(), "{}", request.head);
    }
}

#[test]
fn a20_a21_a22_a_malformed_or_truncated_body_gets_400() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    for body in ["3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "3\r\nabc\r\n0\n\n"] {
        let mut client = proxy.connect();
        client.send(post("Transfer-Encoding: chunked", body) + NEXT);
        client.read_response(false).unwrap().assert_problem(400, "bad_request");
        client.assert_closed();
    }
    let resident = proxy.process.status_kib("VmRSS");
    let mut client = proxy.connect();
    client.send(post("Transfer-Encoding: chunked", ""));
    let extension = format!("1;x={}\r\na\r\n", "y".repeat(15_000));
    let mut writer = client.writer();
    let _ = (0..1000).try_for_each(|_| writer.write_all(extension.as_bytes()));
    // The response can be lost while the flood continues, because the connection is reset.
    if let Ok(response) = client.read_response(false) {
        response.assert_problem(400, "bad_request");
    }
    assert!(proxy.process.status_kib("VmRSS") < resident + 4096);

    let mut client = proxy.connect();
    client.send(post("Content-Length: 10", "abc"));
    drop(client);
    proxy.process.wait_for_line(|line| line.contains(r#""error.type":"bad_request""#) && line.contains("end of file"));
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn b02_b08_b13_bare_line_feeds_are_forwarded_as_crlf() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.send(b"GET /bare HTTP/1.1\nHost: localhost\nX-A: b\r\nX-B: \xff\xa0c\r\nX-M: 1\nX-M: 2\n\n");
    assert_eq!(client.read_response(false).unwrap().status, 200);
    let request = upstream.wait_for("/bare");
    // `head` is split at CR LF: a bare LF would remain in a line.
    assert!(!request.head.replace("\r\n", "").contains('\n'));
    assert_eq!((request.headers("x-a"), request.headers("x-m")), (vec!["b"], vec!["1", "2"]));
    assert_eq!(request.headers("x-b"), ["\u{ff}\u{a0}c"]);
}

#[test]
fn pipelined_requests_are_served_in_order_until_an_error() {
    let upstream = Upstream::start(3600, |request| Reply::json(&format!("\"{}\"", request.target())));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.send([get("/1"), get("/2"), get("/3#x"), get("/4")].concat());
    for target in ["/1", "/2"] {
        assert_eq!(client.read_response(false).unwrap().text(), format!("\"{target}\""));
    }
    client.read_response(false).unwrap().assert_problem(400, "bad_request");
    client.assert_closed();
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn i01_i03_slow_heads_and_idle_connections_are_closed() {
    let upstream = ok();
    let limits = [("FINICITY__LIMITS__HEADER_TIMEOUT", "1s"), ("FINICITY__LIMITS__KEEPALIVE_TIMEOUT", "1s")];
    let proxy = Proxy::start_with(&upstream, &limits);
    let mut silent = proxy.connect();
    let mut dripping = proxy.connect();
    dripping.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let mut kept = proxy.connect();
    assert_eq!(kept.get("/x").status, 200);
    let mut half = proxy.connect();
    assert_eq!(half.get("/x").status, 200);
    half.send("GET / HT");
    for client in [&mut dripping, &mut half] {
        client.read_response(false).unwrap().assert_executed(408, "request_timeout", "no");
    }
    for client in [&mut silent, &mut dripping, &mut kept, &mut half] {
        client.assert_closed();
    }
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn i04_a_stalled_body_gets_408_and_is_not_forwarded() {
    let upstream = ok();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__IDLE_TIMEOUT", "1s")]);
    let mut client = proxy.connect();
    client.send(post("Content-Length: 10", "abc"));
    client.read_response(false).unwrap().assert_problem(408, "request_timeout");
    client.assert_closed();
    assert_eq!(upstream.requests().len(), 0);
}

/// Uploads 10 MiB in parts of `part`, twenty times, to an upstream that responds early with 413. The client must get that response.
fn check_early_responses(upstream: &Upstream, part: &[u8]) {
    let proxy = Proxy::start(upstream);
    for round in 0..20 {
        let mut client = proxy.connect();
        client.send(post("Content-Length: 10485760", ""));
        let mut writer = client.writer();
        thread::scope(|scope| {
            scope.spawn(move || {
                let sent = (0..10_485_760 / part.len()).try_for_each(|_| writer.write_all(part));
                assert!(sent.err().is_none_or(|error| is_closed(&error)), "round {round}");
            });
            let response = client.read_response(false).unwrap();
            assert_eq!((response.status, response.header("x-finicity-proxy-error")), (413, None), "round {round}");
            drop(client);
        });
    }
}

#[test]
fn g06_e05_an_early_response_reaches_the_client() {
    // The upstream responds after 64 KiB, when most of the body has not been sent. The rest must not be parsed as requests.
    let upstream = Upstream::start_with_early_responses(|_| Reply::status(413, "Content Too Large", "{}"));
    check_early_responses(&upstream, &NEXT.as_bytes().repeat(1000));
    assert!(upstream.requests().iter().all(|request| request.target() == "/x"));
}

#[test]
fn f22_an_early_response_survives_a_cut_upstream_connection() {
    let response = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let upstream = Upstream::start_with_early_responses(|_| Reply::Cut(response.to_vec()));
    check_early_responses(&upstream, &[b'x'; 64 * 1024]);
}

#[test]
fn an_upload_ends_with_its_response() {
    // The response is sent after 64 KiB, and the connection would stay open.
    let upstream = Upstream::start_with_early_responses(|_| Reply::status(422, "No", "{}"));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.send(post("Content-Length: 10485760", &"x".repeat(64 * 1024)));
    assert_eq!(client.read_response(false).unwrap().status, 422);
    // One more byte of the body closes both connections.
    client.send("x");
    client.assert_closed();
}

#[test]
fn an_error_for_a_request_with_a_body_closes_the_connection() {
    let upstream = ok();
    let proxy = Proxy::start(&upstream);
    let response = proxy.connect().call("POST", "/a/../b", &["Content-Length: 3"], b"abc");
    response.assert_problem(400, "bad_request");
    assert_eq!(response.header("connection"), Some("close"));
    let response = proxy.connect().call("POST", "/a/../b", &["Content-Length: 0"], b"");
    assert_eq!((response.status, response.header("connection")), (400, None));
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[test]
fn g07_a_client_disconnect_aborts_its_request() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream =
        Upstream::start(3600, move |_| Reply::Held(held.clone(), b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    let proxy = Proxy::start(&upstream);
    let mut client: Client = proxy.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/slow");
    drop(client);
    let line = proxy.process.wait_for_log("request");
    assert_eq!(line["outcome"], "aborted");
    assert!(line["duration_ms"].as_f64().unwrap() < 30_000.0, "{line}");
    gate.open();
}
