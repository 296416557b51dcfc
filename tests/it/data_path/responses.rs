//! Unusual, malformed and dangerous responses, and what the client receives.

use crate::support::{
    process::Proxy,
    upstream::{Reply, Upstream},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream that responds to `/odd` with `reply`, and to all other requests with a 200.
fn upstream(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Upstream {
    Upstream::start(3600, move |request| match request.target() {
        "/odd" => reply(),
        _ => Reply::Bytes(OK.into()),
    })
}

/// Checks that a request after `/odd` succeeds, on another connection.
#[track_caller]
fn check_next_is_on_another_connection(upstream: &Upstream, proxy: &Proxy) {
    assert_eq!(proxy.connect().get("/next").text(), "ok");
    let requests = upstream.requests();
    let connection = |target| requests.iter().find(|request| request.target() == target).unwrap().connection;
    assert_ne!(connection("/odd"), connection("/next"));
}

#[test]
fn e10_an_unrequested_101_closes_the_connection() {
    let upstream = upstream(|| {
        Reply::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec())
    });
    // With one worker, the next request could reuse the same connection.
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__RUNTIME__WORKER_THREADS", "1")]);
    proxy.connect().get("/odd").assert_problem(502, "upstream_protocol");
    check_next_is_on_another_connection(&upstream, &proxy);
}

#[test]
fn f03_j09_a_close_delimited_body_needs_a_clean_close() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
    for (ending, whole) in [(Reply::Close as fn(Vec<u8>) -> Reply, true), (Reply::Cut, false), (Reply::Reset, false)] {
        let upstream = upstream(move || ending(format!("{HEAD}hello").into_bytes()));
        let proxy = Proxy::start(&upstream);
        let mut client = proxy.connect();
        client.send("GET /odd HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = client.read_response(false);
        let line = proxy.process.wait_for_log("request");
        if whole {
            let response = response.unwrap();
            assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("hello", Some("chunked")));
            assert_eq!(line["outcome"], "complete");
        } else {
            // A reset can overtake even the head.
            assert!(response.is_err() || response.unwrap().status == 502);
            assert_ne!(
                line["outcome"].as_str().zip(line["http.response.status_code"].as_u64()),
                Some(("complete", 200))
            );
        }
    }
}

#[test]
fn j09_a_sized_body_is_complete_however_the_connection_ends() {
    for ending in [Reply::Close as fn(Vec<u8>) -> Reply, Reply::Cut] {
        let upstream = upstream(move || ending(OK.into()));
        let proxy = Proxy::start(&upstream);
        assert_eq!(proxy.connect().get("/odd").text(), "ok");
        assert_eq!(proxy.process.wait_for_log("request")["outcome"], "complete");
    }
}

#[test]
fn f05_chunked_framing_overrides_content_length() {
    let upstream = upstream(|| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n";
        Reply::Bytes(format!("{head}5\r\nhello\r\n0\r\n\r\n").into_bytes())
    });
    let proxy = Proxy::start(&upstream);
    let response = proxy.connect().get("/odd");
    if response.status != 502 {
        assert_eq!((response.text().as_str(), response.header("content-length")), ("hello", None));
    }
}

#[test]
fn f11_a_body_in_a_response_to_head_is_discarded() {
    let upstream = upstream(|| Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL".to_vec()));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__RUNTIME__WORKER_THREADS", "1")]);
    let mut client = proxy.connect();
    let response = client.call("HEAD", "/odd", &[], b"");
    assert_eq!((response.status, response.header("content-length")), (200, Some("4")));
    assert_eq!(client.get("/after").text(), "ok", "the connection of the client is not affected");
    check_next_is_on_another_connection(&upstream, &proxy);
}

#[test]
fn f14_a_response_head_over_the_limits_is_a_502() {
    for (head, passes) in [
        (format!("x: {}\r\n", "a".repeat(600 * 1024)), false),
        ("x: 1\r\n".repeat(129), false),
        ("set-cookie: a=1\r\n".repeat(50), true),
        (format!("x: {}\r\n", "a".repeat(16 * 1024)), true),
    ] {
        let upstream =
            upstream(move || Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{head}content-length: 0\r\n\r\n").into_bytes()));
        let proxy = Proxy::start(&upstream);
        let response = proxy.connect().get("/odd");
        if passes {
            assert_eq!(response.status, 200);
            let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie").count();
            assert!([0, 50].contains(&cookies));
        } else {
            response.assert_problem(502, "upstream_protocol");
        }
    }
}

#[test]
fn f19_cookies_are_not_shared_between_clients() {
    let upstream = upstream(|| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nset-cookie: s=canary; Path=/\r\ncontent-length: 0\r\n\r\n".to_vec())
    });
    let proxy = Proxy::start(&upstream);
    let mut first = proxy.connect();
    assert_eq!(first.get("/odd").header("set-cookie"), Some("s=canary; Path=/"));
    first.get("/again");
    proxy.connect().get("/other");
    assert!(upstream.received().iter().all(|request| request.headers("cookie").is_empty()));
}

#[test]
fn g10_http_1_0_supports_keep_alive_and_gets_no_chunks() {
    let upstream = upstream(|| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec())
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("GET /plain HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
        let response = client.read_response(false).unwrap();
        assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("ok", None));
    }
    client.send("GET /odd HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
    let response = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(response.ends_with("\r\n\r\nhi") && !response.contains("chunked"), "{response}");
}

#[test]
fn d10_f09_f18_f21_e14_responses_lose_only_their_trailers() {
    let upstream = upstream(|| {
        Reply::Bytes(
            b"HTTP/1.1 307 Moved\r\nlocation: http://evil.example/\r\nx-split: a%0d%0aSet-Cookie: x\r\ncontent-encoding: br\r\n\
              transfer-encoding: chunked\r\ntrailer: set-cookie\r\n\r\n3\r\nabc\r\n0\r\nSet-Cookie: stolen=1\r\n\r\n"
                .to_vec(),
        )
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.call("POST", "/odd", &["Content-Length: 3", "Accept-Encoding: br"], b"abc");
        assert_eq!((response.status, response.header("location")), (307, Some("http://evil.example/")));
        assert_eq!(
            (response.header("x-split"), response.header("content-encoding")),
            (Some("a%0d%0aSet-Cookie: x"), Some("br"))
        );
        assert_eq!(
            (response.header("set-cookie"), response.header("trailer"), response.text().as_str()),
            (None, None, "abc")
        );
    }
    assert_eq!(upstream.requests().len(), 2, "the redirect is not followed");
}
