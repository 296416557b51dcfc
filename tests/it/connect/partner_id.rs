//! The `partnerId` in the bodies of Connect requests.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use rustix::process::Signal;

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, LINK_SIGNATURE,
    process::{Proxy, partner_command},
    upstream::{PARTNER_PATH, ReceivedRequest, Reply, Upstream, hash},
};

const GENERATE: &str = "/connect/v2/generate";

/// A Connect link. Possession of it grants access, so it must not appear in any output.
fn link() -> String {
    format!("https://connect2.finicity.com?customerId=1&signature={LINK_SIGNATURE}&ttl=1648057961908")
}

fn vendor() -> Upstream {
    Upstream::start_partner(|_| Reply::json(&format!(r#"{{"link":"{}"}}"#, link())))
}

fn start(upstream: &Upstream, variables: &[(&str, &str)]) -> Proxy {
    Proxy::run_with_token(partner_command(upstream, variables))
}

/// `body` with `partnerId` as its first member.
fn filled(body: &str) -> String {
    let (before, after) = body.split_once('{').unwrap();
    let comma = if after.trim_start().starts_with('}') { "" } else { "," };
    format!(r#"{before}{{"partnerId":"{CLIENT_ID}"{comma}{after}"#)
}

/// A body of `length` bytes.
fn body_of(length: usize) -> String {
    let rest = length - r#"{"customerId":""}"#.len();
    format!(r#"{{"customerId":"{}"}}"#, "5".repeat(rest))
}

#[track_caller]
fn check(request: &ReceivedRequest, body: &[u8], is_chunked: bool) {
    let shown = String::from_utf8_lossy(&request.body);
    assert_eq!((request.body_len, request.body_hash), (body.len() as u64, hash(hash(0, b""), body)), "{shown}");
    let length = body.len().to_string();
    let lengths = if is_chunked { vec![] } else { vec![length.as_str()] };
    assert_eq!(request.headers("content-length"), lengths);
    assert_eq!(request.headers("transfer-encoding").len(), usize::from(is_chunked));
}

#[test]
fn partner_id_is_added_and_no_other_byte_changes() {
    let upstream = vendor();
    let proxy = start(&upstream, &[]);
    let mut client = proxy.connect();
    let (at_limit, above) = (body_of(65_536), body_of(65_537));
    let rows: Vec<(&str, &str, bool)> = vec![
        ("", "{}", true),
        ("", " {\n}\n", true),
        ("", r#"{"customerId":"5" , "webhookData":{}}"#, true),
        ("", r#"{"a":1,"a":1.0e5,"a":"\u00e9"}"#, true),
        ("", r#"{"webhookData":{"partnerId":"other"}}"#, true),
        ("Content-Encoding: identity", "{}", true),
        ("Content-Type: text/plain", "{}", true),
        ("", &at_limit, true),
        ("", &above, false),
        ("", "\u{feff}{}", false),
        ("", r#"{"partnerId":"other","customerId":"5"}"#, false),
        ("", r#"{"partnerId":null}"#, false),
        ("", r#"{"partner\u0049d":""}"#, false),
        ("", r#"[{"customerId":"5"}]"#, false),
        ("", r#"{"customerId":"5""#, false),
        ("", "customerId=5", false),
        ("", "", false),
        ("Content-Encoding: gzip", "{}", false),
    ];
    let mut expected = Vec::new();
    for (field, body, is_filled) in &rows {
        for is_chunked in [false, true] {
            let sent = if *is_filled { filled(body) } else { (*body).to_owned() };
            let framing = if is_chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {}", body.len())
            };
            let lines: Vec<&str> = [framing.as_str(), field].into_iter().filter(|line| !line.is_empty()).collect();
            let chunked: String = body
                .as_bytes()
                .chunks(5000)
                .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
                .collect();
            let message = if is_chunked { chunked + "0\r\n\r\n" } else { (*body).to_owned() };
            let response = client.call("POST", GENERATE, &lines, message.as_bytes());
            assert_eq!((response.status, response.text().contains(&link())), (200, true), "{body}");
            expected.push((sent, is_chunked));
        }
    }
    let received = upstream.requests();
    assert_eq!(received.len(), expected.len());
    for (request, (body, is_chunked)) in received.iter().zip(&expected) {
        check(request, body.as_bytes(), *is_chunked);
    }
    assert!(!proxy.process.output().contains("connect2.finicity.com"));
}

#[test]
fn only_requests_that_create_a_link_get_the_partner_id() {
    let upstream = vendor();
    let proxy = start(&upstream, &[]);
    let mut client = proxy.connect();
    let filled_paths = [
        "/connect/v2/generate/lite",
        "/connect/v2/generate/fix?x=y",
        "/connect/v2/generate/jointBorrower",
        "/connect/v2/generate/microentry/verify",
        "/connect/v2/send/email",
        "/connect/v2/send/email/jointBorrower",
        "/connect/v1/generate",
        "/connect/generate/transfer/deposit-switch",
    ];
    let others = ["/connect/experiences/1/duplicate", "/aggregation/v2/customers/testing", "/connect/v2/Generate"];
    for target in filled_paths.iter().chain(&others) {
        assert_eq!(client.call("POST", target, &["Content-Length: 2"], b"{}").status, 200);
    }
    for request in upstream.requests() {
        let body = if filled_paths.contains(&request.target()) { filled("{}") } else { "{}".to_owned() };
        check(&request, body.as_bytes(), false);
    }
}

#[test]
fn a_resent_request_has_the_edited_body() {
    let refused = AtomicUsize::new(0);
    let upstream = Upstream::start_partner(move |_| match refused.fetch_add(1, SeqCst) {
        0 => Reply::status(401, "Unauthorized", r#"{"code":"10023","message":"Expired"}"#),
        _ => Reply::json("{}"),
    });
    // Also if the replay buffer is disabled.
    let proxy = start(&upstream, &[("FINICITY__UPSTREAM__REPLAY_BUFFER", "0")]);
    let response = proxy.connect().call("POST", GENERATE, &["Content-Length: 20"], br#"{"customerId":"555"}"#);
    assert_eq!(response.status, 200);
    let received = upstream.requests();
    assert_eq!(received.len(), 2);
    for request in &received {
        check(request, filled(r#"{"customerId":"555"}"#).as_bytes(), false);
    }
    assert_ne!(received[0].headers("finicity-app-token"), received[1].headers("finicity-app-token"));
}

#[test]
fn oauth2_credentials_need_a_configured_partner_id() {
    for (variables, expected) in [
        (vec![], "{}"),
        (vec![("FINICITY__CONNECT__PARTNER_ID", "2445583946651")], r#"{"partnerId":"2445583946651"}"#),
        (
            vec![("FINICITY__CONNECT__PARTNER_ID", "2445583946651"), ("FINICITY__CONNECT__FILL_PARTNER_ID", "false")],
            "{}",
        ),
    ] {
        let upstream = Upstream::start(3600, |_| Reply::json("{}"));
        let proxy = Proxy::start_with(&upstream, &variables);
        assert_eq!(proxy.connect().call("POST", GENERATE, &["Content-Length: 2"], b"{}").status, 200);
        check(&upstream.requests()[0], expected.as_bytes(), false);
    }
}

#[test]
fn partner_id_follows_credential_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let id_file = dir.path().join("id");
    fs::write(&id_file, CLIENT_ID).unwrap();
    let upstream = vendor();
    let mut command = partner_command(&upstream, &[("FINICITY_PARTNER_ID_FILE", id_file.to_str().unwrap())]);
    command.env_remove("FINICITY_PARTNER_ID").env("FINICITY_PARTNER_SECRET", CLIENT_SECRET);
    let proxy = Proxy::run_with_token(command);
    let mut client = proxy.connect();
    client.call("POST", GENERATE, &["Content-Length: 2"], b"{}");
    fs::write(&id_file, "2445583946651").unwrap();
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log("the new credentials obtained a token and are now in use");
    client.call("POST", GENERATE, &["Content-Length: 2"], b"{}");
    let received = upstream.requests();
    check(&received[0], filled("{}").as_bytes(), false);
    check(&received[1], br#"{"partnerId":"2445583946651"}"#, false);
    assert_eq!(upstream.received().iter().filter(|request| request.target() == PARTNER_PATH).count(), 2);
}
