//! The canary scan: every flow runs with all logs of all crates at TRACE, and no output contains a secret in any encoding.

use rustix::process::Signal;

use crate::support::{
    ADMIN_TOKEN, APP_KEY, CLIENT_SECRET, EGRESS_PASSWORD, EGRESS_USERNAME, TOKEN_PREFIX,
    canary::{base64, encodings, scan},
    client::{Client, Response},
    egress::EgressProxy,
    process::{Process, Proxy, serve_command},
    upstream::{Gate, ReceivedRequest, Reply, Upstream, token, token_response},
};

#[track_caller]
fn scan_response(source: &str, response: &Response) {
    scan(source, &format!("{:?} {}", response.headers, response.text()));
}

/// Runs the proxy at TRACE through `flow`, stops it, and scans its output.
fn check(upstream: &Upstream, variables: &[(&str, &str)], flow: impl FnOnce(&Proxy)) {
    let trace = [("FINICITY__LOG__LEVEL", "trace")];
    let mut proxy = Proxy::launch(upstream, &[&trace, variables].concat());
    flow(&proxy);
    let command_line = std::fs::read(format!("/proc/{}/cmdline", proxy.process.id())).unwrap();
    scan("the command line", &String::from_utf8_lossy(&command_line));
    for (address, path) in
        [(proxy.ops, "/metrics"), (proxy.ops, "/readyz?verbose"), (proxy.ops, "/nothing"), (proxy.admin, "/api/status")]
    {
        scan_response(path, &Client::connect(address).get(path));
    }
    proxy.process.signal(Signal::TERM);
    proxy.process.wait();
    let output = proxy.process.output();
    assert!(output.contains(r#""level":"TRACE""#), "nothing was logged at TRACE");
    scan("the log", &output);
}

type Handler = Box<dyn Fn(&ReceivedRequest) -> Reply + Send + Sync>;

/// A response that echoes the request, including its secrets.
fn echo(request: &ReceivedRequest) -> Reply {
    Reply::status(400, "Bad Request", &format!("{} {}", request.head, String::from_utf8_lossy(&request.body)))
}

#[test]
fn l01_the_usual_flows() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    check(&upstream, &[], |proxy| {
        proxy.process.wait_for_log("token obtained");
        let mut client = proxy.connect();
        scan_response("a response", &client.get("/aggregation/v1/customers?x=y"));
        scan_response("a response", &client.call("POST", "/x", &["Content-Length: 3"], b"abc"));
        scan_response("an error", &client.call("TRACE", "/x", &[], b""));
        scan_response("an error", &Client::connect(proxy.proxy[1]).call("GET", "//x", &["Origin: null"], b""));
    });
}

#[test]
fn l01_human_logs() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let variables = [("FINICITY__LOG__LEVEL", "trace"), ("FINICITY__LOG__FORMAT", "human")];
    let mut process = Process::start(serve_command(&upstream, &variables));
    process.wait_for_line(|line| line.contains("token obtained"));
    process.signal(Signal::TERM);
    process.wait();
    assert!(process.output().contains("TRACE"));
    scan("the log", &process.output());
}

#[test]
fn l01_over_http2() {
    // The upstream does not support HTTP/2, but offering it changes which TLS and connection code runs.
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    check(&upstream, &[("FINICITY__UPSTREAM__HTTP2", "auto")], |proxy| {
        proxy.process.wait_for_log("token obtained");
        scan_response("a response", &proxy.connect().get("/x"));
    });
}

#[test]
fn l01_through_an_egress_proxy() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let egress = EgressProxy::start();
    let url = egress.url();
    let variables = [
        ("FINICITY__UPSTREAM__EGRESS_PROXY", url.as_str()),
        ("FINICITY_EGRESS_PROXY_USERNAME", EGRESS_USERNAME),
        ("FINICITY_EGRESS_PROXY_PASSWORD", EGRESS_PASSWORD),
    ];
    check(&upstream, &variables, |proxy| {
        proxy.process.wait_for_log("token obtained");
        egress.respond_with(407);
        scan_response("a 502", &proxy.connect().get("/x"));
        egress.respond_with(200);
        scan_response("a response", &proxy.connect().get("/x"));
    });
}

#[test]
fn l01_l09_token_responses_that_echo_secrets() {
    let malformed = format!(r#"{{"access_token":"{} with a space","client_secret":"{CLIENT_SECRET}"}}"#, token(1));
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", token_response(1, 60));
    let redirect =
        format!("HTTP/1.1 302 Found\r\nlocation: https://localhost/?s={CLIENT_SECRET}\r\ncontent-length: 0\r\n\r\n");
    let reason = format!("HTTP/1.1 503 {CLIENT_SECRET}\r\nx-echo: {APP_KEY}\r\ncontent-length: 0\r\n\r\n");
    let not_http = format!("{CLIENT_SECRET}\r\n\r\n");
    let replies: [Handler; 6] = [
        Box::new(echo),
        Box::new(move |_| Reply::json(&malformed)),
        Box::new(move |_| Reply::Cut(cut.clone().into_bytes())),
        Box::new(move |_| Reply::Bytes(redirect.clone().into_bytes())),
        Box::new(move |_| Reply::Bytes(reason.clone().into_bytes())),
        Box::new(move |_| Reply::Bytes(not_http.clone().into_bytes())),
    ];
    for reply in replies {
        let upstream = Upstream::start_raw(reply);
        check(&upstream, &[("FINICITY__AUTH__TOKEN_WAIT", "0s")], |proxy| {
            proxy.process.wait_for_line(|line| line.contains("token refresh failed"));
            scan_response("a 503", &proxy.connect().get("/x"));
        });
    }
}

#[test]
fn l01_rejected_credentials() {
    let upstream = Upstream::start_raw(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Reply::status(401, "Unauthorized", &format!(r#"{{"error":"invalid_client","error_description":{body}}}"#))
    });
    check(&upstream, &[], |proxy| {
        proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
        scan_response("a 503", &proxy.connect().get("/x"));
    });
}

#[test]
fn d08_l01_an_upstream_that_echoes_our_headers() {
    // The response body passes unchanged; headers with our names are removed. Neither is logged.
    let upstream = Upstream::start(3600, |request| {
        let authorization = request.headers("authorization")[0];
        let fields = format!(
            "authorization: {authorization}\r\nfinicity-app-key: {APP_KEY}\r\nfinicity-app-token: {authorization}\r\n"
        );
        match request.target() {
            "/headers" => Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n").into_bytes()),
            "/garbage" => Reply::Bytes(format!("{authorization}\r\n\r\n").into_bytes()),
            "/bad-field" => Reply::Bytes(format!("HTTP/1.1 200 OK\r\nx\0y: {authorization}\r\n\r\n").into_bytes()),
            _ => echo(request),
        }
    });
    check(&upstream, &[], |proxy| {
        proxy.process.wait_for_log("token obtained");
        for target in ["/headers", "/garbage", "/bad-field"] {
            scan_response(target, &proxy.connect().get(target));
        }
        assert!(proxy.connect().get("/echo").text().contains(TOKEN_PREFIX));
    });
}

#[test]
fn l01_reauthentication_rotation_and_revocation() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, CLIENT_SECRET).unwrap();
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/oauth/revoke" => echo(request),
        _ if request.headers("authorization")[0].ends_with(&token(1)) => {
            Reply::status(401, "Unauthorized", r#"{"code":"10023","message":"Expired"}"#)
        }
        _ => Reply::json("{}"),
    });
    let variables = [
        ("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN),
        ("FINICITY__AUTH__REVOCATION_PATH", "/oauth/revoke"),
        ("FINICITY__AUTH__ENCODING", "basic"),
        ("FINICITY__AUTH__STATE_DIR", &dir.path().join("state").display().to_string()),
    ];
    check(&upstream, &variables, |proxy| {
        proxy.process.wait_for_log("token obtained");
        assert_eq!(proxy.connect().get("/x").status, 200);
        proxy.process.signal(Signal::HUP);
        proxy.process.wait_for_log("SIGHUP: reloading the credentials");
        let authorization = format!("Authorization: Bearer {ADMIN_TOKEN}");
        let lines = ["Content-Length: 0", authorization.as_str()];
        let response = Client::connect(proxy.admin).call("POST", "/api/token/invalidate", &lines, b"");
        scan_response("the admin port", &response);
        proxy.process.wait_for_log("cannot revoke the dropped token");
    });
}

#[test]
fn l01_aborted_requests() {
    let gate = Gate::new();
    let upstream = Upstream::start(3600, move |_| Reply::Held(gate.clone(), Vec::new()));
    let variables = [("FINICITY__UPSTREAM__FIRST_BYTE_TIMEOUT", "1s"), ("FINICITY__SHUTDOWN__DRAIN_TIMEOUT", "0s")];
    check(&upstream, &variables, |proxy| {
        proxy.process.wait_for_log("token obtained");
        scan_response("a 504", &proxy.connect().get("/x"));
        let mut client = proxy.connect();
        client.send("GET /cut HTTP/1.1\r\nHost: localhost\r\n\r\n");
        upstream.wait_for("/cut");
    });
}

#[test]
fn the_scan_finds_secrets_in_every_encoding() {
    let part = CLIENT_SECRET[3..14].to_owned();
    for form in encodings(CLIENT_SECRET).into_iter().chain([part]) {
        let text = format!("before {form} after");
        std::panic::catch_unwind(|| scan("a text", &text)).expect_err(&form);
    }
    scan("a text", "nothing here");
    assert!(base64(b"hello world!").starts_with("aGVsbG8gd29ybGQh"));
}
