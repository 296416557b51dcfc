//! The error of a failed token request: the same sentence in the log, the probes, the status and the responses to clients.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::support::{
    TIMEOUT,
    egress::EgressProxy,
    process::{Process, Proxy, program, serve_command},
    upstream::{ClosedPort, Reply, Upstream, token_response},
};

/// A server that reads once from each client, sends `bytes`, and closes the connection.
fn sending(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 64 * 1024]);
            let _ = stream.write_all(bytes);
        }
    });
    url
}

/// The port of `url`.
fn port(url: &str) -> &str {
    url.rsplit(':').next().unwrap()
}

/// Waits until `/readyz?verbose` shows an error, and returns it.
#[track_caller]
fn wait_for_error(proxy: &Proxy) -> String {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let page = proxy.ops().get("/readyz?verbose").text();
        match page.lines().find_map(|line| line.strip_prefix("last token error: ")) {
            Some(error) if error != "none" => return error.to_owned(),
            _ => assert!(Instant::now() < deadline, "{page}"),
        }
        thread::yield_now();
    }
}

/// Checks that a proxy with `variables` shows one sentence with all `parts` everywhere, and returns it.
#[track_caller]
fn check(upstream: &Upstream, variables: &[(&str, &str)], parts: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock").display().to_string();
    let own = [("FINICITY__ADMIN__SOCKET", socket.as_str()), ("FINICITY__AUTH__TOKEN_WAIT", "1ms")];
    let proxy = Proxy::run(serve_command(upstream, &[&own, variables].concat()));
    let is_failure = |line: &str| line.contains("token refresh failed") || line.contains("credentials rejected");
    let line: Value = serde_json::from_str(&proxy.process.wait_for_line(is_failure)).unwrap();
    let sentence = line["error"].as_str().unwrap();
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
    // The status is published shortly after the log line.
    let shown = wait_for_error(&proxy);
    assert!(shown.starts_with("20") && shown.contains("Z (") && shown.ends_with(sentence), "{shown}");
    let status = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).arg(format!("--set=admin.socket={socket}"));
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(0), "{}", process.output());
        process.output()
    };
    let json: Value = serde_json::from_str(&status(&["status", "--json"])).unwrap();
    let error = &json["token"]["last_error"];
    assert_eq!((error["message"].as_str(), error["resolved"].as_bool()), (Some(sentence), Some(false)));
    assert!(error["at"].as_str().unwrap().ends_with('Z') && error["age_s"].is_u64(), "{error}");
    let text = status(&["status"]);
    assert!(text.lines().any(|line| line.starts_with("last token error") && line.ends_with(sentence)), "{text}");
    let response = proxy.connect().get("/x");
    assert_eq!(response.status, 503);
    let problem: Value = serde_json::from_str(&response.text()).unwrap();
    assert!(problem["detail"].as_str().unwrap().contains(sentence), "{problem}");
    sentence.to_owned()
}

#[test]
fn an_unreachable_token_endpoint_is_reported_with_the_reason() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let (dead, closing) = (ClosedPort::new(), sending(b""));
    // A fatal handshake_failure alert, and a plain HTTP server.
    let (alert, plain) = (sending(&[21, 3, 3, 0, 2, 2, 40]), sending(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let at = |url: &str| format!("127.0.0.1:{}", port(url));
    for (url, parts) in [
        (
            dead.url(),
            vec![format!("localhost:{}", port(&dead.url())), "connection refused; check upstream.url".to_owned()],
        ),
        (
            "https://no-such-host.invalid".to_owned(),
            vec!["no-such-host.invalid:443: ".to_owned(), "the DNS server".to_owned()],
        ),
        (closing.clone(), vec![at(&closing), "TLS handshake".to_owned(), "; check ".to_owned()]),
        (alert.clone(), vec![at(&alert), "the TLS alert HandshakeFailure".to_owned()]),
        (plain.clone(), vec![at(&plain), "does not speak TLS; check host and port".to_owned()]),
    ] {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        check(&upstream, &[("FINICITY__UPSTREAM__URL", &url)], &parts);
    }
}

#[test]
fn a_connection_timeout_is_reported_with_its_limit() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let url = format!("https://{address}");
    check(&upstream, &[("FINICITY__UPSTREAM__URL", &url)], &[&address, "within 3s", "check upstream.url"]);
}

#[test]
fn an_untrusted_certificate_is_reported_with_the_endpoint() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    upstream.use_untrusted_certificate();
    check(&upstream, &[], &[&upstream.authority(), "issued by an untrusted CA", "check upstream.ca_file"]);
}

#[test]
fn an_egress_proxy_error_is_reported_with_its_status() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let egress = EgressProxy::start();
    let address = format!("the egress proxy 127.0.0.1:{}", port(&egress.url()));
    for (status, parts) in [
        (407, ["returned 407", "FINICITY_EGRESS_PROXY_USERNAME"]),
        (403, ["returned 403", "allow CONNECT"]),
        (502, ["returned 502", "can reach"]),
    ] {
        egress.respond_with(status);
        let sentence = check(
            &upstream,
            &[("FINICITY__UPSTREAM__EGRESS_PROXY", &egress.url())],
            &[&[address.as_str()], &parts[..]].concat(),
        );
        assert!(!sentence.contains("canary") && !sentence.contains("Whatever"), "{sentence}");
    }
    let dead = ClosedPort::new().url().replace("https", "http");
    let variables = [("FINICITY__UPSTREAM__EGRESS_PROXY", dead.as_str())];
    check(&upstream, &variables, &["the egress proxy localhost:", "connection refused; check upstream.egress_proxy"]);
}

#[test]
fn an_unexpected_response_is_reported_with_its_status() {
    for (status, body, parts) in [
        (403, "canary text", ["returned 403: it forbids", "; check "]),
        (404, "", ["returned 404: ", "auth.token_path"]),
        (415, "{}", ["returned 415: ", "auth.encoding"]),
        (302, "", ["returned 302: it redirects", "upstream.url"]),
        (429, "{}", ["returned 429: ", "rate"]),
        (503, "<html>canary text", ["returned 503: ", "status page"]),
        (200, "{}", ["returned 200: the token response has no token", "auth.token_path"]),
        (401, r#"{"code":"10001"}"#, ["returned 401", "App Key"]),
    ] {
        let upstream = Upstream::start_raw(move |_| Reply::status(status, "canary text", body));
        let endpoint = format!("the token endpoint {} ", upstream.authority());
        let sentence = check(&upstream, &[], &[&[endpoint.as_str()], &parts[..]].concat());
        assert!(!sentence.contains("canary"), "{sentence}");
    }
}

#[test]
fn a_truncated_response_is_reported_with_the_cause() {
    let upstream = Upstream::start_raw(|_| Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec()));
    check(&upstream, &[], &["the connection to the token endpoint ", &upstream.authority(), " failed: ", "; check "]);
    let upstream = Upstream::start_raw(|_| Reply::Bytes(b"canary text\r\n\r\n".to_vec()));
    let sentence = check(&upstream, &[], &[&upstream.authority(), "not valid HTTP"]);
    assert!(!sentence.contains("canary"), "{sentence}");
}

#[test]
fn a_resolved_error_stays_in_the_status() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start(&upstream);
    let page = proxy.ops().get("/readyz?verbose").text();
    assert!(page.contains("\nlast token error: none\n"), "{page}");
    assert_eq!(proxy.connect().get("/x").status, 200);

    let fails = AtomicBool::new(true);
    let upstream = Upstream::start_raw(move |_| match fails.swap(false, Ordering::SeqCst) {
        true => Reply::status(503, "Service Unavailable", ""),
        false => Reply::json(&token_response(1, 3600)),
    });
    let proxy = Proxy::start(&upstream);
    let page = proxy.ops().get("/readyz?verbose").text();
    assert!(page.contains("s ago; a token has been obtained since): the token endpoint localhost:"), "{page}");
    assert_eq!(proxy.connect().get("/x").status, 200);
}
