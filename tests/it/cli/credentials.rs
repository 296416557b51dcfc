//! The command `credentials test`: at most one token request, under the lock-out guard of the running proxy.

use std::{fs, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, program, serve_command},
    upstream::{ClosedPort, Gate, Reply, Upstream},
};

/// `credentials test` for `upstream`, with credentials in the environment.
fn command(upstream: &Upstream, state: Option<&Path>) -> Command {
    let mut command = program();
    command.args(["credentials", "test"]);
    for (name, value) in serve_command(upstream, &[]).get_envs() {
        command.env(name, value.unwrap());
    }
    if let Some(state) = state {
        command.env("FINICITY__AUTH__STATE_DIR", state);
    }
    command
}

/// A directory with credentials.
fn directory(secret: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [("client_id", CLIENT_ID), ("client_secret", secret), ("app_key", APP_KEY)] {
        fs::write(dir.path().join(name), value).unwrap();
    }
    dir
}

/// Like [`command`], with credentials in a directory, with `secret`.
fn command_for(upstream: &Upstream, state: &Path, secret: &str) -> (Command, TempDir) {
    let dir = directory(secret);
    let mut command = command(upstream, Some(state));
    command.arg("--dir").arg(dir.path());
    (command, dir)
}

#[track_caller]
fn check(command: Command, code: i32, parts: &[&str]) -> String {
    let mut process = Process::start(command);
    let (got, output) = (process.wait().code(), process.output());
    assert_eq!(got, Some(code), "{output}");
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in\n{output}");
    }
    assert_eq!(output.contains("safe to roll out"), code == 0, "{output}");
    output
}

/// Tests `secret`, and returns the output.
#[track_caller]
fn test(upstream: &Upstream, state: &Path, secret: &str, code: i32, parts: &[&str]) -> String {
    let (command, _dir) = command_for(upstream, state, secret);
    check(command, code, parts)
}

fn attempts(state: &Path) -> Vec<Value> {
    let Ok(text) = fs::read(state.join("attempts.json")) else { return Vec::new() };
    let layout: Value = serde_json::from_slice(&text).unwrap();
    let accounts = layout["accounts"].as_array().unwrap();
    accounts.iter().flat_map(|account| account["unresolved"].as_array().unwrap().clone()).collect()
}

#[test]
fn accepted_credentials_are_safe_to_roll_out() {
    let (upstream, state) = (Upstream::start_checking_secret(), tempfile::tempdir().unwrap());
    check(command(&upstream, None), 0, &["from the environment, scheme oauth2", "accepted", "safe to roll out"]);
    assert_eq!(upstream.received().len(), 1);
    let output = test(&upstream, state.path(), CLIENT_SECRET, 0, &["from the directory ", "accepted"]);
    assert!(!output.contains("canary"), "{output}");
    assert_eq!((upstream.received().len(), attempts(state.path()).len()), (2, 0), "nothing is revoked");
    // Proven credentials are also tried.
    test(&upstream, state.path(), CLIENT_SECRET, 0, &["accepted"]);
    assert_eq!(upstream.received().len(), 3);
}

#[test]
fn rejected_credentials_are_tried_once() {
    let (upstream, state) = (Upstream::start_checking_secret(), tempfile::tempdir().unwrap());
    let parts = ["rejected, do not roll out: the token endpoint ", "returned 401", "at 5 (4 left)", "at 3 (2 left)"];
    test(&upstream, state.path(), "wrong-secret-1", 1, &parts);
    assert_eq!((upstream.received().len(), attempts(state.path()).len()), (1, 0));
    for _ in 0..3 {
        let parts = ["not tried: exactly these credentials were rejected before", "at 5 (4 left)"];
        test(&upstream, state.path(), "wrong-secret-1", 1, &parts);
    }
    assert_eq!(upstream.received().len(), 1);
    // Other credentials with the same ID can be tried, and success clears the count.
    test(&upstream, state.path(), CLIENT_SECRET, 0, &[]);
}

#[test]
fn remaining_attempts_are_unknown_without_a_state_dir() {
    let upstream = Upstream::start_checking_secret();
    let mut command = command(&upstream, None);
    command.env("FINICITY_CLIENT_SECRET", "wrong-secret-1");
    check(command, 1, &["rejected, do not roll out", "is unknown, because auth.state_dir is not set"]);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn an_exhausted_budget_blocks_every_secret_of_the_id() {
    let (upstream, state) = (Upstream::start_checking_secret(), tempfile::tempdir().unwrap());
    for secret in ["wrong-secret-1", "wrong-secret-2", "wrong-secret-3"] {
        test(&upstream, state.path(), secret, 1, &["rejected, do not roll out"]);
    }
    let parts = ["not tried: too many credentials for this id", "lockout reset --override-budget", "at 5 (2 left)"];
    test(&upstream, state.path(), CLIENT_SECRET, 1, &parts);
    assert_eq!(upstream.received().len(), 3);
}

#[test]
fn an_unreachable_endpoint_costs_no_attempt() {
    let (upstream, state, dead) = (Upstream::start_checking_secret(), tempfile::tempdir().unwrap(), ClosedPort::new());
    let (mut command, _dir) = command_for(&upstream, state.path(), CLIENT_SECRET);
    command.env("FINICITY__UPSTREAM__URL", dead.url());
    check(
        command,
        1,
        &["not tried, nothing was sent: cannot connect to the token endpoint localhost:", "connection refused"],
    );
    assert!(attempts(state.path()).is_empty());
}

#[test]
fn a_response_other_than_a_rejection_is_not_counted() {
    let state = tempfile::tempdir().unwrap();
    let upstream = Upstream::start_raw(|_| Reply::status(503, "Service Unavailable", "{}"));
    test(
        &upstream,
        state.path(),
        CLIENT_SECRET,
        1,
        &["neither accepted nor rejected: ", "returned 503", "at 5 (5 left)"],
    );
    assert_eq!((upstream.received().len(), attempts(state.path()).len()), (1, 0));
}

#[test]
fn unknown_outcomes_count_and_block_after_three() {
    let state = tempfile::tempdir().unwrap();
    let upstream = Upstream::start_raw(|request| match request.head.starts_with("POST") {
        true => Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec()),
        false => Reply::status(405, "Method Not Allowed", ""),
    });
    let posts = || upstream.received().iter().filter(|request| request.head.starts_with("POST")).count();
    test(&upstream, state.path(), CLIENT_SECRET, 1, &["outcome unknown, which counts as a rejection", "at 5 (4 left)"]);
    assert_eq!((posts(), attempts(state.path()).len()), (1, 1));
    // The endpoint responds to a probe, but the minimum time between two attempts has not passed.
    test(&upstream, state.path(), CLIENT_SECRET, 1, &["not tried: ", "run this again then"]);
    assert_eq!(posts(), 1);
    // Two more unknown outcomes.
    let path = state.path().join("attempts.json");
    let mut layout: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let unresolved = layout["accounts"][0]["unresolved"].as_array_mut().unwrap();
    unresolved.extend([unresolved[0].clone(), unresolved[0].clone()]);
    fs::write(&path, layout.to_string()).unwrap();
    let parts = ["not tried: too many attempts", "lockout reset --override-budget", "at 5 (2 left)", "at 3 (0 left)"];
    test(&upstream, state.path(), CLIENT_SECRET, 1, &parts);
    assert_eq!(posts(), 1);
}

#[test]
fn an_interrupted_attempt_stays_recorded() {
    for (signal, code) in [(Signal::INT, Some(1)), (Signal::TERM, Some(1)), (Signal::KILL, None)] {
        let (state, never) = (tempfile::tempdir().unwrap(), Gate::new());
        let upstream = Upstream::start_raw(move |_| Reply::Held(never.clone(), Vec::new()));
        let (command, _dir) = command_for(&upstream, state.path(), CLIENT_SECRET);
        let mut process = Process::start(command);
        upstream.wait_for("/oauth/token");
        process.signal(signal);
        assert_eq!(process.wait().code(), code, "{}", process.output());
        assert_eq!(process.output().contains("the attempt remains recorded"), code.is_some(), "{}", process.output());
        assert_eq!(attempts(state.path()).len(), 1);
    }
}

#[test]
fn a_running_proxy_uses_the_recorded_test_result() {
    let (upstream, state, mounted) =
        (Upstream::start_checking_secret(), tempfile::tempdir().unwrap(), directory(CLIENT_SECRET));
    let text = |path: &Path| path.display().to_string();
    let (dir, state_dir) = (text(mounted.path()), text(state.path()));
    let proxy = Proxy::start_with(
        &upstream,
        &[
            ("FINICITY__CREDENTIALS__SOURCE", "dir"),
            ("FINICITY__CREDENTIALS__DIR", &dir),
            ("FINICITY__AUTH__STATE_DIR", &state_dir),
        ],
    );
    test(&upstream, state.path(), "wrong-secret-1", 1, &["rejected, do not roll out"]);
    let sent = upstream.token_requests();
    assert_eq!(sent, 2);
    // If they are rolled out nevertheless, they are not tried again.
    fs::write(mounted.path().join("client_secret"), "wrong-secret-1").unwrap();
    proxy.process.wait_for_line(|line| line.contains("token requests suspended") && line.contains("rejected before"));
    assert_eq!(upstream.token_requests(), sent);
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn no_attempt_is_made_while_a_running_proxy_makes_one() {
    let (state, never) = (tempfile::tempdir().unwrap(), Gate::new());
    let upstream = Upstream::start_raw(move |_| Reply::Held(never.clone(), Vec::new()));
    let _proxy = Proxy::launch(&upstream, &[("FINICITY__AUTH__STATE_DIR", state.path().to_str().unwrap())]);
    upstream.wait_for("/oauth/token");
    test(&upstream, state.path(), CLIENT_SECRET, 1, &["not tried: another process", "auth.state_dir"]);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn invalid_configuration_or_missing_credentials_exit_78() {
    let upstream = Upstream::start_checking_secret();
    let empty = tempfile::tempdir().unwrap();
    let mut missing = command(&upstream, None);
    missing.arg("--dir").arg(empty.path());
    check(missing, 78, &["client_secret is not set"]);
    let mut wrong = command(&upstream, None);
    wrong.arg("--set=upstream.url=nowhere");
    check(wrong, 78, &["upstream.url"]);
    assert!(upstream.received().is_empty());
}

#[test]
fn the_sandbox_accepts_its_own_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let mut sandbox = program();
    sandbox.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(&ca_file);
    let sandbox = Process::start(sandbox);
    let url = sandbox.wait_for_line(|line| line.contains("FINICITY__UPSTREAM__URL="));
    let url = url.split('\'').nth(1).unwrap().to_owned();
    let test = |secret: &str| {
        let mut command = program();
        command
            .args(["credentials", "test"])
            .env("FINICITY_CLIENT_ID", "sandbox-client")
            .env("FINICITY_CLIENT_SECRET", secret)
            .env("FINICITY_APP_KEY", "sandbox-app-key-0123456789abcdef")
            .env("FINICITY__UPSTREAM__URL", &url)
            .env("FINICITY__UPSTREAM__CA_FILE", &ca_file);
        command
    };
    check(test("sandbox-Secret-1!"), 0, &["accepted"]);
    check(test("wrong-secret-1"), 1, &["rejected, do not roll out"]);
}
