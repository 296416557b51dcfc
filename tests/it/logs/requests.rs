//! What the log contains about a request, and what it does not.

use serde_json::Value;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    client::Client,
    process::{Process, Proxy, serve_command},
    upstream::{Gate, Reply, Upstream, token_response},
};

#[test]
fn l07_a_request_is_logged_by_template_without_ids() {
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
        ("http.request.body.size", 7.into()),
        ("http.response.body.size", 18.into()),
        ("upstream.status_code", 200.into()),
        ("upstream.connection_reused", false.into()),
        ("network.transport", "tcp".into()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() >= line["upstream.first_byte_ms"].as_f64().unwrap());
    for absent in
        ["error.type", "queue_ms", "token_wait_ms", "url.path_prefix", "http.request.resend_count", "replayed"]
    {
        assert_eq!(line.get(absent), None, "{absent}");
    }
    let output = proxy.process.output();
    for private in ["123456", "private", "header"] {
        assert!(!output.contains(private), "{private} is in\n{output}");
    }
}

#[test]
fn a_proxy_error_is_logged_with_its_cause() {
    let upstream = Upstream::start(3600, |_| Reply::Cut(Vec::new()));
    let proxy = Proxy::start(&upstream);
    proxy.connect().get("/x").assert_problem(502, "upstream_unreachable");
    let line = proxy.process.wait_for_log("request");
    assert_eq!(line["error.type"], "upstream_unreachable");
    assert_eq!(line["error.message"], "the connection failed: unexpected end of file");
}

#[test]
fn a_response_to_head_is_complete_without_a_body() {
    let upstream = Upstream::start(3600, |_| Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec()));
    let proxy = Proxy::start(&upstream);
    let mut client = proxy.connect();
    client.call("HEAD", "/x", &[], b"");
    client.call("HEAD", "//x", &[], b"");
    proxy.process.wait_for_lines(2, |line| line.contains(r#""outcome":"complete""#));
}

#[test]
fn a_client_disconnect_is_logged_as_aborted() {
    let gate = Gate::new();
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
fn l08_a_client_cannot_forge_a_log_line() {
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
    let mut command = serve_command(&upstream, &[("FINICITY__LOG__FORMAT", "human")]);
    command.env("FINICITY__LOG__LEVEL", "info");
    let process = Process::start(command);
    let line = process.wait_for_line(|line| line.contains("token obtained"));
    assert!(
        line.contains(" INFO finicity_proxy::audit: token obtained ") && line.contains(" token.version=1 "),
        "{line}"
    );
    assert!(!line.contains('\u{1b}'), "colours only on a terminal: {line}");
}

#[test]
fn the_format_is_json_unless_stdout_is_a_terminal() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut command = serve_command(&upstream, &[("FINICITY__LOG__LEVEL", "info")]);
    command.env_remove("FINICITY__LOG__FORMAT");
    Process::start(command).wait_for_log("token obtained");
    let (controller, terminal) = open_terminal();
    let mut command = serve_command(&upstream, &[("FINICITY__LOG__LEVEL", "info"), ("NO_COLOR", "1")]);
    command.stdout(terminal).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(controller)).map_while(Result::ok);
    let ready = lines.find(|line| line.contains("ready")).unwrap();
    assert!(
        ready.contains(" INFO finicity_proxy::app::startup: ready proxy=") && ready.get(2..3) == Some(":"),
        "{ready}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A pseudo-terminal: its controller and the terminal.
fn open_terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (controller.into(), terminal)
}

#[test]
fn human_logs_have_a_ready_line_and_short_request_lines() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut command = serve_command(&upstream, &[("FINICITY__LOG__FORMAT", "human"), ("FINICITY__LOG__LEVEL", "info")]);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    command.env("FINICITY__LISTEN__PROXY", format!("unix:{}", socket.display()));
    let process = Process::start(command);
    process.wait_for_line(|line| line.contains(": ready proxy=") && line.contains("proxy.sock"));
    Client::connect_socket(&socket).get("/aggregation/v1/customers?start=1");
    let line = process.wait_for_line(|line| line.contains(" GET "));
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[1..4], ["GET", "/aggregation/v1/customers", "200"], "{line}");
    assert!(words[0].len() == 8 && words[4].ends_with("ms") && words[5].starts_with("upstream="), "{line}");
    assert!(words[6].starts_with("id=") && words.len() == 7, "{line}");
    assert_eq!(process.output().matches(": ready ").count(), 1);
}

#[test]
fn only_proxy_errors_are_warnings() {
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/cut" => Reply::Cut(Vec::new()),
        _ => Reply::status(503, "Service Unavailable", "{}"),
    });
    let proxy = Proxy::start_with(
        &upstream,
        &[("FINICITY__LOG__LEVEL", "warn,finicity_proxy::app=info,finicity_proxy::audit=info")],
    );
    let mut client = proxy.connect();
    client.call("POST", "/x", &[], b"");
    client.call("POST", "/cut", &[], b"").assert_problem(502, "upstream_unreachable");
    proxy.connect().get("/x?a#b");
    let line = proxy.process.wait_for_log("request");
    assert_eq!((line["level"].as_str(), line["http.response.status_code"].as_u64()), (Some("WARN"), Some(502)));
    assert_eq!(proxy.process.logs("request").len(), 1);
}

/// Makes a request to each of `targets` on one connection, and returns the access lines.
fn lines(proxy: &Proxy, targets: &[&str]) -> Vec<Value> {
    let mut client = proxy.connect();
    for target in targets {
        client.get(target);
    }
    let is_access = |line: &str| line.contains(r#""message":"request""#);
    proxy.process.wait_for_lines(targets.len(), is_access);
    proxy.process.logs("request")
}

#[test]
fn an_upstream_error_is_logged_with_status_and_vendor_code() {
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/1" => Reply::status(404, "Not Found", r#"{"code":14001,"message":"private"}"#),
        "/2" => Reply::status(500, "Error", r#"{"error":"private"}"#),
        "/3" => {
            Reply::status(400, "Bad Request", &format!(r#"{{"code":38007,"message":"{}"}}"#, "private".repeat(1000)))
        }
        _ => Reply::json(r#"{"code":14001}"#),
    });
    let mut proxy = Proxy::start(&upstream);
    let fields: Vec<_> = lines(&proxy, &["/1", "/2", "/3", "/4"])
        .iter()
        .map(|line| {
            let text = |name: &str| line.get(name).map(|value| value.as_str().unwrap().to_owned());
            (line["upstream.status_code"].as_u64().unwrap(), text("upstream.error_code"), text("error.type"))
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(fields, [(404, some("14001"), None), (500, None, some("500")), (400, None, None), (200, None, None)]);
    proxy.process.signal(rustix::process::Signal::TERM);
    proxy.process.wait();
    assert!(!proxy.process.output().contains("private"));
}

#[test]
fn a_replayed_request_shows_the_first_upstream_status() {
    let upstream = Upstream::start(3600, |request| {
        let refused = request.headers("authorization")[0].ends_with("canarytoken1");
        if refused { Reply::status(401, "Unauthorized", r#"{"code":"10023"}"#) } else { Reply::json("{}") }
    });
    let proxy = Proxy::start(&upstream);
    let line = &lines(&proxy, &["/x"])[0];
    for (field, value) in [
        ("http.response.status_code", Value::from(200)),
        ("upstream.status_code", 401.into()),
        ("upstream.error_code", "10023".into()),
        ("http.request.resend_count", 1.into()),
        ("replayed", true.into()),
        ("token.version", 2.into()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
}

#[test]
fn l07_only_known_segments_of_an_unknown_path_are_logged() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start(&upstream);
    let targets = ["/aggregation/v1/private/1", "/private@example.com/1", "/aggregation/v1/customers"];
    let lines = lines(&proxy, &targets);
    let values = |name: &str| lines.iter().map(|line| line.get(name).cloned()).collect::<Vec<_>>();
    assert_eq!(values("url.path_prefix"), [Some("/aggregation/v1".into()), None, None]);
    assert_eq!(values("http.route")[..2], [Some("other".into()), Some("other".into())]);
    assert_eq!(values("upstream.connection_reused"), [Some(false.into()), Some(true.into()), Some(true.into())]);
    assert!(!proxy.process.output().contains("private"));
}

/// A complete response with `body`.
fn response_with(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn waiting_times_are_logged_only_if_a_request_waited() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start_raw(move |request| match request.target() {
        "/oauth/token" => Reply::Held(held.clone(), response_with(&token_response(1, 3600))),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::launch(
        &upstream,
        &[
            ("FINICITY__AUTH__TOKEN_WAIT", "60s"),
            ("FINICITY__LIMITS__CONCURRENCY", "1"),
            ("FINICITY__LIMITS__QUEUE_TIMEOUT", "60s"),
        ],
    );
    let mut first = proxy.connect();
    first.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n");
    proxy.wait_for_metric("requests_in_flight", 1);
    let mut second = proxy.connect();
    second.send("GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n");
    proxy.wait_for_metric("requests_queued", 1);
    gate.open();
    assert_eq!(first.read_response(false).unwrap().status, 200);
    assert_eq!(second.read_response(false).unwrap().status, 200);
    proxy.process.wait_for_lines(2, |line| line.contains(r#""message":"request""#));
    let lines = proxy.process.logs("request");
    let waited = |name: &str| lines.iter().map(|line| line.get(name).is_some()).collect::<Vec<_>>();
    assert_eq!((waited("token_wait_ms"), waited("queue_ms")), (vec![true, false], vec![false, true]));
    for line in &lines {
        let waited = ["token_wait_ms", "queue_ms"].iter().find_map(|name| line.get(name)).unwrap().as_f64().unwrap();
        assert!(waited > 0.0 && waited <= line["duration_ms"].as_f64().unwrap(), "{line}");
    }
}

#[test]
fn l08_external_text_cannot_forge_a_human_log_line() {
    // Terminal control characters in a file name, in a response of the upstream, and in a request.
    let control = "\u{1b}]0;x\u{7} INFO forged\u{9b}31m\u{2028}\u{202e}";
    let upstream = Upstream::start(3600, move |_| {
        Reply::Bytes(format!("HTTP/1.1 200 {control}\r\nx-{control}: {control}\r\n\r\n").into_bytes())
    });
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join(format!("a\n{control}"));
    std::fs::create_dir(&credentials).unwrap();
    for (name, value) in [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("app_key", APP_KEY)] {
        std::fs::write(credentials.join(name), value).unwrap();
    }
    for format in ["human", "json"] {
        let mut command =
            serve_command(&upstream, &[("FINICITY__LOG__FORMAT", format), ("FINICITY__CREDENTIALS__SOURCE", "dir")]);
        for variable in ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"] {
            command.env_remove(variable);
        }
        command.env("FINICITY__CREDENTIALS__DIR", &credentials);
        let socket = dir.path().join("proxy.sock");
        command.env("FINICITY__LISTEN__PROXY", format!("unix:{}", socket.display()));
        let mut process = Process::start(command);
        process.wait_for_line(|line| line.contains("token obtained"));
        let legal_control = "\t\u{9b}31m\u{2028}\u{202e}";
        let fields = [format!("X-Request-Id: a{legal_control}"), format!("X-Other: {legal_control}")];
        Client::connect_socket(&socket).call("GET", "/x", &fields.each_ref().map(String::as_str), b"");
        Client::connect_socket(&socket).call("F\u{7c}OO", "/x", &[], b"");
        process.wait_for_lines(2, |line| {
            line.contains("finicity_proxy::access") || line.contains(" GET other ") || line.contains(" _OTHER other ")
        });
        std::fs::write(credentials.join("app_key"), "a key\twith a tab").unwrap();
        process.signal(rustix::process::Signal::HUP);
        process.wait_for_line(|line| line.contains("cannot load the credentials"));
        process.signal(rustix::process::Signal::TERM);
        process.wait();
        std::fs::write(credentials.join("app_key"), APP_KEY).unwrap();
        let output = process.output();
        assert!(output.contains("forged"), "the directory name is logged");
        for line in output.lines() {
            assert!(line.starts_with('{') || line.get(2..3) == Some(":"), "{line:?}");
            assert!(!line.contains(['\u{1b}', '\u{7}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}']), "{line:?}");
        }
    }
}
