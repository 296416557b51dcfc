//! Startup while the store is unavailable: the proxy waits, and probes, responses and commands show the reason.

use std::{fs, net::TcpListener, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    members,
    rotation::{failures, from_vault, proxy, upstream},
    server::Server,
    usual,
};
use crate::support::{
    canary::scan,
    process::{Process, Proxy, program, serve_command},
};

const UNREAD: &str = "cannot load the first credentials; requests fail until they are loaded";
const SEALED: &str = "the server is sealed (503)";

/// The output of a command that uses this admin socket.
fn output(socket: &Path, arguments: &[&str]) -> String {
    let mut command = program();
    command.args(arguments).args(["--set", &format!("admin.socket={}", socket.display())]);
    let mut process = Process::start(command);
    process.wait();
    process.output()
}

#[test]
fn a_sealed_server_delays_startup_and_the_reason_is_shown() {
    let (server, dir, upstream) = (Server::start(), tempfile::tempdir().unwrap(), upstream());
    server.write(&usual());
    server.app_role(dir.path(), &json!({}));
    server.seal();
    let message = dir.path().join("termination-log");
    fs::write(&message, "").unwrap();
    let mut command_line = serve_command(&upstream, &[]);
    from_vault(&mut command_line, &server.url(), dir.path());
    let socket = dir.path().join("admin.sock");
    command_line
        .env("FINICITY__STARTUP__TERMINATION_MESSAGE", &message)
        .env("FINICITY__AUTH__TOKEN_WAIT", "1ms")
        .env("FINICITY__ADMIN__SOCKET", &socket);
    let proxy = Proxy::run(command_line);
    let failure = proxy.process.wait_for_log(UNREAD);
    assert!(failure["problem"].as_str().unwrap().contains(SEALED), "{failure}");

    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 0);
    let probe = proxy.ops().get("/startupz");
    assert_eq!(probe.status, 503);
    assert!(probe.text().contains("have not been read yet") && probe.text().contains(SEALED), "{}", probe.text());
    assert_eq!((proxy.ops().get("/livez").status, proxy.ops().get("/readyz").status), (200, 503));
    assert!(failures(&proxy, "unreachable") >= 1);
    let refused = proxy.connect().get("/aggregation/v1/customers");
    let problem: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, &problem["code"]), (503, &"token_unavailable".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(SEALED), "{problem}");
    while !fs::read_to_string(&message).unwrap().contains(SEALED) {}
    let status = output(&socket, &["status"]);
    assert!(status.contains("not read yet") && status.contains(SEALED), "{status}");
    let reset = output(&socket, &["lockout", "reset"]);
    assert!(reset.contains("the credentials have not been read yet"), "{reset}");

    server.unseal();
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log("token obtained");
    assert_eq!((proxy.ops().get("/startupz").status, proxy.connect().get("/x").status), (200, 200));
    assert_eq!(proxy.process.wait_for_log("credentials were loaded")["source"], "vault");
    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 1);
    while !fs::read_to_string(&message).unwrap().is_empty() {}
    scan("the log", &proxy.process.output());
    // After that, changes of the secret are followed.
    server.write(&members("good-second"));
    upstream.wait_for_requests(1, |request| String::from_utf8_lossy(&request.body).contains("good-second"));
}

#[test]
fn an_incomplete_secret_is_reread_until_it_is_complete() {
    let (server, dir, upstream) = (Server::start(), tempfile::tempdir().unwrap(), upstream());
    server.write(&json!({"client_id": "any"}));
    server.app_role(dir.path(), &json!({}));
    let proxy = proxy(&upstream, &server, dir.path());
    proxy.process.wait_for_line(|line| line.contains(UNREAD) && line.contains("client_secret of secret"));
    assert_eq!(upstream.token_requests(), 0);
    server.write(&usual());
    proxy.process.wait_for_log("token obtained");
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn shutdown_does_not_wait_for_a_silent_store() {
    let (dir, upstream) = (tempfile::tempdir().unwrap(), upstream());
    for name in ["role_id", "secret_id"] {
        fs::write(dir.path().join(name), "any").unwrap();
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command: Command = serve_command(&upstream, &[("FINICITY__SHUTDOWN__DRAIN_DELAY", "0s")]);
    from_vault(&mut command, &format!("http://{}", silent.local_addr().unwrap()), dir.path());
    let mut proxy = Proxy::run(command);
    let _connection = silent.accept().unwrap();
    proxy.process.signal(Signal::TERM);
    assert!(proxy.process.wait().success(), "{}", proxy.process.output());
}
