//! The command `doctor`, local steps: configuration, credentials, state directory, lock-out guard and running proxy. Each broken setup
//! fails the right step with the right remedy.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use rustix::process::{Signal, geteuid};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET, canary,
    process::{Process, Proxy, program, serve_command},
    upstream::{ClosedPort, Gate, ReceivedRequest, Reply, Upstream, token_response},
};

/// An unprivileged user, for tests that run as root.
const UNPRIVILEGED_UID: u32 = 65534;

/// The output of one run, and its exit code.
pub struct Diagnosis {
    pub code: Option<i32>,
    report: Value,
    stderr: String,
}

impl Diagnosis {
    /// Runs `command`, which prints JSON.
    #[track_caller]
    pub fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        let (stdout, stderr) = texts(&output);
        canary::scan("the report", &stdout);
        canary::scan("standard error", &stderr);
        let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        Self { code: output.status.code(), report, stderr }
    }

    /// The outcome of `step`, and its detail with its remedy.
    #[track_caller]
    pub fn step(&self, step: &str) -> (&str, String) {
        let steps = self.report["steps"].as_array().unwrap();
        let step = steps.iter().find(|found| found["name"] == step).unwrap();
        let remedy = step["remedy"].as_str().map(|remedy| format!(" -> {remedy}")).unwrap_or_default();
        (step["outcome"].as_str().unwrap(), step["detail"].as_str().unwrap().to_owned() + &remedy)
    }

    /// Checks that `step` is the first failed one, that the exit code is `code`, and that its detail and remedy contain `parts`.
    #[track_caller]
    pub fn fails(&self, step: &str, code: i32, parts: &[&str]) {
        let (outcome, text) = self.step(step);
        assert_eq!(
            (self.code, outcome, &self.report["failed_step"]),
            (Some(code), "failed", &Value::from(step)),
            "{self}"
        );
        assert!(text.contains(" -> "), "a failure has a remedy: {text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    /// Checks that `step` has `outcome`, and that its detail and remedy contain `parts`.
    #[track_caller]
    pub fn has(&self, step: &str, outcome: &str, parts: &[&str]) {
        let (found, text) = self.step(step);
        assert_eq!(found, outcome, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}\n{}", self.report, self.stderr)
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// `doctor --json` for `upstream`, with credentials in the environment, and `variables`.
pub fn doctor(upstream: &Upstream, variables: &[(&str, &str)]) -> Command {
    let mut command = program();
    // Long enough for a busy machine, unless a test sets another timeout.
    command.args(["doctor", "--json"]).env("FINICITY__UPSTREAM__CONNECT_TIMEOUT", "60s");
    for (name, value) in serve_command(upstream, variables).get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

/// Issues tokens for `CLIENT_SECRET`, and rejects every other secret.
pub fn vendor() -> Upstream {
    Upstream::start_raw(|request: &ReceivedRequest| {
        let is_right = String::from_utf8_lossy(&request.body).contains(CLIENT_SECRET);
        match request.head.split(' ').next() {
            Some("POST") if is_right => Reply::json(&token_response(1, 3600)),
            Some("POST") => Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#),
            _ => Reply::status(405, "Method Not Allowed", "{}"),
        }
    })
}

/// The token requests that `upstream` received.
pub fn token_requests(upstream: &Upstream) -> usize {
    upstream.received().iter().filter(|request| request.head.starts_with("POST")).count()
}

fn state() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state").display().to_string();
    (dir, path)
}

#[test]
fn a_healthy_setup_passes_every_step() {
    let (upstream, (_dir, state)) = (vendor(), state());
    let variables = [("FINICITY__AUTH__STATE_DIR", state.as_str())];
    let diagnosis = Diagnosis::of(doctor(&upstream, &variables));
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
    diagnosis.has("configuration", "ok", &[&upstream.url()]);
    diagnosis.has("credential_source", "ok", &["from the environment, scheme oauth2"]);
    diagnosis.has("store_identity", "skipped", &["uses no network"]);
    diagnosis.has("state_directory", "ok", &[&state, "has no lock-out state yet"]);
    diagnosis.has("dns", "ok", &["localhost resolves to 127.0.0.1"]);
    diagnosis.has("egress_proxy", "skipped", &["not set"]);
    diagnosis.has("tls", "ok", &["1 certificate for localhost, 127.0.0.1", "(1 CA)", "no pinned keys", "days left"]);
    diagnosis.has("clock", "skipped", &["no Date"]);
    diagnosis.has("token_request", "ok", &["localhost issued a token, which is not used"]);
    diagnosis.has("running_proxy", "skipped", &["has no fixed port"]);
    assert!(diagnosis.stderr.contains("making one token request to localhost"), "{diagnosis}");
    let heads: Vec<_> = upstream.received().iter().map(|request| request.head.clone()).collect();
    assert!(heads.len() == 2 && heads[0].starts_with("GET ") && heads[1].starts_with("POST "), "{heads:?}");
    for absent in ["authorization", "finicity-app-key", "cookie"] {
        assert!(!heads[0].to_lowercase().contains(absent), "{}", heads[0]);
    }
    // The credentials are now proven and recognised.
    let again = Diagnosis::of(doctor(&upstream, &variables));
    again.has("credential_source", "ok", &["fingerprint "]);
    again.has("state_directory", "ok", &["can be read and written"]);
    assert_eq!((again.code, token_requests(&upstream)), (Some(0), 2));
}

#[test]
fn the_sandbox_passes_and_the_text_lists_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let mut sandbox = program();
    sandbox.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(&ca_file);
    let sandbox = Process::start(sandbox);
    let url = sandbox.wait_for_line(|line| line.contains("FINICITY__UPSTREAM__URL="));
    let url = url.split('\'').nth(1).unwrap().to_owned();
    let mut command = program();
    command
        .arg("doctor")
        .env("FINICITY_CLIENT_ID", "sandbox-client")
        .env("FINICITY_CLIENT_SECRET", "sandbox-Secret-1!")
        .env("FINICITY_APP_KEY", "sandbox-app-key-0123456789abcdef")
        .env("FINICITY__UPSTREAM__URL", &url)
        .env("FINICITY__UPSTREAM__CA_FILE", &ca_file)
        .env("FINICITY__LISTEN__PROXY", "127.0.0.1:0")
        .env("FINICITY__LISTEN__OPS", "127.0.0.1:0")
        .env("FINICITY__LISTEN__ADMIN", "127.0.0.1:0");
    let output = command.output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let names: Vec<_> = stdout.lines().filter_map(|line| line.get(..23)?.split_whitespace().nth(1)).collect();
    let steps = "configuration credential_source store_identity state_directory dns egress_proxy tcp tls clock token_request running_proxy";
    for step in steps.split(' ') {
        assert!(names.contains(&step), "{step} is not in\n{stdout}");
    }
    assert!(stdout.contains("ok   clock") && stdout.contains("of the upstream's Date"), "{stdout}");
    assert!(stdout.trim_end().lines().last().unwrap().starts_with("no step failed"), "{stdout}");
    assert!(!stdout.contains("Secret-1!") && !stdout.contains("0123456789abcdef"), "{stdout}");
}

#[test]
fn an_invalid_configuration_exits_78_with_all_problems() {
    let upstream = vendor();
    let mut command = doctor(&upstream, &[("FINICITY__LOG__LEVEL", "loud")]);
    command.arg("--set=upstream.url=http://example.test");
    let diagnosis = Diagnosis::of(command);
    diagnosis.fails("configuration", 78, &["upstream.url", "log.level", "finicity-proxy config"]);
    diagnosis.has("token_request", "skipped", &["requires a valid configuration"]);
    // An unusable listen address is also a configuration problem; the state directory has its own step.
    let diagnosis = Diagnosis::of(doctor(&upstream, &[("FINICITY__LISTEN__PROXY", "192.0.2.1:0")]));
    diagnosis.fails("configuration", 78, &["listen.proxy"]);
    let dir = upstream.ca_file().parent().unwrap().display().to_string();
    let diagnosis = Diagnosis::of(doctor(&upstream, &[("FINICITY__UPSTREAM__CA_FILE", &dir)]));
    diagnosis.fails("configuration", 78, &["upstream.ca_file", &dir, "is not a file"]);
    assert!(upstream.received().is_empty());
}

#[test]
fn missing_or_unreadable_credentials_fail_credential_source() {
    let (upstream, dir) = (vendor(), tempfile::tempdir().unwrap());
    let mut missing = doctor(&upstream, &[]);
    missing.env_remove("FINICITY_APP_KEY");
    let diagnosis = Diagnosis::of(missing);
    diagnosis.fails("credential_source", 10, &["FINICITY_APP_KEY is not set", "set FINICITY_APP_KEY_FILE"]);
    // The steps for the upstream run nevertheless.
    diagnosis.has("tls", "ok", &[]);
    diagnosis.has("token_request", "skipped", &["requires credential_source"]);

    // A directory instead of a file cannot be read, even by root.
    let path = dir.path().display().to_string();
    let mut unreadable = doctor(&upstream, &[("FINICITY_CLIENT_SECRET_FILE", &path)]);
    unreadable.env_remove("FINICITY_CLIENT_SECRET");
    let parts = ["FINICITY_CLIENT_SECRET_FILE", &path, "is readable by the user"];
    Diagnosis::of(unreadable).fails("credential_source", 10, &parts);

    let nowhere = dir.path().join("nowhere").display().to_string();
    let variables = [("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", nowhere.as_str())];
    let diagnosis = Diagnosis::of(doctor(&upstream, &variables));
    diagnosis.fails("credential_source", 10, &["from the directory", &nowhere, "check that it exists"]);
    assert_eq!(token_requests(&upstream), 0);
}

#[test]
fn files_without_permission_fail_the_step_that_reads_them() {
    let (upstream, dir) = (vendor(), tempfile::tempdir().unwrap());
    if !geteuid().is_root() {
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (secrets, state) = (dir.path().join("secrets"), dir.path().join("state"));
    fs::create_dir(&secrets).unwrap();
    for (name, value) in [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("app_key", APP_KEY)] {
        fs::write(secrets.join(name), value).unwrap();
    }
    fs::create_dir(&state).unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::copy(upstream.ca_file(), &ca_file).unwrap();
    let as_unprivileged = || {
        let path = |path: &Path| path.display().to_string();
        let variables = [
            ("FINICITY__CREDENTIALS__SOURCE", "dir".to_owned()),
            ("FINICITY__CREDENTIALS__DIR", path(&secrets)),
            ("FINICITY__AUTH__STATE_DIR", path(&state)),
            ("FINICITY__UPSTREAM__CA_FILE", path(&ca_file)),
        ];
        let mut command = doctor(&upstream, &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
        command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID);
        Diagnosis::of(command)
    };
    // The state directory belongs to root.
    let diagnosis = as_unprivileged();
    diagnosis.fails("state_directory", 12, &["Permission denied", "(uid 65534)", "writable for this user"]);
    diagnosis.has("token_request", "skipped", &["requires state_directory"]);
    diagnosis.has("credential_source", "ok", &["last changed at "]);
    assert_eq!(token_requests(&upstream), 0);
    chown(&state, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).unwrap();
    assert_eq!(as_unprivileged().code, Some(0));
    // A state that is readable but not writable.
    chown(&state, Some(0), Some(0)).unwrap();
    as_unprivileged().fails("state_directory", 12, &["is not writable for uid 65534", "fsGroup"]);
    chown(&state, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).unwrap();
    fs::set_permissions(secrets.join("client_secret"), fs::Permissions::from_mode(0o600)).unwrap();
    as_unprivileged().fails("credential_source", 10, &["client_secret", "is readable by the user"]);
}

#[test]
fn root_writes_nothing_to_another_users_state_dir() {
    if !geteuid().is_root() {
        return;
    }
    let (upstream, dir) = (vendor(), tempfile::tempdir().unwrap());
    chown(dir.path(), Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).unwrap();
    let variables = [("FINICITY__AUTH__STATE_DIR", dir.path().to_str().unwrap())];
    let diagnosis = Diagnosis::of(doctor(&upstream, &variables));
    diagnosis.has("state_directory", "warning", &["belongs to uid 65534", "run this as uid 65534"]);
    diagnosis.has("token_request", "skipped", &["could not read it"]);
    assert_eq!((diagnosis.code, token_requests(&upstream)), (Some(0), 0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_or_locked_state_file_fails_its_step() {
    let (upstream, dir) = (vendor(), tempfile::tempdir().unwrap());
    let variables = [("FINICITY__AUTH__STATE_DIR", dir.path().to_str().unwrap())];
    let run = || Diagnosis::of(doctor(&upstream, &variables));
    fs::write(dir.path().join("lockout.json"), "{ damaged").unwrap();
    let diagnosis = run();
    diagnosis.fails("state_directory", 12, &["damaged at line 1", "restore a good copy"]);
    diagnosis.has("token_request", "skipped", &["requires state_directory"]);

    fs::remove_file(dir.path().join("lockout.json")).unwrap();
    let lock = fs::File::create(dir.path().join("lockout.lock")).unwrap();
    lock.lock().unwrap();
    run().fails("state_directory", 12, &["another process holds the lock", "find the stopped process"]);
    drop(lock);
    assert_eq!(token_requests(&upstream), 0);
    // With --no-token-request, no file is created.
    let mut command = doctor(&upstream, &variables);
    command.arg("--no-token-request");
    let diagnosis = Diagnosis::of(command);
    diagnosis.has("token_request", "skipped", &["--no-token-request"]);
    assert_eq!((diagnosis.code, token_requests(&upstream)), (Some(0), 0));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lockout.lock"]);
}

#[test]
fn a_wrong_secret_is_tried_only_once() {
    let (upstream, (_dir, state)) = (vendor(), state());
    let variables = [("FINICITY__AUTH__STATE_DIR", state.as_str()), ("FINICITY_CLIENT_SECRET", "wrong-secret-1")];
    let run = |arguments: &[&str]| {
        let mut command = doctor(&upstream, &variables);
        command.args(arguments);
        Diagnosis::of(command)
    };
    let parts = ["rejected, do not roll out", "returned 401", "at 5 (4 left)", "correct id, secret and App Key"];
    run(&[]).fails("token_request", 18, &parts);
    for arguments in [&[][..], &[], &["--no-token-request"]] {
        let diagnosis = run(arguments);
        let parts = ["not tried: exactly these credentials were rejected before", "lockout reset"];
        diagnosis.fails("token_request", 18, &parts);
        assert!(!diagnosis.stderr.contains("making one token request"), "{diagnosis}");
    }
    assert_eq!(token_requests(&upstream), 1);
    // A latch is also reported if the upstream is unreachable.
    let mut unreachable = doctor(&upstream, &variables);
    unreachable.env("FINICITY__UPSTREAM__URL", "https://localhost:1");
    let diagnosis = Diagnosis::of(unreachable);
    diagnosis.fails("tcp", 15, &[]);
    diagnosis.has("token_request", "failed", &["rejected before"]);
}

#[test]
fn each_response_without_a_token_has_its_own_remedy() {
    let (_dir, state) = state();
    for (status, body, remedy) in [
        (404, "{}", "auth.token_path"),
        (403, "{}", "permits this network's address"),
        (429, "{}", "the same account"),
        (503, "{}", "the vendor's status page"),
        (200, "<html>", "upstream.url and auth.token_path"),
    ] {
        let upstream = Upstream::start_raw(move |_| Reply::status(status, "Whatever", body));
        let diagnosis = Diagnosis::of(doctor(&upstream, &[("FINICITY__AUTH__STATE_DIR", &state)]));
        let expected =
            format!("neither accepted nor rejected: the token endpoint {} returned {status}", upstream.authority());
        diagnosis.fails("token_request", 18, &[&expected, "at 5 (5 left)", " -> ", remedy]);
        diagnosis.has("tls", "ok", &[]);
    }
}

#[test]
fn no_attempt_is_made_if_it_cannot_be_recorded() {
    let (upstream, dir) = (vendor(), tempfile::tempdir().unwrap());
    let variables = [("FINICITY__AUTH__STATE_DIR", dir.path().to_str().unwrap())];
    // This is detected only by a write: the renamed file would replace a directory.
    fs::create_dir(dir.path().join("attempts.lock")).unwrap();
    let diagnosis = Diagnosis::of(doctor(&upstream, &variables));
    diagnosis.fails("token_request", 18, &["attempts.json cannot be updated", "Is a directory"]);
    assert_eq!(token_requests(&upstream), 0);
}

#[test]
fn a_rejection_without_a_state_dir_warns_against_a_rerun() {
    let upstream = vendor();
    let diagnosis = Diagnosis::of(doctor(&upstream, &[("FINICITY_CLIENT_SECRET", "wrong-secret-1")]));
    diagnosis.has("state_directory", "skipped", &["auth.state_dir is not set"]);
    diagnosis.fails("token_request", 18, &["rejected", "do not run this again with the same credentials"]);
}

#[test]
fn held_credentials_are_not_tried() {
    let (_dir, state) = state();
    let upstream = Upstream::start_raw(|request| match request.head.starts_with("POST") {
        true => Reply::Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec()),
        false => Reply::status(405, "Method Not Allowed", ""),
    });
    let variables = [("FINICITY__AUTH__STATE_DIR", state.as_str())];
    let diagnosis = Diagnosis::of(doctor(&upstream, &variables));
    diagnosis.fails("token_request", 18, &["outcome unknown, which counts as a rejection"]);
    // The minimum time between two attempts has not passed.
    let diagnosis = Diagnosis::of(doctor(&upstream, &variables));
    diagnosis.has("token_request", "skipped", &["not tried: ", "run this again then"]);
    // Two more unknown outcomes.
    let path = Path::new(&state).join("attempts.json");
    let mut layout: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let unresolved = layout["accounts"][0]["unresolved"].as_array_mut().unwrap();
    unresolved.extend([unresolved[0].clone(), unresolved[0].clone()]);
    fs::write(&path, layout.to_string()).unwrap();
    let parts = ["not tried: too many attempts", "lockout reset --override-budget"];
    Diagnosis::of(doctor(&upstream, &variables)).fails("token_request", 18, &parts);
    let mut command = doctor(&upstream, &variables);
    command.arg("--no-token-request");
    Diagnosis::of(command).fails("token_request", 18, &parts);
    assert_eq!(token_requests(&upstream), 1);
}

/// `doctor` with the listen addresses of the running `proxy`.
fn doctor_for(proxy: &Proxy, upstream: &Upstream, variables: &[(&str, &str)]) -> Diagnosis {
    let (callers, ops, admin) = (proxy.proxy[0].to_string(), proxy.ops.to_string(), proxy.admin.to_string());
    let addresses = [
        // These addresses are in use, which is not a configuration problem.
        ("FINICITY__LISTEN__PROXY", callers.as_str()),
        ("FINICITY__LISTEN__OPS", &ops),
        ("FINICITY__LISTEN__ADMIN", &admin),
    ];
    Diagnosis::of(doctor(upstream, &[variables, &addresses].concat()))
}

#[test]
fn a_running_proxy_is_queried() {
    let (upstream, (dir, state)) = (vendor(), state());
    let variables = [("FINICITY__AUTH__STATE_DIR", state.as_str())];
    let socket = dir.path().join("admin.sock").display().to_string();
    let variables = [variables[0], ("FINICITY__ADMIN__SOCKET", &socket)];
    let proxy = Proxy::start_with(&upstream, &variables);
    let diagnosis = doctor_for(&proxy, &upstream, &variables);
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
    diagnosis.has("running_proxy", "ok", &["ready at 127.0.0.1:", "version ", "token fresh, usable for "]);
    diagnosis.has("token_request", "ok", &[]);

    let (ops, _) = (proxy.ops, drop(proxy));
    let diagnosis = Diagnosis::of(doctor(&upstream, &[("FINICITY__LISTEN__OPS", &ops.to_string())]));
    diagnosis.has("running_proxy", "skipped", &["not running"]);
    assert_eq!(diagnosis.code, Some(0), "{diagnosis}");
}

#[test]
fn an_unready_proxy_fails_its_step_with_the_reason() {
    let (upstream, closed) = (vendor(), ClosedPort::new());
    let url = closed.url();
    let proxy = Proxy::launch(&upstream, &[("FINICITY__UPSTREAM__URL", &url)]);
    proxy.process.wait_for_log("token refresh failed");
    // `doctor` uses another upstream, so all other steps pass.
    let diagnosis = doctor_for(&proxy, &upstream, &[]);
    diagnosis.fails("running_proxy", 19, &["not ready", "last token error: ", "connection refused"]);
    diagnosis.has("token_request", "ok", &[]);
}

#[test]
fn a_running_proxys_rejection_counts_without_a_state_dir() {
    let upstream = vendor();
    let variables = [("FINICITY_CLIENT_SECRET", "wrong-secret-1")];
    let proxy = Proxy::launch(&upstream, &variables);
    proxy.process.wait_for_line(|line| line.contains("token requests suspended") || line.contains("rejected"));
    upstream.wait_for_requests(1, |request| request.head.starts_with("POST"));
    proxy.wait_for_metric("lockout_latched", 1);
    let diagnosis = doctor_for(&proxy, &upstream, &variables);
    diagnosis.fails(
        "token_request",
        18,
        &["not tried: a running proxy has suspended token requests", "rejected", "correct the Secret"],
    );
    diagnosis.has("running_proxy", "failed", &["token requests suspended", "correct the Secret"]);
    assert_eq!(token_requests(&upstream), 1);
}

#[test]
fn another_program_at_the_ops_address_is_a_warning() {
    let upstream = vendor();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = std::io::Write::write_all(&mut stream, b"SSH-2.0-canary\r\n");
        }
    });
    let diagnosis = Diagnosis::of(doctor(&upstream, &[("FINICITY__LISTEN__OPS", &address)]));
    diagnosis.has("running_proxy", "warning", &["not this proxy", "listen.ops"]);
    assert_eq!(diagnosis.code, Some(0));
}

#[test]
fn a_signal_exits_and_leaves_the_attempt_recorded() {
    for signal in [Signal::INT, Signal::TERM] {
        let ((_dir, state), never) = (state(), Gate::new());
        let upstream = Upstream::start_raw(move |request| match request.head.starts_with("POST") {
            true => Reply::Held(never.clone(), Vec::new()),
            false => Reply::status(405, "Method Not Allowed", ""),
        });
        let mut command = doctor(&upstream, &[("FINICITY__AUTH__STATE_DIR", &state)]);
        command.stdout(Stdio::piped());
        let mut process = Process::start(command);
        upstream.wait_for_requests(1, |request| request.head.starts_with("POST"));
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(1), "{}", process.output());
        assert!(process.output().contains("the attempt remains recorded"), "{}", process.output());
        let attempts = fs::read_to_string(Path::new(&state).join("attempts.json")).unwrap();
        assert!(attempts.contains("unresolved"), "{attempts}");
    }
}
