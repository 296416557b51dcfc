//! The commands `health`, `wait` and `shutdown`, which connect to the running proxy. They need no credentials.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    client::Client,
    process::{Process, Proxy, program},
    upstream::{ClosedPort, Gate, Reply, Upstream, token_response},
};

const ADMIN_TOKEN: &str = "canaryadmintoken";

/// Starts the program with `arguments` and `variables`, without credentials.
fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied());
    Process::start(command)
}

/// Like [`start`], and waits. Returns the exit code and the output.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut process = start(arguments, variables);
    (process.wait().code(), process.output())
}

#[track_caller]
fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) {
    let (got, output) = run(arguments, variables);
    assert_eq!(got, Some(code), "{output}");
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in\n{output}");
    }
    assert!(!output.contains(r#""level""#), "no log: {output}");
}

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// The argument that sets `key` to `value`.
fn set(key: &str, value: impl std::fmt::Display) -> String {
    format!("--set={key}={value}")
}

#[test]
fn q01_health_queries_the_configured_probe() {
    let upstream = upstream();
    let proxy = Proxy::start(&upstream);
    let (ops, url) = (proxy.ops.to_string(), format!("http://{}", proxy.ops));
    for probe in [&["live"][..], &["ready"], &["startup"], &[]] {
        let (code, output) = run(&[&["health", "--url", &url], probe].concat(), &[]);
        assert_eq!((code, output.as_str()), (Some(0), "ok"));
    }
    // The address is set by a flag, by a variable as the second of a list with an unused first one, as an unspecified address, and by a file.
    let dead = ClosedPort::new().url().replace("https://localhost", "127.0.0.1");
    check(&["health", &set("listen.ops", &ops)], &[], 0, &["ok"]);
    check(&["health"], &[("FINICITY__LISTEN__OPS", &format!("{dead},{ops}"))], 0, &["ok"]);
    check(&["health", &set("listen.ops", format!("0.0.0.0:{}", proxy.ops.port()))], &[], 0, &["ok"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("[listen]\nops = \"{ops}\"\n")).unwrap();
    check(&["health", "live", "--config", &file.path().display().to_string()], &[], 0, &["ok"]);
    // Credential files are not read, because a probe can run where there are none.
    check(&["health", &set("listen.ops", &ops)], &[("FINICITY_APP_KEY_FILE", "/nowhere/app_key")], 0, &["ok"]);
    let wrong_elsewhere = [set("listen.ops", &ops), set("upstream.url", "nonsense")];
    check(&["health", &wrong_elsewhere[0], &wrong_elsewhere[1]], &[], 0, &["ok"]);
}

#[test]
fn q11_health_reports_the_probe_text_or_the_failure_reason() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start_raw(move |_| Reply::Held(held.clone(), Vec::new()));
    let proxy = Proxy::launch(&upstream, &[]);
    let url = format!("http://{}", proxy.ops);
    check(&["health", "--url", &url], &[], 1, &["not ok: no token has been obtained yet", "/readyz returned 503"]);
    check(&["health", "startup", "--url", &url], &[], 1, &["not ok: the first token request has not completed yet"]);
    check(&["health", "live", "--url", &url], &[], 0, &["ok"]);

    let dead = ClosedPort::new();
    let url = dead.url().replace("https://localhost", "http://127.0.0.1");
    check(&["health", "--url", &url], &[], 1, &["cannot connect to ", "is the proxy running"]);
    // The kernel accepts the connection, and no process reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    check(&["health", "--url", &url, "--timeout", "100ms"], &[], 1, &["no response from 127.0.0.1:", " within 100ms"]);
    check(&["health", &set("listen.ops", "127.0.0.1:0")], &[], 1, &["--url"]);
    check(&["health", &set("listen.ops", "nonsense")], &[], 78, &["listen.ops (set by --set)"]);
    check(&["health", "well"], &[], 2, &["live", "ready", "startup"]);
    check(&["health", "--url", "https://localhost"], &[], 2, &["http://"]);
    for command in [&["health"][..], &["wait"], &["shutdown", "--wait"]] {
        check(&[command, &["--timeout", "500000000000y"]].concat(), &[], 2, &["at most one day"]);
    }
}

#[test]
fn q01_wait_returns_only_when_the_proxy_is_ready() {
    let gate = Gate::new();
    let held = gate.clone();
    let token = token_response(1, 3600);
    let upstream = Upstream::start_raw(move |_| Reply::json(&token).held(&held));
    let proxy = Proxy::launch(&upstream, &[]);
    let url = format!("http://{}", proxy.ops);
    let short = ["--url", &url, "--timeout", "2s"];
    check(
        &[&["wait"], &short[..]].concat(),
        &[],
        1,
        &["/readyz did not pass within 2s", "no token has been obtained yet"],
    );
    check(&["wait", "live", "--url", &url], &[], 0, &["ok"]);
    let mut waiting = [start(&["wait", "--url", &url], &[]), start(&["wait", "startup", "--url", &url], &[])];
    upstream.wait_for("/oauth/token");
    assert_eq!(waiting[0].output() + &waiting[1].output(), "");
    gate.open();
    for process in &mut waiting {
        assert_eq!((process.wait().code(), process.output().as_str()), (Some(0), "ok"));
    }
}

#[test]
fn q01_wait_treats_an_unreachable_proxy_as_not_ready() {
    let dead = ClosedPort::new();
    let url = dead.url().replace("https://localhost", "http://127.0.0.1");
    check(&["wait", "--url", &url, "--timeout", "300ms"], &[], 1, &["did not pass within 300ms", "cannot connect to "]);

    // An address used by this test only, so that no other process can take its port in the meantime.
    let ops = format!("127.77.{}.{}:3465", std::process::id() / 250 % 250 + 1, std::process::id() % 250 + 1);
    let mut waiting = start(&["wait", &set("listen.ops", &ops)], &[]);
    let upstream = upstream();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LISTEN__OPS", &ops)]);
    assert_eq!(proxy.ops.to_string(), ops);
    assert_eq!((waiting.wait().code(), waiting.output().as_str()), (Some(0), "ok"));
}

/// An upstream that holds `/held` until the gate is open, and a request for it in flight.
fn in_flight(variables: &[(&str, &str)]) -> (Gate, Upstream, Proxy, Client) {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(3600, move |request| match request.target() {
        "/held" => Reply::Held(held.clone(), b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".to_vec()),
        _ => Reply::json("{}"),
    });
    let proxy = Proxy::start_with(&upstream, variables);
    let mut client = proxy.connect();
    client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    (gate, upstream, proxy, client)
}

#[test]
fn shutdown_over_the_socket_drains_and_a_signal_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock").display().to_string();
    let (gate, _upstream, mut proxy, mut client) = in_flight(&[("FINICITY__ADMIN__SOCKET", &socket)]);
    let at_socket = set("admin.socket", &socket);
    check(&["shutdown", &at_socket], &[], 0, &["the proxy drains and stops"]);
    assert_eq!(proxy.process.wait_for_log("draining")["reason"], "an administrator");
    let audit = proxy.process.wait_for_log("shutdown requested; the proxy drains and stops");
    assert_eq!(audit["target"], "finicity_proxy::audit");
    check(&["shutdown", &at_socket, "--wait", "--timeout", "300ms"], &[], 1, &["did not stop within 300ms"]);
    // The signal that Kubernetes sends when it terminates the pod in the meantime.
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("already draining");
    let mut waiting = start(&["shutdown", &at_socket, "--wait"], &[]);
    waiting.wait_for_line(|line| line == "the proxy drains and stops");
    gate.open();
    let response = client.read_response(false).unwrap();
    assert_eq!((response.text().as_str(), response.header("connection")), ("done", Some("close")));
    assert_eq!(proxy.process.wait().code(), Some(0));
    assert_eq!(waiting.wait().code(), Some(0));
    assert!(waiting.output().ends_with("proxy stopped"), "{}", waiting.output());
    check(&["shutdown", &at_socket], &[], 1, &["cannot connect to "]);
}

#[test]
fn a_second_signal_after_shutdown_exits_immediately() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock").display().to_string();
    let (_gate, _upstream, mut proxy, mut client) = in_flight(&[("FINICITY__ADMIN__SOCKET", &socket)]);
    check(&["shutdown", &set("admin.socket", &socket)], &[], 0, &[]);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("already draining");
    client.assert_silent_for(Duration::from_millis(1100));
    proxy.process.signal(Signal::TERM);
    assert_eq!(proxy.process.wait().code(), Some(1));
    client.assert_closed();
}

#[test]
fn shutdown_over_the_port_needs_a_valid_admin_token() {
    let upstream = upstream();
    let closed = Proxy::start(&upstream);
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)]);
    let (at_closed, at_port) = (set("listen.admin", closed.admin), set("listen.admin", proxy.admin));
    let token = [("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)];
    check(&["shutdown", &at_port], &[], 1, &["admin.socket", "FINICITY_ADMIN_TOKEN_FILE"]);
    check(&["shutdown", &at_port], &[("FINICITY_ADMIN_TOKEN", "another-token-123")], 1, &["admin token differs"]);
    check(
        &["shutdown", &at_closed],
        &token,
        1,
        &["the proxy denied the request", "set FINICITY_ADMIN_TOKEN, or set admin.socket"],
    );
    assert_eq!(proxy.process.logs("draining").len() + closed.process.logs("draining").len(), 0);

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{ADMIN_TOKEN}\n")).unwrap();
    let variables = [("FINICITY_ADMIN_TOKEN_FILE", &*file.path().display().to_string())];
    check(&["shutdown", &at_port, "--wait"], &variables, 0, &["the proxy drains and stops", "proxy stopped"]);
    assert_eq!(proxy.process.wait().code(), Some(0));
    proxy.process.wait_for_log("drained");
}

#[test]
fn l01_shutdown_scrubs_its_token_from_an_echoed_response() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut caller, mut head) = (listener.accept().unwrap().0, vec![0; 4096]);
        let length = caller.read(&mut head).unwrap();
        write!(caller, "HTTP/1.1 404 Not Found\r\ncontent-length: {length}\r\n\r\n").unwrap();
        caller.write_all(&head[..length]).unwrap();
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), ADMIN_TOKEN).unwrap();
    let variables = [("FINICITY_ADMIN_TOKEN_FILE", &*file.path().display().to_string())];
    let mut shutdown = start(&["shutdown", &set("listen.admin", address)], &variables);
    shutdown.allow_scrubbing();
    assert_eq!(shutdown.wait().code(), Some(1));
    echo.join().unwrap();
    let output = shutdown.output();
    assert!(output.contains("Bearer [scrubbed]") && !output.contains(ADMIN_TOKEN), "{output}");
}

#[test]
fn q01_startup_waits_for_a_token_only_if_it_is_required() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let upstream = Upstream::start_raw(move |_| match is_down.load(SeqCst) {
        true => Reply::status(503, "Service Unavailable", "{}"),
        false => Reply::json(&token_response(1, 3600)),
    });
    let strict = Proxy::launch(&upstream, &[("FINICITY__STARTUP__REQUIRE_TOKEN", "true")]);
    let lenient = Proxy::launch(&upstream, &[]);
    let url = |proxy: &Proxy| format!("http://{}", proxy.ops);
    check(&["wait", "startup", "--url", &url(&lenient)], &[], 0, &["ok"]);
    strict.process.wait_for_log("token refresh failed");
    assert_eq!(strict.ops().get("/startupz").status, 503);
    // Liveness and readiness do not depend on `startup.require_token`.
    for proxy in [&strict, &lenient] {
        assert_eq!((proxy.ops().get("/livez").status, proxy.ops().get("/readyz").status), (200, 503));
    }
    down.store(false, SeqCst);
    check(&["wait", "startup", "--url", &url(&strict)], &[], 0, &["ok"]);
    check(&["wait", "--url", &url(&lenient)], &[], 0, &["ok"]);
}

#[test]
fn q09_q11_a_lost_upstream_fails_no_probe_once_ready() {
    let calls = AtomicUsize::new(0);
    let upstream = Upstream::start_raw(move |_| match calls.fetch_add(1, SeqCst) {
        0 => Reply::json(&token_response(1, 2)),
        _ => Reply::Cut(Vec::new()),
    });
    let proxy = Proxy::start(&upstream);
    proxy.process.wait_for_log("token refresh failed");
    while !proxy.ops().get("/readyz?verbose").text().contains("token state: expired") {
        thread::yield_now();
    }
    for probe in ["/startupz", "/livez", "/readyz"] {
        assert_eq!(proxy.ops().get(probe).status, 200, "{probe}");
    }
    proxy.connect().get("/x").assert_problem(503, "token_unavailable");
}
