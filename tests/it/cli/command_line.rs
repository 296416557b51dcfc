//! Subcommands, messages and exit codes.

use std::{
    fs,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    client::Client,
    process::{Process, program, serve_command},
    upstream::{Reply, Upstream},
};

/// Runs the program with `arguments` and `variables`. Returns its exit code and its output.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::start(command);
    (process.wait().code(), process.output())
}

const SECRETS: [(&str, &str); 3] =
    [("FINICITY_CLIENT_ID", CLIENT_ID), ("FINICITY_CLIENT_SECRET", CLIENT_SECRET), ("FINICITY_APP_KEY", APP_KEY)];

fn with_secrets<'a>(variables: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    SECRETS.iter().chain(variables).copied().collect()
}

#[track_caller]
fn assert_rejected(variables: &[(&str, &str)], lines: &[&str]) {
    for command in ["serve", "check"] {
        let (code, output) = run(&[command], variables);
        assert_eq!(code, Some(78), "{output}");
        assert_eq!(output.lines().count(), lines.len(), "{output}");
        for (line, expected) in output.lines().zip(lines) {
            assert!(line.starts_with("finicity-proxy: ") && line.contains(expected), "{line}");
        }
        assert!(!output.contains("canary"), "{output}");
    }
}

#[test]
fn configuration_errors_are_one_line_each_and_exit_78() {
    assert_rejected(
        &[],
        &["FINICITY_CLIENT_ID is not set", "FINICITY_CLIENT_SECRET is not set", "FINICITY_APP_KEY is not set"],
    );
    assert_rejected(&with_secrets(&[("FINICITY_CLIENT_SECRET", " ")]), &["FINICITY_CLIENT_SECRET is empty"]);
    assert_rejected(&with_secrets(&[("FINICITY_APP_KEY", "your-app-key")]), &["FINICITY_APP_KEY is a placeholder"]);
    assert_rejected(
        &with_secrets(&[("FINICITY__UPSTREAM__URL", "http://api.finicity.com")]),
        &["upstream.url (set by FINICITY__UPSTREAM__URL): must be https://"],
    );
    assert_rejected(
        &with_secrets(&[("FINICITY__UPSTREAM__UR", "x")]),
        &["upstream.ur (set by FINICITY__UPSTREAM__UR): unknown key"],
    );
    assert_rejected(&with_secrets(&[("FINICITY_LOG_LEVEL", "info")]), &["FINICITY_LOG_LEVEL: unknown variable"]);
}

#[test]
fn check_summarizes_a_valid_configuration() {
    let (code, output) = run(&["check"], &SECRETS);
    assert_eq!(code, Some(0), "{output}");
    for part in [
        "valid",
        "https://api.finicity.com",
        "/oauth/token",
        "127.0.0.1:3464, [::1]:3464",
        "127.0.0.1:3465",
        "127.0.0.1:3466",
        "shutdown   takes at most 29s",
    ] {
        assert!(output.contains(part), "{output}");
    }
    assert!(!output.contains("terminationGracePeriodSeconds"), "{output}");
    let (code, output) = run(&["check", "--set", "shutdown.drain_delay=5s"], &SECRETS);
    assert!(code == Some(0) && output.contains("at most 34s; Kubernetes waits 30s"), "{output}");
}

#[test]
fn config_shows_every_key_and_no_secret() {
    let variables = with_secrets(&[("FINICITY__AUTH__SCOPE", "a b")]);
    let (code, output) = run(&["config", "--redacted", "--set", "log.level=debug"], &variables);
    assert_eq!(code, Some(0), "{output}");
    for part in [
        r#"scope = "a b" # FINICITY__AUTH__SCOPE"#,
        r#"level = "debug" # --set"#,
        "# FINICITY_CLIENT_SECRET: [redacted]",
    ] {
        assert!(output.contains(part), "{output}");
    }
    assert!(!output.contains("canary"), "{output}");
}

#[test]
fn config_names_the_source_of_the_credentials() {
    let (code, output) = run(&["config", "--redacted"], &SECRETS[..1]);
    let lines: Vec<&str> = output.lines().skip_while(|line| !line.starts_with("# credentials")).collect();
    let unset = ["CLIENT_SECRET", "PARTNER_ID", "PARTNER_SECRET", "APP_KEY"];
    let unset = unset.map(|name| format!("# FINICITY_{name}: not set"));
    assert_eq!(
        (code, lines[..2].to_vec()),
        (Some(0), vec!["# credentials, from the environment", "# FINICITY_CLIENT_ID: [redacted]",])
    );
    assert_eq!(lines[2..], unset);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    for (name, value) in [("client_id", CLIENT_ID), ("app_key", APP_KEY)] {
        fs::write(dir.path().join(name), value).unwrap();
    }
    // Unused variables are not shown.
    let variables = with_secrets(&[("FINICITY__CREDENTIALS__SOURCE", "dir"), ("FINICITY__CREDENTIALS__DIR", &path)]);
    let (code, output) = run(&["config", "--redacted"], &variables);
    let lines: Vec<&str> = output.lines().skip_while(|line| !line.starts_with("# credentials")).collect();
    let first = format!("# credentials, from the directory {path}");
    let expected = [
        &first,
        "# client_id: [redacted]",
        "# client_secret: not set",
        "# partner_id: not set",
        "# partner_secret: not set",
        "# app_key: [redacted]",
    ];
    assert_eq!((code, lines), (Some(0), expected.to_vec()));
    assert!(!output.contains(APP_KEY), "{output}");
}

#[test]
fn config_hides_a_secret_set_as_a_credential_path() {
    let secret = "canary/Secret+9b=";
    let (code, output) = run(&["config"], &[("FINICITY_CLIENT_SECRET_FILE", secret)]);
    assert!(
        code == Some(0) && output.contains("# FINICITY_CLIENT_SECRET: [redacted], from a path (not shown"),
        "{output}"
    );
    assert!(!output.contains("canary"), "{output}");
    let (code, output) = run(&["config", "--set", "credentials.source=dir"], &[]);
    let problem = "# credentials.dir (set by the built-in default): must name a directory";
    assert!(code == Some(0) && output.contains(problem), "{output}");
}

#[test]
fn configuration_file_errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.toml");
    fs::write(&path, "[limits]\nconnections = \"many\"\n").unwrap();
    let path = path.display().to_string();
    let (code, output) = run(&["check", "--config", &path], &SECRETS);
    assert_eq!(code, Some(78));
    assert!(output.contains(&format!("limits.connections (set by {path}): must be a whole number")), "{output}");
}

#[test]
fn usage_errors_exit_with_2_and_version_and_help_with_0() {
    for arguments in [&["swerve"][..], &["--set", "nothing"], &["demo", "--twice"]] {
        let (code, output) = run(arguments, &[]);
        assert_eq!(code, Some(2), "{output}");
    }
    let (code, output) = run(&["--version"], &[]);
    assert_eq!((code, output.as_str()), (Some(0), concat!("finicity-proxy ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(run(&["--verbose"], &[]).0, Some(2), "only valid with --version");
    let (code, output) = run(&["--help"], &[]);
    assert!(code == Some(0) && output.contains("demo") && output.contains("78 configuration error"), "{output}");
}

#[test]
fn version_verbose_describes_the_build() {
    for arguments in [["--version", "--verbose"], ["-V", "-v"]] {
        let (code, output) = run(&arguments, &[]);
        let lines: Vec<(&str, &str)> = output.lines().map(|line| line.split_once(' ').unwrap()).collect();
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            (code, names),
            (Some(0), vec!["finicity-proxy", "revision", "date", "target", "features"]),
            "{output}"
        );
        assert!(lines.iter().all(|(_, value)| !value.trim().is_empty()), "{output}");
        let features = lines[4].1.trim();
        assert_eq!(features.split(',').any(|feature| feature == "sandbox"), cfg!(feature = "sandbox"), "{output}");
    }
}

#[test]
fn no_command_means_serve() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut command = program();
    let serve = serve_command(&upstream, &[]);
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = Process::start(command);
    process.wait_for_log("token obtained");
}

#[test]
fn demo_once_shows_three_calls_and_exits_with_0() {
    let (code, output) = run(&["demo", "--once"], &with_secrets(&[("FINICITY__LOG__LEVEL", "warn")]));
    assert_eq!(code, Some(0), "{output}");
    for part in [
        "POST /oauth/token",
        "finicity-app-key: [redacted, valid]",
        "authorization: [redacted, valid]",
        "GET /aggregation/v1/customers?start=1&limit=5&username=&type=testing",
        "201 Created",
        "The proxy authenticated all three requests",
    ] {
        assert!(output.contains(part), "{output}");
    }
    assert!(!output.contains("canary") && !output.contains("sandbox-Secret"), "{output}");
}

#[test]
fn demo_once_shows_the_headers_of_its_scheme() {
    let (code, output) = run(&["demo", "--once", "--scheme", "partner"], &with_secrets(&[]));
    assert_eq!(code, Some(0), "{output}");
    for part in [
        "POST /aggregation/v2/partners/authentication",
        "finicity-app-token: [redacted, valid]",
        "The proxy added Finicity-App-Key and Finicity-App-Token to each request.",
    ] {
        assert!(output.contains(part), "{output}");
    }
    assert!(!output.contains("/oauth/token") && !output.contains("authorization:"), "{output}");
}

#[test]
fn demo_prints_a_curl_command_and_exits_on_ctrl_c() {
    let mut command = program();
    command.args(["demo"]);
    for key in ["proxy", "ops", "admin"] {
        command.args(["--set", &format!("listen.{key}=127.0.0.1:0")]);
    }
    let mut process = Process::start(command);
    let line =
        process.wait_for_line(|line| line.contains("curl http://") && line.ends_with("/aggregation/v1/customers"));
    let address = line.trim().strip_prefix("curl http://").unwrap().split('/').next().unwrap().parse().unwrap();
    assert!(!process.output().contains("WARN"), "{}", process.output());
    assert_eq!(Client::connect(address).get("/aggregation/v1/customers").status, 200);
    process.wait_for_line(|line| line.starts_with("*** token refreshed in the background: now version 2"));
    assert_eq!(Client::connect(address).get("/aggregation/v1/customers").status, 200);
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(0), "{}", process.output());
}

/// Runs the sandbox in a directory with a name that needs shell quoting. Then runs the exports that it prints for `scheme` in a shell
/// with another working directory.
#[track_caller]
fn check_sandbox_exports(scheme: &str) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a b's");
    fs::create_dir(&folder).unwrap();
    let mut command = program();
    command.args(["sandbox", "--listen", "127.0.0.1:0"]).current_dir(&folder);
    let mut sandbox = Process::start(command);
    sandbox.wait_for_line(|line| line == "finicity-proxy serve");
    assert!(folder.join("sandbox-ca.pem").is_file());
    let printed = sandbox.output();
    let is_wanted = |line: &&str| !line.contains("AUTH__SCHEME=") || line.contains(&format!("AUTH__SCHEME='{scheme}'"));
    let exports: Vec<&str> = printed.lines().filter(|line| line.starts_with("export ")).filter(is_wanted).collect();
    assert!(exports.iter().any(|line| line.contains("AUTH__SCHEME=")), "{printed}");

    let program = program();
    let mut shell = Command::new("/bin/sh");
    let script = format!(
        "{}\nexec '{}' serve --set listen.proxy=127.0.0.1:0 --set listen.ops=127.0.0.1:0 --set listen.admin=127.0.0.1:0",
        exports.join("\n"),
        program.get_program().to_str().unwrap()
    );
    shell.args(["-c", &script]).current_dir("/").env_clear().stdin(Stdio::null());
    let proxy = Process::start(shell);
    let listening = proxy.wait_for_log("listening");
    let mut client = Client::connect(listening["proxy"].as_str().unwrap().parse().unwrap());
    assert_eq!(client.get("/aggregation/v1/customers/1005061234").status, 200, "{printed}");
    assert_eq!(proxy.wait_for_log("credentials were loaded")["scheme"], scheme);
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.wait().code(), Some(0));
}

#[test]
fn sandbox_exports_work_in_any_shell_for_both_schemes() {
    check_sandbox_exports("oauth2");
    check_sandbox_exports("partner");
}

#[test]
fn sandbox_exports_configure_a_working_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let mut command = program();
    command.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(&ca_file);
    let mut sandbox = Process::start(command);
    sandbox.wait_for_line(|line| line == "finicity-proxy serve");

    let printed = sandbox.output();
    assert!(printed.contains(&format!("FINICITY__UPSTREAM__CA_FILE='{}'", ca_file.display())), "{printed}");

    // Sets the printed variables as a shell would.
    let mut serve = program();
    serve.arg("serve");
    for word in printed.lines().filter_map(|line| line.strip_prefix("export ")).flat_map(|line| line.split(' ')) {
        let (name, value) = word.split_once('=').unwrap();
        serve.env(name, value.trim_matches('\''));
    }
    for key in ["PROXY", "OPS", "ADMIN"] {
        serve.env(format!("FINICITY__LISTEN__{key}"), "127.0.0.1:0");
    }
    let proxy = Process::start(serve);
    let listening = proxy.wait_for_log("listening");
    let mut client = Client::connect(listening["proxy"].as_str().unwrap().parse().unwrap());
    let response = client.get("/aggregation/v1/customers/1005061234");
    assert_eq!(response.status, 200, "{response:?}");
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.wait().code(), Some(0));
}
