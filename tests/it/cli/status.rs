//! The commands `status` and `lockout reset`, and the admin socket that they prefer.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    ADMIN_TOKEN,
    process::{Process, Proxy, program, serve_command},
    upstream::{ClosedPort, Reply, Upstream},
};

/// Runs the program with `arguments` and `variables`, without credentials. Returns its exit code and its output.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::start(command);
    (process.wait().code(), process.output())
}

#[track_caller]
fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) -> String {
    let (got, output) = run(arguments, variables);
    assert_eq!(got, Some(code), "{output}");
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in\n{output}");
    }
    output
}

fn set(key: &str, value: impl std::fmt::Display) -> String {
    format!("--set={key}={value}")
}

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

fn rejecting() -> Upstream {
    Upstream::start_raw(|_| Reply::status(401, "Unauthorized", "{}"))
}

/// A proxy with an admin socket, the directory of the socket, and the argument with which commands use it.
fn with_socket(upstream: &Upstream) -> (Proxy, tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock").display().to_string();
    let proxy = Proxy::launch(upstream, &[("FINICITY__ADMIN__SOCKET", &socket)]);
    (proxy, dir, set("admin.socket", socket))
}

#[test]
fn status_shows_the_state_over_the_socket() {
    let upstream = upstream();
    let (proxy, _dir, at_socket) = with_socket(&upstream);
    proxy.process.wait_for_log("token obtained");
    let output = check(
        &["status", &at_socket],
        &[],
        0,
        &[
            concat!("version             ", env!("CARGO_PKG_VERSION"), ", up for "),
            "credentials         from the environment, scheme oauth2",
            "token               fresh, version 1, usable for ",
            "next token request  in ",
            "lock-out            not latched, budget not spent, 0 rejections counted; remembered until the process ends",
        ],
    );
    assert!(output.contains(&upstream.url()) && !output.contains("reason"), "{output}");

    let (code, json) = run(&["status", "--json", &at_socket], &[]);
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &status["token"]["state"], &status["token"]["obtained"]),
        (Some(0), &"fresh".into(), &true.into())
    );
    assert_eq!((&status["credentials_source"], &status["scheme"]), (&"environment".into(), &"oauth2".into()));
    let lock_out = &status["lock_out"];
    assert_eq!((&lock_out["remembered_in"], &lock_out["reason"]), (&"memory".into(), &Value::Null));
}

#[test]
fn status_over_the_port_needs_no_token() {
    let (upstream, dead) = (upstream(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&upstream);
    let at_port = set("listen.admin", proxy.admin);
    check(&["status", &at_port], &[], 0, &["token               fresh"]);
    // A missing socket, as the default of the image can be.
    let nowhere = set("admin.socket", dead.path().join("admin.sock").display());
    check(&["status", &at_port, &nowhere], &[], 0, &["token               fresh"]);
    let actions_off = &["lockout", "reset", &at_port];
    check(
        actions_off,
        &[("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)],
        1,
        &["the proxy denied the request", "FINICITY_ADMIN_TOKEN"],
    );
    check(actions_off, &[], 1, &["admin.socket", "FINICITY_ADMIN_TOKEN_FILE"]);
    check(&["lockout", "reset", &at_port, &nowhere], &[], 1, &["cannot connect to ", "admin.sock"]);
}

#[test]
fn unreachable_and_misconfigured_have_their_exit_codes() {
    let port = ClosedPort::new();
    let dead = port.url().replace("https://localhost", "127.0.0.1");
    check(&["status", &set("listen.admin", &dead)], &[], 1, &["cannot connect to ", "is the proxy running"]);
    check(&["status", &set("listen.admin", "nonsense")], &[], 78, &["listen.admin (set by --set)"]);
    check(&["lockout", "reset", &set("listen.admin", "nonsense")], &[], 78, &["listen.admin (set by --set)"]);
    let missing = [("FINICITY_ADMIN_TOKEN_FILE", "/nowhere/token")];
    check(&["status", &set("listen.admin", &dead)], &missing, 78, &["FINICITY_ADMIN_TOKEN_FILE"]);
    check(&["lockout"], &[], 2, &["reset"]);
    check(&["lockout", "reset", "--override"], &[], 2, &["--override-budget"]);
}

#[test]
fn lockout_reset_allows_one_attempt() {
    let upstream = rejecting();
    let (proxy, _dir, at_socket) = with_socket(&upstream);
    for rejections in 1..=2 {
        proxy.process.wait_for_lines(rejections, |line| line.contains("credentials rejected"));
        let refused = [
            "token               rejected; none obtained since startup",
            "next token request  none until an operator acts",
            "reason              the credentials were rejected",
            "finicity-proxy lockout reset",
        ];
        let output = check(&["status", &at_socket], &[], 0, &refused);
        assert!(output.contains(&format!("latched, budget not spent, {rejections} rejection")), "{output}");
        let after =
            ["reset: the credentials are tried once more", "next token request", "lock-out", "finicity-proxy status"];
        check(&["lockout", "reset", &at_socket], &[], 0, &after);
    }
    proxy.process.wait_for_lines(3, |line| line.contains("credentials rejected"));
    check(&["status", &at_socket], &[], 0, &["budget spent, 3 rejections", "lockout reset --override-budget"]);
    let spent = ["not reset: too many credentials", "finicity-proxy lockout reset --override-budget"];
    check(&["lockout", "reset", &at_socket], &[], 1, &spent);
    assert_eq!(upstream.received().len(), 3);
    check(&["lockout", "reset", "--override-budget", &at_socket], &[], 0, &["tried once more"]);
    proxy.process.wait_for_lines(4, |line| line.contains("credentials rejected"));
    assert_eq!(upstream.received().len(), 4);
}

#[test]
fn lockout_reset_without_a_lockout_changes_nothing() {
    let upstream = upstream();
    let (proxy, _dir, at_socket) = with_socket(&upstream);
    proxy.process.wait_for_log("token obtained");
    for flags in [&[][..], &["--override-budget"]] {
        let arguments = [&["lockout", "reset", &at_socket], flags].concat();
        check(&arguments, &[], 0, &["nothing was locked out", "not latched"]);
    }
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn lockout_reset_over_the_port_needs_the_admin_token() {
    let upstream = rejecting();
    let proxy = Proxy::launch(&upstream, &[("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)]);
    proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
    let reset = ["lockout", "reset", &set("listen.admin", proxy.admin)];
    check(&reset, &[("FINICITY_ADMIN_TOKEN", "another-token-of-this-length")], 1, &["admin token differs"]);
    assert_eq!(upstream.received().len(), 1);
    check(&reset, &[("FINICITY_ADMIN_TOKEN", ADMIN_TOKEN)], 0, &["tried once more"]);
    proxy.process.wait_for_lines(2, |line| line.contains("credentials rejected"));
}

const IMAGE_SOCKET: &str = "FINICITY_IMAGE__ADMIN__SOCKET";

#[test]
fn an_unusable_default_socket_of_the_image_is_skipped() {
    let (upstream, dir) = (upstream(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), "").unwrap();
    for path in ["missing/admin.sock", "file/admin.sock", "file"] {
        let path = dir.path().join(path).display().to_string();
        let proxy = Proxy::start_with(&upstream, &[(IMAGE_SOCKET, &path)]);
        let warning = proxy.process.wait_for_line(|line| line.contains("no admin socket"));
        assert!(warning.contains(r#""level":"WARN""#) && warning.contains(&path), "{warning}");
        assert_eq!(proxy.connect().get("/x").status, 200);
        // The commands fall back to the port.
        let variables = [(IMAGE_SOCKET, path.as_str())];
        check(&["status", &set("listen.admin", proxy.admin)], &variables, 0, &["token               fresh"]);
    }
}

#[test]
fn an_unusable_configured_socket_is_an_error() {
    let (upstream, dir) = (upstream(), tempfile::tempdir().unwrap());
    let path = dir.path().join("missing/admin.sock").display().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("[admin]\nsocket = \"{path}\"\n")).unwrap();
    let file = file.path().display().to_string();
    // A default of the image makes no difference, even with the same path.
    for image in [None, Some((IMAGE_SOCKET, path.as_str()))] {
        for operator in [("FINICITY__ADMIN__SOCKET", path.as_str()), ("FINICITY_CONFIG", &file)] {
            let variables: Vec<_> = image.into_iter().chain([operator]).collect();
            let mut proxy = Process::start(serve_command(&upstream, &variables));
            assert_eq!(proxy.wait().code(), Some(78), "{}", proxy.output());
            let output = proxy.output();
            assert!(output.contains("admin.socket: cannot listen on") && output.contains(&path), "{output}");
        }
    }
}

#[test]
fn every_source_overrides_the_images_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, "[admin]\nsocket = \"/of/the/file\"\n").unwrap();
    let file = file.display().to_string();
    let image = (IMAGE_SOCKET, "/of/the/image");
    check(&["config"], &[image], 0, &[r#"socket = "/of/the/image" # FINICITY_IMAGE__ADMIN__SOCKET"#]);
    check(&["config", "--config", &file], &[image], 0, &[r#"socket = "/of/the/file" # "#]);
    let none = ("FINICITY__ADMIN__SOCKET", "");
    check(&["config", "--config", &file], &[image, none], 0, &[r#"socket = "" # FINICITY__ADMIN__SOCKET"#]);
    check(&["config", "--set", "admin.socket=/x"], &[image, none], 0, &[r#"socket = "/x" # --set"#]);
    let unknown = ("FINICITY_IMAGE__ADMIN__SOCKETS", "/x");
    check(&["config"], &[unknown], 78, &["admin.sockets (set by FINICITY_IMAGE__ADMIN__SOCKETS): unknown key"]);
}

#[test]
fn status_shows_a_drain() {
    let upstream = upstream();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock").display().to_string();
    let variables = [("FINICITY__ADMIN__SOCKET", socket.as_str()), ("FINICITY__SHUTDOWN__DRAIN_DELAY", "1h")];
    let proxy = Proxy::start_with(&upstream, &variables);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait_for_log("draining");
    check(&["status", &set("admin.socket", &socket)], &[], 0, &["shutdown            draining"]);
}

#[test]
fn admin_commands_work_over_the_socket() {
    let upstream = upstream();
    let (proxy, _dir, at_socket) = with_socket(&upstream);
    proxy.process.wait_for_log("token obtained");
    check(&["token", "invalidate", &at_socket], &[], 0, &["the token was dropped; a new one is being"]);
    proxy.process.wait_for_log("the token was invalidated");
    check(
        &["quarantine", "on", &at_socket],
        &[],
        0,
        &["quarantined: no token is used or fetched until the quarantine is lifted"],
    );
    check(&["status", &at_socket], &[], 0, &["token               quarantined"]);
    check(&["quarantine", "off", &at_socket], &[], 0, &["the quarantine is lifted"]);
    proxy.process.wait_for_log("the quarantine was lifted");

    check(&["log-level", &at_socket], &[], 0, &["trace, as configured"]);
    check(&["log-level", "debug", "--for", "10m", &at_socket], &[], 0, &["debug; reverts to trace in "]);
    check(&["log-level", "info,finicity_proxy::token=debug", &at_socket], &[], 0, &["; the configured level is trace"]);
    check(&["log-level", "trace", &at_socket], &[], 0, &["trace, as configured"]);
}

#[test]
fn mistyped_admin_commands_show_what_is_expected() {
    let missing = set("admin.socket", "/nowhere/admin.sock");
    check(&["log-level", "loud", &missing], &[], 2, &["must be error, warn, info, debug or trace"]);
    check(&["log-level", "--for", "10m", &missing], &[], 2, &["<LEVEL>"]);
    check(&["log-level", "debug", "--for", "2days", &missing], &[], 2, &["at most one day"]);
    check(&["quarantine", &missing], &[], 2, &["<on|off>"]);
    check(&["quarantine", "maybe", &missing], &[], 2, &["[possible values: on, off]"]);
    check(&["token", &missing], &[], 2, &["invalidate"]);
    check(&["token", "invalidate", &missing], &[], 1, &["cannot connect to unix:/nowhere/admin.sock"]);
}
