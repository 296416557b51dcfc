//! `demo` and `sandbox` use neither the environment nor a configuration file.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use crate::support::{
    CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, program, serve_command},
    upstream::{Reply, Upstream},
};

/// The environment of a real installation that detects each access: a FIFO blocks its reader, and a listener receives a connection.
struct Trap {
    dir: TempDir,
    egress: TcpListener,
    variables: Vec<(String, String)>,
}

impl Trap {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["credentials", "state"] {
            fs::create_dir(path(name)).unwrap();
        }
        for fifo in [
            "app_key",
            "token",
            "config.toml",
            "ca.pem",
            "credentials/client_id",
            "state/lockout.json",
            "state/attempts.json",
        ] {
            mkfifoat(CWD, path(fifo).as_str(), Mode::RWXU).unwrap();
        }
        let egress = TcpListener::bind("127.0.0.1:0").unwrap();
        egress.set_nonblocking(true).unwrap();
        let proxy = format!("http://{}", egress.local_addr().unwrap());
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = vec![
            set("FINICITY_CONFIG", &path("config.toml")),
            set("FINICITY_CLIENT_ID", CLIENT_ID),
            set("FINICITY_CLIENT_SECRET", CLIENT_SECRET),
            set("FINICITY_PARTNER_ID", CLIENT_ID),
            set("FINICITY_PARTNER_SECRET", CLIENT_SECRET),
            set("FINICITY_APP_KEY_FILE", &path("app_key")),
            set("FINICITY_ADMIN_TOKEN_FILE", &path("token")),
            set("FINICITY_EGRESS_PROXY_PASSWORD", CLIENT_SECRET),
            set("FINICITY__CREDENTIALS__SOURCE", "dir"),
            set("FINICITY__CREDENTIALS__DIR", &path("credentials")),
            set("FINICITY__AUTH__STATE_DIR", &path("state")),
            set("FINICITY__AUTH__SCHEME", "partner"),
            set("FINICITY__AUTH__TOKEN_PATH", "/elsewhere"),
            set("FINICITY__ADMIN__SOCKET", &path("admin.sock")),
            set("FINICITY__STARTUP__TERMINATION_MESSAGE", &path("state/lockout.json")),
            set("FINICITY__UPSTREAM__EGRESS_PROXY", &proxy),
            set("FINICITY__UPSTREAM__CA_FILE", &path("ca.pem")),
            set("FINICITY__LISTEN__OPS", &egress.local_addr().unwrap().to_string()),
            set("HTTPS_PROXY", &proxy),
            set("https_proxy", &proxy),
            set("ALL_PROXY", &proxy),
        ];
        Self { dir, egress, variables }
    }

    fn files(&self) -> Vec<(PathBuf, u64)> {
        fn walk(dir: &Path, found: &mut Vec<(PathBuf, u64)>) {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                found.push((entry.path(), entry.metadata().unwrap().len()));
                if entry.path().is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        found.sort();
        found
    }

    /// Runs the program with `arguments` in this environment, and checks that nothing in it was accessed.
    #[track_caller]
    fn check(&self, arguments: &[&str], code: i32) -> String {
        let before = self.files();
        let mut command = program();
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.path());
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(code), "{}", process.output());
        assert_eq!(self.files(), before);
        assert_eq!(self.egress.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        process.output()
    }
}

#[test]
fn demo_ignores_the_environment() {
    let trap = Trap::new();
    let output = trap.check(&["demo", "--once"], 0);
    assert!(output.contains("The proxy authenticated all three requests"), "{output}");
    assert!(output.contains("POST /oauth/token"), "demo uses its own scheme: {output}");
}

#[test]
fn demo_ignores_the_config_argument() {
    let trap = Trap::new();
    let output = trap.check(&["demo", "--once", "--config", "config.toml"], 0);
    assert!(output.contains("--config is ignored"), "{output}");
}

#[test]
fn values_invalid_for_serve_do_not_fail_demo() {
    let mut trap = Trap::new();
    for (name, value) in [
        ("FINICITY__LOG__LEVEL", "loud"),
        ("FINICITY__UPSTREAM__UR", "x"),
        ("FINICITY__LISTEN__PROXY", "0.0.0.0:1"),
        ("FINICITY__LIMITS__HEADERS", "many"),
        ("FINICITY_LOG_LEVEL", "info"),
        ("FINICITY_ADMIN_TOKEN", "x"),
        ("FINICITY_APP_KEY", "customers"),
    ] {
        trap.variables.push((name.to_owned(), value.to_owned()));
    }
    let output = trap.check(&["demo", "--once"], 0);
    assert!(output.contains("/aggregation/v1/customers") && !output.contains("[scrubbed]"), "{output}");
}

#[test]
fn demo_rejects_keys_it_does_not_support() {
    let trap = Trap::new();
    let state = format!("auth.state_dir={}", trap.dir.path().join("new").display());
    for setting in [
        &*state,
        "auth.scheme=partner",
        "credentials.source=dir",
        "credentials.dir=credentials",
        "admin.socket=admin.sock",
        "upstream.url=https://localhost:1",
        "upstream.egress_proxy=http://127.0.0.1:1",
        "upstream.ca_file=ca.pem",
        "startup.require_token=true",
    ] {
        let key = setting.split('=').next().unwrap();
        for command in ["demo", "sandbox"] {
            let output = trap.check(&[command, "--set", setting], 78);
            let expected = format!("finicity-proxy: {key} (set by --set): `{command}` ");
            assert!(output.starts_with(&expected), "{output}");
        }
    }
    let output = trap.check(&["demo", "--set", "auth.scheme=partner"], 78);
    assert!(
        output.contains("only those of [guard], [limits], [listen], [log], [policy], [runtime], [shutdown]"),
        "{output}"
    );
}

#[test]
fn demo_accepts_supported_keys_from_the_command_line() {
    let trap = Trap::new();
    let settings = ["listen.proxy=127.0.0.1:0", "log.level=info", "limits.headers=40", "policy.deny_billable=false"];
    let arguments: Vec<&str> =
        ["demo", "--once"].into_iter().chain(settings.into_iter().flat_map(|set| ["--set", set])).collect();
    let output = trap.check(&arguments, 0);
    assert!(output.contains("token obtained"), "the level is in effect: {output}");
}

#[test]
fn sandbox_ignores_the_environment() {
    let trap = Trap::new();
    let mut command = program();
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    command.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(ca_file.path());
    command.envs(trap.variables.iter().map(|(name, value)| (name, value)));
    let before = trap.files();
    let mut sandbox = Process::start(command);
    sandbox.wait_for_line(|line| line == "finicity-proxy serve");
    sandbox.signal(rustix::process::Signal::TERM);
    assert_eq!(sandbox.wait().code(), Some(0));
    assert_eq!(trap.files(), before);
}

#[test]
fn demo_leaves_no_state_for_serve() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let state = tempfile::tempdir().unwrap();
    let variables = [("FINICITY__AUTH__STATE_DIR", state.path().to_str().unwrap())];
    let serve = serve_command(&upstream, &variables);
    let mut demo = program();
    demo.args(["demo", "--once"]).envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut demo = Process::start(demo);
    assert_eq!(demo.wait().code(), Some(0), "{}", demo.output());
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    assert_eq!(upstream.received().len(), 0);
    let proxy = Proxy::run(serve);
    proxy.process.wait_for_log("token obtained");
    assert_eq!(proxy.connect().get("/x").status, 200);
}
