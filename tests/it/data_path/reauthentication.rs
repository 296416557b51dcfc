//! A token that the upstream refuses is replaced, and the request is resent once. Every other 401 is relayed.

use std::{
    collections::HashSet,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use flate2::{Compression, write::GzEncoder};

use crate::support::{
    process::Proxy,
    upstream::{ReceivedRequest, Reply, Upstream, token},
};

const EXPIRED: &str = r#"{"code":"10023","message":"Expired (Finicity-App-Token)"}"#;

/// An upstream that accepts tokens from a minimum version on, and refuses older ones with `refusal`.
fn revoking(refusal: fn() -> Reply) -> (Upstream, Arc<AtomicU64>) {
    let oldest = Arc::new(AtomicU64::new(1));
    let good_from = Arc::clone(&oldest);
    let upstream =
        Upstream::start(
            3600,
            move |request| if version(request) >= good_from.load(SeqCst) { Reply::json("{}") } else { refusal() },
        );
    (upstream, oldest)
}

fn version(request: &ReceivedRequest) -> u64 {
    request.headers("authorization")[0]
        .strip_prefix(&format!("Bearer {}", token(0)[..token(0).len() - 1].to_owned()))
        .unwrap()
        .parse()
        .unwrap()
}

fn expired() -> Reply {
    Reply::status(401, "Unauthorized", EXPIRED)
}

fn gzipped() -> Reply {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(br#"{"Errors":{"Error":[{"reasonCode":1503,"description":"Expired (App-Token)"}]}}"#).unwrap();
    let body = gzip.finish().unwrap();
    let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    Reply::Bytes([head.as_bytes(), &body].concat())
}

fn challenged() -> Reply {
    let challenge = r#"Bearer realm="x", error="invalid_token""#;
    Reply::Bytes(
        format!("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n").into_bytes(),
    )
}

#[test]
fn o01_o04_a_token_revoked_early_fails_no_request() {
    let (upstream, oldest) = revoking(expired);
    let proxy = Proxy::start(&upstream);
    oldest.store(2, SeqCst);
    thread::scope(|scope| {
        for n in 0..50 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.connect();
                let response = if n % 2 == 0 {
                    client.get("/aggregation/v1/customers")
                } else {
                    client.call("POST", &format!("/x?n={n}"), &["Content-Length: 5"], b"hello")
                };
                assert_eq!(response.status, 200, "{response:?}");
            });
        }
    });
    assert_eq!(upstream.token_requests(), 2);
    let (refused, accepted): (Vec<_>, Vec<_>) =
        upstream.requests().into_iter().partition(|request| version(request) == 1);
    assert_eq!(accepted.len(), 50);
    assert!(!refused.is_empty() && refused.len() <= 50);
    // A resent request is identical except for the token.
    let plain =
        |request: &ReceivedRequest| (request.head.replace(&token(1), "").replace(&token(2), ""), request.body.clone());
    for request in &refused {
        assert!(accepted.iter().any(|resent| plain(resent) == plain(request)), "{request:?}");
    }
    proxy.process.wait_for_line(|line| line.contains(r#""replayed":true"#) && line.contains(r#""token.version":2"#));
}

#[test]
fn a_resend_does_not_reuse_the_connection_of_the_refusal() {
    let (oldest, refused) = (Arc::new(AtomicU64::new(1)), Mutex::new((HashSet::new(), HashSet::new())));
    let good_from = Arc::clone(&oldest);
    // A connection that carried a refusal stays open and fails a resent request. First attempts can still use it.
    let upstream = Upstream::start(3600, move |request| {
        let (connections, targets) = &mut *refused.lock().unwrap();
        if connections.contains(&request.connection) && targets.contains(request.target()) {
            return Reply::Cut(Vec::new());
        }
        if version(request) >= good_from.load(SeqCst) {
            return Reply::json("{}");
        }
        connections.insert(request.connection);
        targets.insert(request.target().to_owned());
        expired()
    });
    let proxy = Proxy::start(&upstream);
    oldest.store(2, SeqCst);
    thread::scope(|scope| {
        for n in 0..50 {
            let proxy = &proxy;
            scope.spawn(move || {
                let response = proxy.connect().call("POST", &format!("/x?n={n}"), &["Content-Length: 5"], b"hello");
                assert_eq!(response.status, 200, "{response:?}");
            });
        }
    });
}

#[test]
fn compressed_and_challenge_refusals_are_reauthenticated() {
    for refusal in [gzipped, challenged] {
        let (upstream, oldest) = revoking(refusal);
        let proxy = Proxy::start(&upstream);
        oldest.store(2, SeqCst);
        let response = proxy.connect().call("GET", "/x", &["Accept-Encoding: gzip"], b"");
        assert_eq!((response.status, upstream.token_requests(), upstream.requests().len()), (200, 2, 2));
        let metrics = proxy.ops().get("/metrics").text();
        for line in [
            "finicity_proxy_token_refusals_total 1",
            "finicity_proxy_replays_total 1",
            r#"finicity_proxy_heals_total{outcome="healed"} 1"#,
            r#"finicity_proxy_heals_total{outcome="refused_again"} 0"#,
            "finicity_proxy_token_call_duration_seconds_count 2",
            // Sent twice, billed once.
            r#"finicity_proxy_billable_requests_total{method="_OTHER",route="other"} 1"#,
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
    }
}

#[test]
fn o04_the_401_of_a_request_too_large_to_buffer_is_relayed() {
    let (upstream, oldest) = revoking(expired);
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__REPLAY_BUFFER", "4")]);
    oldest.store(2, SeqCst);
    let mut client = proxy.connect();
    let response = client.call("POST", "/large", &["Content-Length: 5"], b"hello");
    assert_eq!((response.status, response.text().as_str()), (401, EXPIRED));
    proxy.process.wait_for_line(|line| line.contains("token obtained") && line.contains(r#""token.version":2"#));
    assert_eq!(client.call("POST", "/large", &["Content-Length: 5"], b"hello").status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn o02_a_permanent_refusal_is_relayed_and_causes_one_refresh() {
    let upstream = Upstream::start(3600, |_| expired());
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for _ in 0..100 {
        let response = client.get("/x");
        assert_eq!((response.status, response.text().as_str()), (401, EXPIRED));
    }
    // The first request was resent; for the others there is no newer token.
    assert_eq!((upstream.token_requests(), upstream.requests().len()), (2, 101));
}

#[test]
fn o05_o06_f20_every_other_401_403_and_429_is_relayed() {
    let upstream = Upstream::start(3600, |request| {
        let (status, body) = match request.target() {
            "/403" => (403, EXPIRED),
            "/429" => (429, EXPIRED),
            "/key" => (401, r#"{"code":"10027"}"#),
            "/missing" => (401, r#"{"code":10024}"#),
            "/text" => (401, "Invalid (Finicity-App-Key)"),
            _ => (401, r#"{"code":"12345","message":"10023"}"#),
        };
        Reply::status(status, "No", body)
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    for (target, status) in
        [("/403", 403), ("/429", 429), ("/key", 401), ("/missing", 401), ("/text", 401), ("/other", 401)]
    {
        let response = client.get(target);
        assert_eq!((response.status, response.header("x-finicity-proxy-error")), (status, None), "{target}");
        assert!(!response.body.is_empty());
    }
    assert_eq!((upstream.token_requests(), upstream.requests().len()), (1, 6));
}

#[test]
fn a_truncated_refusal_is_not_reported_as_complete() {
    let upstream = Upstream::start(3600, |_| {
        Reply::Cut(format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: 1000\r\n\r\n{EXPIRED}").into_bytes())
    });
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_response(false).expect_err("the response must be truncated");
    assert_eq!(upstream.token_requests(), 1);
}

#[test]
fn a_large_401_is_relayed_completely() {
    let body = "x".repeat(300_000);
    let upstream = Upstream::start(3600, move |_| Reply::status(401, "Unauthorized", &body));
    let proxy = Proxy::start(&upstream);
    let response = proxy.connect().get("/x");
    assert_eq!((response.status, response.body.len()), (401, 300_000));
    assert_eq!(upstream.token_requests(), 1);
}
