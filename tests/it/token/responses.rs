//! Token responses in unusual forms, and responses from gateways.

use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

use flate2::{Compression, write::GzEncoder};

use crate::support::{
    process::Proxy,
    upstream::{Reply, Upstream, token, token_response},
};

const LOCKED: &str = r#"{"code":24302,"message":"locked"}"#;

fn gzip(body: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A response with `status` in its status line, the header `fields` (each with its line end), and `body`.
fn response(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Checks that the credentials are rejected after one token request.
#[track_caller]
fn check_rejected(reply: impl Fn() -> Reply + Send + Sync + 'static) {
    let upstream = Upstream::start_raw(move |_| reply());
    let proxy = Proxy::launch(&upstream, &[]);
    proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
    proxy.connect().get("/x").assert_problem(503, "credentials_rejected");
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_compressed_rejection_is_tried_once() {
    for status in ["500 Oops", "503 Service Unavailable", "401 Unauthorized"] {
        check_rejected(move || Reply::Bytes(response(status, "content-encoding: gzip\r\n", &gzip(LOCKED))));
    }
    // The declared coding is not the applied one.
    for fields in ["content-encoding: gzip\r\n", "content-encoding: br\r\n", "content-encoding:\r\n"] {
        check_rejected(move || Reply::Bytes(response("500 Oops", fields, LOCKED.as_bytes())));
    }
    check_rejected(move || Reply::Bytes(response("503 Service Unavailable", "", &gzip(LOCKED))));
}

#[test]
fn a_rejection_in_an_unusual_form_is_tried_once() {
    for body in [
        "\u{feff}{\"code\":24302}",
        r#"[{"code":24302.0}]"#,
        r#"{"Errors":{"Error":{"reasonCode":"24302"}}}"#,
        r#"{"error":{"code":"24302.0"}}"#,
    ] {
        check_rejected(move || Reply::Bytes(response("500 Oops", "", body.as_bytes())));
    }
}

#[test]
fn a_401_with_an_undecodable_body_is_tried_once() {
    for body in [&gzip(LOCKED)[..15], b"\xff\xff"] {
        let whole = response("401 Unauthorized", "content-encoding: gzip\r\n", body);
        let sent = whole.clone();
        check_rejected(move || Reply::Bytes(sent.clone()));
        let cut = whole[..whole.len() - 1].to_vec();
        check_rejected(move || Reply::Cut(cut.clone()));
    }
}

#[test]
fn an_unrequested_compressed_token_is_used() {
    let upstream = Upstream::start_raw(|request| match request.target() {
        "/oauth/token" => {
            let fields = "content-type: application/json\r\nContent-Encoding: GZIP\r\n";
            Reply::Bytes(response("200 OK", fields, &gzip(&token_response(1, 3600))))
        }
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start(&upstream);
    assert_eq!(proxy.connect().get("/x").status, 200);
    let received = upstream.received();
    assert_eq!(received[0].headers("accept-encoding"), ["identity"]);
    assert_eq!(received[1].headers("authorization"), [format!("Bearer {}", token(1))]);
}

#[test]
fn a_decompression_bomb_is_too_large() {
    let bomb = gzip(&" ".repeat(32 * 1024 * 1024));
    assert!(bomb.len() < 64 * 1024);
    let upstream = Upstream::start_raw(move |_| Reply::Bytes(response("200 OK", "content-encoding: gzip\r\n", &bomb)));
    let proxy = Proxy::launch(&upstream, &[]);
    let line = proxy.process.wait_for_line(|line| line.contains("token refresh failed"));
    assert!(
        line.contains("\"class\":\"malformed\"") && line.contains("returned 200: the token response is too large"),
        "{line}"
    );
}

#[test]
fn three_gateway_errors_delay_startup_by_seconds() {
    let calls = AtomicUsize::new(0);
    let upstream = Upstream::start_raw(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Bytes(response("502 Bad Gateway", "", b"")),
        1 => Reply::Bytes(response("503 Service Unavailable", "content-type: text/html\r\n", b"<html>")),
        2 => Reply::Bytes(response("504 Gateway Timeout", "retry-after: 0\r\n", b"upstream request timeout")),
        _ => Reply::json(&token_response(1, 3600)),
    });
    let proxy = Proxy::start(&upstream);
    let failures = proxy.process.logs("token refresh failed");
    assert_eq!(failures.len(), 3);
    for (failure, longest) in failures.iter().zip([1.0, 2.0, 4.0]) {
        assert!(failure["retry_in_s"].as_f64().unwrap() <= longest, "{failure}");
    }
}

#[test]
fn an_oversized_retry_after_is_capped() {
    let upstream = Upstream::start_raw(|_| {
        Reply::Bytes(response("429 Too Many Requests", "retry-after: 99999999999999999999999\r\n", b""))
    });
    let proxy = Proxy::launch(&upstream, &[]);
    let wait = proxy.process.wait_for_log("token refresh failed")["retry_in_s"].as_f64().unwrap();
    assert!((900.0..=990.0).contains(&wait), "{wait}");
}
