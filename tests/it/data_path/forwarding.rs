//! Requests and responses are forwarded byte for byte.

use std::{io::Write as _, net::SocketAddr, thread};

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    client::Client,
    process::Proxy,
    upstream::{Gate, ReceivedRequest, Reply, Upstream, hash, pattern, token},
};

const MIB: u64 = 1024 * 1024;

fn customers(_: &ReceivedRequest) -> Reply {
    Reply::json(r#"{"customers":[]}"#)
}

#[test]
fn token_request_and_api_request_match_the_vendor_docs() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    let response = proxy.connect().call(
        "GET",
        "/aggregation/v2/customers",
        &["Accept: application/json", "Content-Type: application/json"],
        b"",
    );
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"customers":[]}"#));

    let received = upstream.received();
    let [token_call, request] = received.as_slice() else { panic!("{received:?}") };
    assert!(token_call.head.starts_with("POST /oauth/token HTTP/1.1\r\n"), "{}", token_call.head);
    assert_eq!(token_call.headers("finicity-app-key"), [APP_KEY]);
    assert_eq!(token_call.headers("content-type"), ["application/json"]);
    assert_eq!(token_call.headers("accept"), ["application/json"]);
    assert_eq!(token_call.headers("host"), [upstream.authority()]);
    assert_eq!(token_call.headers("authorization"), [""; 0]);
    assert_eq!(
        String::from_utf8_lossy(&token_call.body),
        format!(r#"{{"client_id":"{CLIENT_ID}","client_secret":"{CLIENT_SECRET}","grant_type":"client_credentials"}}"#)
    );

    assert!(request.head.starts_with("GET /aggregation/v2/customers HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.headers("accept"), ["application/json"]);
    assert_eq!(request.headers("content-type"), ["application/json"]);
    assert_eq!(request.headers("finicity-app-key"), [APP_KEY]);
    assert_eq!(request.headers("authorization"), [format!("Bearer {}", token(1))]);
    assert_eq!(request.headers("host"), [upstream.authority()]);
    assert_eq!(request.head.split("\r\n").count(), 6, "nothing else is added: {}", request.head);
}

#[test]
fn both_loopback_addresses_serve_requests() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    assert!(proxy.proxy.iter().any(SocketAddr::is_ipv4) && proxy.proxy.iter().any(SocketAddr::is_ipv6));
    for address in &proxy.proxy {
        assert_eq!(Client::connect(*address).get("/aggregation/v1/customers").status, 200, "{address}");
    }
}

#[test]
fn path_and_query_arrive_byte_for_byte() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for target in [
        "/",
        "/aggregation/v1/customers?username=&type=&search=",
        "/a%2Fb/c%20d?q=%zz&r=a+b&&=&s",
        "/a//b/?x=/../y",
        "/caf%C3%A9?callbackUrl=https%3A%2F%2Fexample.com%2Fx%3Fy%3Dz",
        "/a;b=c/d,e/(f)'g'*h!i~j$k&l=m:n@o",
        "/x?",
        "/UPPER/lower?A=a",
    ] {
        assert_eq!(client.get(target).status, 200, "{target}");
        assert_eq!(upstream.requests().last().unwrap().target(), target);
    }
}

#[test]
fn a_post_without_a_body_has_content_length_0() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let target = "/aggregation/v1/customers/1/accounts";
    for lines in [&["Content-Length: 0"][..], &[]] {
        client.call("POST", target, lines, b"");
        let request = upstream.requests().last().unwrap().clone();
        assert_eq!(request.headers("content-length"), ["0"]);
        assert_eq!(request.headers("transfer-encoding"), [""; 0]);
    }
}

#[test]
fn bodies_keep_their_framing() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.call("POST", "/sized", &["Content-Length: 5"], b"hello");
    client.call("POST", "/chunked", &["Transfer-Encoding: chunked"], b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    let requests = upstream.requests();
    assert_eq!((requests[0].headers("content-length"), requests[0].headers("transfer-encoding")), (vec!["5"], vec![]));
    assert_eq!(
        (requests[1].headers("content-length"), requests[1].headers("transfer-encoding")),
        (vec![], vec!["chunked"])
    );
    assert!(requests.iter().all(|request| request.body == b"hello"));
}

#[test]
fn a_get_keeps_its_chunked_body() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    proxy.connect().call("GET", "/x", &["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n");
    let request = upstream.requests().pop().unwrap();
    assert_eq!((request.headers("transfer-encoding"), request.body.as_slice()), (vec!["chunked"], &b"hello"[..]));
}

#[test]
fn i11_large_bodies_stream_with_bounded_memory() {
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/down/3" => Reply::Stream(3 * MIB),
        "/down/96" => Reply::Stream(96 * MIB),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let mut both_ways = |mib: u64| {
        let chunk: Vec<u8> = (0..MIB).map(pattern).collect();
        let mut writer = client.writer();
        client.send(format!("POST /up/{mib} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", mib * MIB));
        let sent = (0..mib).fold(hash(0, b""), |state, _| hash(state, &chunk));
        thread::scope(|scope| {
            scope.spawn(|| (0..mib).for_each(|_| writer.write_all(&chunk).unwrap()));
            assert_eq!(client.read_response(false).unwrap().status, 200);
        });
        let received = upstream.wait_for(&format!("/up/{mib}"));
        assert_eq!((received.body_len, received.body_hash), (mib * MIB, sent));

        let response = client.get(&format!("/down/{mib}"));
        assert_eq!(response.body.len() as u64, mib * MIB);
        assert!(response.body.iter().enumerate().all(|(place, byte)| *byte == pattern(place as u64)));
    };
    both_ways(3);
    let before = proxy.process.status_kib("VmHWM");
    both_ways(96);
    // The kernel counts pages per CPU, so the high-water mark can appear to decrease.
    let grown = proxy.process.status_kib("VmHWM").saturating_sub(before);
    assert!(grown < 8 * 1024, "the process grew by {grown} KiB");
}

#[test]
fn a_clients_credentials_and_hop_by_hop_headers_are_removed() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    let lines = [
        "Authorization: Bearer evil",
        "authorization: Basic evil",
        "FINICITY-APP-KEY: evil",
        "Finicity_App_Key: evil",
        "Finicity-App-Token: evil",
        "App-Key: evil",
        "Cookie: evil=1",
        "Proxy-Authorization: evil",
        "X-Forwarded-For: evil",
        "Connection: close, Authorization, Finicity-App-Key, X-Private",
        "X-Private: evil",
        "TE: trailers",
        "X-External-Request-Id: kept",
    ];
    assert_eq!(proxy.connect().call("GET", "/x", &lines, b"").status, 200);
    let request = upstream.requests().pop().unwrap();
    assert!(!request.head.contains("evil"), "{}", request.head);
    assert_eq!(request.headers("authorization"), [format!("Bearer {}", token(1))]);
    assert_eq!(request.headers("finicity-app-key"), [APP_KEY]);
    assert_eq!(request.headers("x-external-request-id"), ["kept"]);
}

#[test]
fn responses_pass_through_unchanged() {
    let gzip = b"\x1f\x8b\x08\x00not really\xff\x00".to_vec();
    let body = gzip.clone();
    let upstream = Upstream::start(3600, move |request| {
        match request.target() {
        "/gzip" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 16\r\n\r\n";
            Reply::Bytes([head.as_bytes(), &body].concat())
        }
        "/redirect" => Reply::Bytes(b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n".to_vec()),
        "/limited" => Reply::Bytes(b"HTTP/1.1 429 Slow\r\nretry-after: 30\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
        "/cookies" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nkeep-alive: timeout=1\r\nauthorization: Bearer x\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
        ),
        "/none" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/head" => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n".to_vec()),
        "/chunked" => Reply::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()),
        _ => Reply::status(500, "Internal Server Error", r#"{"code":103}"#),
    }
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let response = client.call("GET", "/gzip", &["Accept-Encoding: gzip"], b"");
    assert_eq!((response.header("content-encoding"), &response.body), (Some("gzip"), &gzip));
    let response = client.get("/redirect");
    assert_eq!((response.status, response.header("location")), (302, Some("http://evil.example/")));
    let response = client.get("/limited");
    assert_eq!((response.status, response.header("retry-after"), response.text().as_str()), (429, Some("30"), "{}"));
    let response = client.get("/cookies");
    let cookies: Vec<_> =
        response.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, v)| v.as_str()).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!((response.header("keep-alive"), response.header("authorization")), (None, None));
    assert_eq!(client.get("/none").status, 204);
    let response = client.call("HEAD", "/head", &[], b"");
    assert_eq!((response.status, response.header("content-length")), (200, Some("1234")));
    assert_eq!(client.get("/chunked").text(), "abc");
    let response = client.get("/failing");
    assert_eq!(
        (response.status, response.text().as_str(), response.header("x-finicity-proxy-error")),
        (500, r#"{"code":103}"#, None)
    );
}

#[test]
fn f01_f02_a_truncated_response_is_never_complete() {
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/sized" => Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_vec()),
        _ => Reply::Cut(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
    });
    let proxy = Proxy::start(&upstream);
    for target in ["/sized", "/chunked"] {
        let mut client = proxy.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.read_response(false).expect_err("the response must be truncated");
    }
    proxy.process.wait_for_lines(2, |line| line.contains(r#""outcome":"truncated""#) && line.contains(":200,"));
}

#[test]
fn a_truncated_response_resets_an_http_1_0_connection() {
    let cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let upstream = Upstream::start(3600, move |request| match request.target() {
        "/cut" => Reply::Cut(cut.clone()),
        _ => Reply::Bytes([&cut[..], b"0\r\n\r\n"].concat()),
    });
    let proxy = Proxy::start(&upstream);
    for (target, whole) in [("/whole", true), ("/cut", false)] {
        let mut client = proxy.connect();
        client.send(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.read_to_end().is_ok(), whole, "{target}");
    }
}

#[test]
fn a_client_that_stops_reading_is_aborted() {
    let upstream = Upstream::start(3600, |_| Reply::Stream(256 * MIB));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__IDLE_TIMEOUT", "1s")]);
    let mut client = proxy.connect();
    client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(proxy.process.wait_for_log("request")["outcome"], "aborted");
}

#[test]
fn f16_a_stalled_response_is_aborted_and_never_complete() {
    let gate = Gate::new();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_vec();
    let upstream = Upstream::start(3600, move |_| Reply::Stalled(half.clone(), gate.clone()));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__IDLE_TIMEOUT", "1s")]);
    let mut client = proxy.connect();
    client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_response(false).expect_err("the response must be truncated");
    assert_eq!(proxy.process.wait_for_log("request")["outcome"], "truncated");
}

#[test]
fn e04_expect_continue_is_handled_by_the_proxy() {
    let upstream = Upstream::start(3600, customers);
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_response(false).unwrap().status, 100);
    client.send("abc");
    assert_eq!(client.read_response(false).unwrap().status, 200);
    let request = upstream.requests().pop().unwrap();
    assert_eq!((request.headers("expect"), request.body.as_slice()), (vec![], &b"abc"[..]));
}

#[test]
fn a_slow_request_does_not_delay_another() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(3600, move |request| match request.target() {
        "/held" => Reply::Held(held.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start(&upstream);
    let mut waiting = proxy.connect();
    waiting.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    assert_eq!(proxy.connect().get("/other").status, 200, "a slow request must not delay another");
    gate.open();
    assert_eq!(waiting.read_response(false).unwrap().status, 200);
}
