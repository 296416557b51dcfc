//! `POST /finicity-proxy/webhooks/verify`, for services that receive webhooks themselves.

use crate::support::{
    CLIENT_SECRET, WEBHOOK_SECRET,
    client::{Client, Response},
    process::{Proxy, partner_command, serve_command},
    service::sign,
    upstream::{Reply, Upstream},
};

const VERIFY: &str = "/finicity-proxy/webhooks/verify";

fn verify(client: &mut Client, target: &str, signatures: &[&str], body: &[u8]) -> Response {
    let length = format!("Content-Length: {}", body.len());
    let signatures: Vec<String> = signatures.iter().map(|value| format!("X-Finicity-Signature: {value}")).collect();
    let lines: Vec<&str> = signatures.iter().map(String::as_str).chain([length.as_str()]).collect();
    client.call("POST", target, &lines, body)
}

#[test]
fn verify_returns_whether_a_webhook_is_genuine() {
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let proxy = Proxy::run_with_token(partner_command(&upstream, &[]));
    let mut client = proxy.connect();
    let body = br#"{"eventType":"ping","payload":{}}"#;
    let signature = sign(CLIENT_SECRET, body);
    let upper = signature.to_uppercase();
    let mut flipped = *body;
    flipped[3] ^= 4;
    let rows: [(&[&str], &[u8], bool); 8] = [
        (&[&signature], body, true),
        (&[&signature], body, true),
        (&[&signature], &flipped, false),
        (&[&upper], body, false),
        (&[&signature[..60]], body, false),
        (&[], body, false),
        (&[&signature, &signature], body, false),
        (&[&sign("another-Secret-1!", body)], body, false),
    ];
    for (signatures, body, genuine) in rows {
        let response = verify(&mut client, VERIFY, signatures, body);
        assert_eq!((response.status, response.text()), (200, format!(r#"{{"genuine":{genuine}}}"#)), "{signatures:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    let empty = verify(&mut client, VERIFY, &[&sign(CLIENT_SECRET, b"")], b"");
    assert_eq!(empty.text(), r#"{"genuine":true}"#);
    // A chunked body is decoded.
    let chunked = format!(
        "10\r\n{}\r\n11\r\n{}\r\n0\r\n\r\n",
        &String::from_utf8_lossy(body)[..16],
        &String::from_utf8_lossy(body)[16..]
    );
    let field = format!("X-Finicity-Signature: {signature}");
    let response = client.call("POST", VERIFY, &[&field, "Transfer-Encoding: chunked"], chunked.as_bytes());
    assert_eq!(response.text(), r#"{"genuine":true}"#);
    assert!(!proxy.process.output().contains(&signature), "a signature is in the log");
    assert!(upstream.requests().is_empty());
}

#[test]
fn the_verify_path_is_local_in_any_spelling() {
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let proxy = Proxy::run_with_token(partner_command(&upstream, &[("FINICITY__POLICY__ALLOW", "GET /nothing")]));
    let mut client = proxy.connect();
    let signature = sign(CLIENT_SECRET, b"x");
    for target in [
        VERIFY,
        "/finicity-proxy//webhooks/verify",
        "/Finicity-Proxy/webhooks/%76erify",
        "/finicity-proxy/webhooks/verify?x=y",
    ] {
        assert_eq!(verify(&mut client, target, &[&signature], b"x").text(), r#"{"genuine":true}"#, "{target}");
    }
    client.call("GET", VERIFY, &[], b"").assert_problem(403, "route_denied");
    client.call("PUT", VERIFY, &["Content-Length: 0"], b"").assert_problem(403, "route_denied");
    let mut browser = proxy.connect();
    browser
        .call("POST", VERIFY, &["Origin: https://evil.example", "Content-Length: 0"], b"")
        .assert_problem(403, "origin_denied");
    assert!(upstream.requests().is_empty());
}

#[test]
fn only_a_body_over_the_limit_gets_413() {
    let upstream = Upstream::start_partner(|_| Reply::json("{}"));
    let proxy = Proxy::run_with_token(partner_command(&upstream, &[]));
    let (at_limit, above) = (vec![b'x'; 1024 * 1024], vec![b'x'; 1024 * 1024 + 1]);
    let response = verify(&mut proxy.connect(), VERIFY, &[&sign(CLIENT_SECRET, &at_limit)], &at_limit);
    assert_eq!(response.text(), r#"{"genuine":true}"#);
    let mut client = proxy.connect();
    verify(&mut client, VERIFY, &[&sign(CLIENT_SECRET, &above)], &above).assert_problem(413, "body_too_large");
    client.assert_closed();
}

#[test]
fn oauth2_credentials_need_the_webhook_secret() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::run_with_token(serve_command(&upstream, &[]));
    let signature = sign(CLIENT_SECRET, b"x");
    verify(&mut proxy.connect(), VERIFY, &[&signature], b"x").assert_problem(501, "not_implemented");
    let variables =
        [("FINICITY_WEBHOOK_SECRET", WEBHOOK_SECRET), ("FINICITY__WEBHOOK__SIGNATURE_HEADER", "X-Signature")];
    let proxy = Proxy::run_with_token(serve_command(&upstream, &variables));
    let field = format!("X-Signature: {}", sign(WEBHOOK_SECRET, b"x"));
    let response = proxy.connect().call("POST", VERIFY, &[&field, "Content-Length: 1"], b"x");
    assert_eq!(response.text(), r#"{"genuine":true}"#);
    assert_eq!(
        verify(&mut proxy.connect(), VERIFY, &[&sign(WEBHOOK_SECRET, b"x")], b"x").text(),
        r#"{"genuine":false}"#
    );
}
