//! What the log says of a request, and what it does not.

use serde_json::Value;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

#[test]
fn l07_a_request_is_one_line_with_its_template_and_without_its_ids() {
    let upstream = Upstream::start(3600, |_| Reply::json(r#"{"private":"body"}"#));
    let mut proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    let lines = ["X-Request-Id: request-1", "X-Private: header", "Content-Length: 7"];
    client.call("POST", "/aggregation/v1/customers/123456/accounts?private=query", &lines, b"private");
    proxy.process.signal(rustix::process::Signal::TERM);
    proxy.process.wait();

    let logged = proxy.process.logs("request");
    let [line] = logged.as_slice() else { panic!("{logged:?}") };
    let expected = [
        ("level", Value::from("INFO")),
        ("target", "finicity_proxy::access".into()),
        ("http.request.method", "POST".into()),
        ("http.route", "/aggregation/v1/customers/{customerId}/accounts".into()),
        ("http.response.status_code", 200.into()),
        ("outcome", "complete".into()),
        ("request_id", "request-1".into()),
        ("token.version", 1.into()),
        ("request_bytes", 7.into()),
        ("response_bytes", 18.into()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() >= line["upstream_ms"].as_f64().unwrap());
    assert_eq!(line.get("error.code"), None);
    let output = proxy.process.output();
    for private in ["123456", "private", "header"] {
        assert!(!output.contains(private), "{private} is in\n{output}");
    }
}

#[test]
fn an_error_of_the_proxys_own_is_logged_with_its_cause() {
    let upstream = Upstream::start(3600, |_| Reply::Cut(Vec::new()));
    let proxy = Proxy::start(&upstream);
    proxy.connect().get("/x").assert_problem(502, "upstream_unreachable");
    let line = proxy.process.wait_for_log("request");
    assert_eq!(line["error.code"], "upstream_unreachable");
    assert_eq!(line["error.cause"], "connection error: unexpected end of file");
}

#[test]
fn an_answer_to_head_is_complete_though_nothing_of_it_is_sent() {
    let upstream = Upstream::start(3600, |_| Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec()));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.call("HEAD", "/x", &[], b"");
    client.call("HEAD", "//x", &[], b"");
    proxy.process.wait_for_lines(2, |line| line.contains(r#""outcome":"complete""#));
}

#[test]
fn a_caller_that_goes_away_is_logged_as_such() {
    let gate = crate::support::upstream::Gate::new();
    let upstream = Upstream::start(3600, move |_| Reply::Held(gate.clone(), Vec::new()));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    drop::<Client>(client);
    let line = proxy.process.wait_for_log("request");
    assert_eq!((line["outcome"].as_str(), line.get("http.response.status_code")), (Some("aborted"), None));
}

#[test]
fn l08_nothing_a_caller_sends_can_forge_a_line() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.call("GET", "/%0a%7b%22level%22/x", &["X-Request-Id: a\u{2028}b", "User-Agent: \"}\t{\""], b"");
    client.call("F\u{7c}OO", "/x", &["X-Request-Id: \"quoted\""], b"");
    proxy.process.signal(rustix::process::Signal::TERM);
    proxy.process.wait();
    for line in proxy.process.output().lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not one JSON object: {line}"));
        assert!(parsed["message"].is_string());
    }
    assert_eq!(proxy.process.logs("request").len(), 2);
}

#[test]
fn human_logs_are_text() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut command = crate::support::process::serve_command(&upstream, &[("FINICITY__LOG__FORMAT", "human")]);
    command.env("FINICITY__LOG__LEVEL", "info");
    let process = crate::support::process::Process::start(command);
    let line = process.wait_for_line(|line| line.contains("token minted"));
    assert!(
        line.contains(" INFO finicity_proxy::token::") && line.contains(": token minted token.version=1"),
        "{line}"
    );
    assert!(!line.contains('\u{1b}'), "colours only on a terminal: {line}");
}
