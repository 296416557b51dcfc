//! Notifications for a service manager, as for systemd's `Type=notify`.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
};

use rustix::process::Signal;

use crate::support::{
    TIMEOUT,
    process::Proxy,
    upstream::{Gate, Reply, Upstream, token_response},
};

/// The next notification on `socket`.
fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn bound(address: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// An upstream with the token responses `token`, held by `gate`.
fn upstream(gate: &Gate, token: impl Fn() -> Reply + Send + Sync + 'static) -> Upstream {
    let gate = gate.clone();
    Upstream::start_raw(move |request| match request.target() {
        "/oauth/token" => token().held(&gate),
        _ => Reply::json("{}"),
    })
}

#[test]
fn ready_follows_the_first_token_and_stopping_follows_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify.sock");
    let name = format!("finicity-proxy-test-{}", process::id());
    for (variable, address) in [
        (path.display().to_string(), SocketAddr::from_pathname(&path).unwrap()),
        (format!("@{name}"), SocketAddr::from_abstract_name(&name).unwrap()),
    ] {
        let (socket, gate) = (bound(&address), Gate::new());
        let upstream = upstream(&gate, || Reply::json(&token_response(1, 3600)));
        let mut proxy = Proxy::launch(&upstream, &[("NOTIFY_SOCKET", &variable)]);
        assert_eq!(next(&socket), "STATUS=the first token request has not completed yet");
        gate.open();
        assert_eq!(next(&socket), "READY=1\nSTATUS=serving");
        proxy.process.signal(Signal::TERM);
        assert_eq!(next(&socket), "STOPPING=1\nSTATUS=draining");
        assert!(proxy.process.wait().success());
    }
}

#[test]
fn require_token_delays_ready_and_the_status_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify.sock");
    let (socket, gate) = (bound(&SocketAddr::from_pathname(&path).unwrap()), Gate::new());
    gate.open();
    let upstream = upstream(&gate, || Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#));
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("FINICITY__STARTUP__REQUIRE_TOKEN", "true")];
    let mut proxy = Proxy::launch(&upstream, &variables);
    let mut status = next(&socket);
    if status.contains("has not completed yet") {
        status = next(&socket);
    }
    assert!(status.starts_with("STATUS=the credentials were rejected") && status.lines().count() == 1, "{status}");
    proxy.process.signal(Signal::TERM);
    assert_eq!(next(&socket), "STOPPING=1\nSTATUS=draining");
    assert!(proxy.process.wait().success());
}

#[test]
fn a_missing_notify_socket_is_only_logged() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing").display().to_string();
    for variable in [missing.as_str(), "relative"] {
        let proxy = Proxy::start_with(&upstream, &[("NOTIFY_SOCKET", variable)]);
        let logged = |line: &str| line.contains("cannot notify the service manager");
        proxy.process.wait_for_line(logged);
        assert_eq!(proxy.connect().get("/aggregation/v1/customers").status, 200);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
