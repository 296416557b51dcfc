//! Changing the log level at run time.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    client::Client,
    process::{Proxy, serve_command},
    upstream::{Reply, Upstream},
};

const CHANGED: &str = "log level changed";

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// Posts `body` to the admin socket. Returns the status and the body of the response.
fn post(socket: &Path, body: &str) -> (u16, Value) {
    let length = format!("Content-Length: {}", body.len());
    let response = Client::connect_socket(socket).call("POST", "/api/log-level", &[&length], body.as_bytes());
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

#[test]
fn a_temporary_level_expires() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let upstream = upstream();
    let variables = [("FINICITY__LOG__LEVEL", "warn"), ("FINICITY__ADMIN__SOCKET", &socket.display().to_string())];
    let mut command = serve_command(&upstream, &variables);
    command.env("FINICITY__LISTEN__PROXY", format!("unix:{}", dir.path().join("proxy.sock").display()));
    let process = crate::support::process::Process::start(command);
    process.wait_for_line(|line| line.contains("auth.state_dir is not set"));
    let proxy = || Client::connect_socket(&dir.path().join("proxy.sock"));
    assert_eq!(proxy().get("/before").status, 200);

    assert_eq!(post(&socket, "loud").0, 400);
    let (status, shown) = post(&socket, r#"{"level":"info,finicity_proxy=trace","for":"1h"}"#);
    assert_eq!(
        (status, &shown["level"], &shown["configured"]),
        (200, &"info,finicity_proxy=trace".into(), &"warn".into())
    );
    assert!((3590..=3600).contains(&shown["reverts_in_s"].as_u64().unwrap()), "{shown}");
    assert_eq!(proxy().get("/while").status, 200);
    process.wait_for_log("request");
    let line = process.wait_for_log(CHANGED);
    let uid = format!("uid {}", rustix::process::geteuid().as_raw());
    for (field, expected) in [("actor", uid.as_str()), ("previous", "warn"), ("current", "info,finicity_proxy=trace")] {
        assert_eq!(line[field], expected);
    }
    assert_eq!((&line["duration_s"], &line["target"]), (&3600.into(), &"finicity_proxy::audit".into()));

    assert_eq!(post(&socket, r#"{"level":"info","for":"1s"}"#).0, 200);
    process.wait_for_line(|line| line.contains(CHANGED) && line.contains(r#""actor":"expiry""#));
    let shown = Client::connect_socket(&socket).get("/api/log-level");
    assert_eq!(shown.text(), r#"{"level":"warn","configured":"warn","reverts_in_s":null}"#);
    assert_eq!(proxy().get("/after").status, 200);
    assert_eq!(process.logs("request").len(), 1, "only during the temporary level");
    assert_eq!(process.logs(CHANGED).len(), 3);
}

#[test]
fn p09_sighup_reloads_the_file_and_reports_restart_keys() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[log]\nlevel = \"info\"\n");
    let upstream = upstream();
    let mut command = serve_command(&upstream, &[]);
    command.arg("--config").arg(&file).env_remove("FINICITY__LOG__LEVEL");
    let mut proxy = Proxy::run(command);
    proxy.process.wait_for_log("token obtained");

    write(
        "[log]\nlevel = \"finicity_proxy=debug,info\"\n[limits]\nqueue = 77\n[guard]\nhosts = [\"private.example\"]\n",
    );
    proxy.process.signal(Signal::HUP);
    let line = proxy.process.wait_for_log("changed settings require a restart");
    assert_eq!((&line["keys"], &line["level"]), (&"guard.hosts limits.queue".into(), &"WARN".into()));
    let line = proxy.process.wait_for_log(CHANGED);
    assert_eq!((&line["actor"], &line["current"]), (&"the configuration".into(), &"finicity_proxy=debug,info".into()));

    write("[log]\nlevel = \"private\"\n[limits]\nqueue = \"private\"\n");
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_lines(2, |line| line.contains("invalid configuration; keeping the previous one"));
    let mut client = Client::connect(proxy.admin);
    assert!(client.get("/api/log-level").text().starts_with(r#"{"level":"finicity_proxy=debug,info","#));
    proxy.process.signal(Signal::TERM);
    proxy.process.wait();
    assert_eq!(proxy.process.logs(CHANGED).len(), 1);
    assert!(!proxy.process.output().contains("private"));
}
