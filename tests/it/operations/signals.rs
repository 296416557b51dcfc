//! Signals: SIGHUP, which does not stop the process, and SIGKILL during a drain.

use std::fs;

use rustix::process::Signal;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Gate, Reply, Upstream, token_response},
};

const READING: &str = "SIGHUP: reloading the credentials";

#[test]
fn sighup_never_stops_the_process() {
    let (first, last) = (Gate::new(), Gate::new());
    let (held_token, held_answer) = (first.clone(), last.clone());
    let upstream = Upstream::start_raw(move |request| match request.target() {
        "/oauth/token" => Reply::json(&token_response(1, 3600)).held(&held_token),
        "/held" => Reply::json("done").held(&held_answer),
        _ => Reply::json("{}"),
    });
    let mut proxy = Proxy::launch(&upstream, &[]);
    let wait_for_reload = |count| proxy.process.wait_for_lines(count, |line| line.contains(READING));
    upstream.wait_for("/oauth/token");
    proxy.process.signal(Signal::HUP);
    wait_for_reload(1);
    assert_eq!(proxy.ops().get("/startupz").status, 503);
    first.open();
    proxy.process.wait_for_log("token obtained");

    proxy.process.signal(Signal::HUP);
    wait_for_reload(2);
    assert_eq!(proxy.connect().get("/x").status, 200);

    let mut client = proxy.connect();
    client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    proxy.process.signal(Signal::HUP);
    wait_for_reload(3);
    last.open();
    assert_eq!(client.read_response(false).unwrap().text(), "done");
    assert_eq!(proxy.process.wait().code(), Some(0));
}

#[test]
fn q05_a_start_succeeds_after_sigkill_during_a_drain() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, socket, admin) = (path("state"), path("proxy.sock"), path("admin.sock"));
    fs::create_dir(&state).unwrap();
    let gate = Gate::new();
    let held = gate.clone();
    // The first token request succeeds; after that the credentials are rejected.
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start_raw(move |request| match request.target() {
        "/oauth/token" if calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            Reply::json(&token_response(1, 3600))
        }
        "/oauth/token" => Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#),
        _ => Reply::Held(held.clone(), Vec::new()),
    });
    let both = format!("127.0.0.1:0,unix:{socket}");
    let variables = [
        ("FINICITY__LISTEN__PROXY", both.as_str()),
        ("FINICITY__ADMIN__SOCKET", &admin),
        ("FINICITY__AUTH__STATE_DIR", &state),
    ];
    let mut proxy = Proxy::start_with(&upstream, &variables);
    let mut client = proxy.connect_socket();
    client.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    upstream.wait_for("/held");
    let invalidated = Client::connect_socket(admin.as_ref()).call("POST", "/api/token/invalidate", &[], b"");
    assert_eq!(invalidated.status, 200);
    proxy.process.wait_for_line(|line| line.contains("credentials rejected"));

    proxy.process.signal(Signal::TERM);
    // A logged line has already left the process.
    proxy.process.wait_for_log("draining");
    proxy.process.signal(Signal::KILL);
    assert_eq!(proxy.process.wait().code(), None);
    for file in fs::read_dir(&state).unwrap() {
        let name = file.unwrap().file_name();
        assert!(!name.to_string_lossy().contains("canarytoken"), "{name:?}");
    }

    let mut next = Proxy::launch(&upstream, &variables);
    next.process.wait_for_line(|line| line.contains("token requests suspended"));
    assert_eq!(upstream.token_requests(), 2, "the rejection is remembered");
    next.connect_socket().get("/x").assert_problem(503, "credentials_rejected");
    next.process.signal(Signal::TERM);
    assert_eq!(next.process.wait().code(), Some(0));
    assert!(!fs::exists(socket).unwrap() && !fs::exists(admin).unwrap());
}
