//! The scrubber: secrets in values that the program logs or prints.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    APP_KEY, CLIENT_SECRET,
    process::{Process, Proxy, program, serve_command},
    upstream::{Reply, Upstream},
};

#[test]
fn l01_an_app_key_as_the_request_id_is_scrubbed_and_reported() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let mut proxy = Proxy::start_with(&upstream, &[("FINICITY__LOG__LEVEL", "info")]);
    proxy.process.allow_scrubbing();
    let response = proxy.connect().call("GET", "/x", &[&format!("X-Request-Id: {APP_KEY}")], b"");
    // The client gets its own value back: a different one would reveal that it had guessed a secret.
    assert_eq!(response.header("x-request-id"), Some(APP_KEY));
    let line = proxy.process.wait_for_log("request");
    assert_eq!(line["request_id"], "[scrubbed]");
    let line = proxy.process.wait_for_line(|line| line.contains("scrubbed a secret from the log output"));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["secret"], &line["times"]),
        (&"ERROR".into(), &"the credentials".into(), &1.into())
    );
    proxy.wait_for_metric("scrubber_catches_total", 1);

    // Also for a token. The report is logged at most once a minute.
    proxy.connect().call("GET", "/x", &["X-Request-Id: canarytoken1"], b"");
    proxy.wait_for_metric("scrubber_catches_total", 2);
    proxy.process.signal(Signal::TERM);
    proxy.process.wait();
    assert!(proxy.process.logs("request").iter().all(|line| line["request_id"] == "[scrubbed]"));
    assert_eq!(proxy.process.output().matches("scrubbed a secret from the log output").count(), 1);
}

#[test]
fn l01_a_secret_in_the_configuration_is_scrubbed_when_encoded() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let dir = tempfile::tempdir().unwrap();
    // Socket paths are logged unchanged. Forms with slashes would be directories.
    let forms = [
        CLIENT_SECRET.replace('/', "%2F"),
        CLIENT_SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        CLIENT_SECRET.bytes().map(|byte| format!("{byte:02X}")).collect(),
        APP_KEY.to_owned(),
    ];
    for format in ["json", "human"] {
        let sockets: Vec<_> = forms.iter().map(|form| format!("unix:{}/{form}", dir.path().display())).collect();
        let variables = [("FINICITY__LISTEN__PROXY", sockets.join(",")), ("FINICITY__LOG__FORMAT", format.to_owned())];
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut process = Process::start(serve_command(&upstream, &variables));
        process.allow_scrubbing();
        let line = process.wait_for_line(|line| line.contains("listening") && line.contains("[scrubbed]"));
        assert_eq!(line.matches("[scrubbed]").count(), forms.len(), "{line}");
        process.wait_for_line(|line| line.contains("token obtained"));
        process.signal(Signal::TERM);
        process.wait();
    }
}

#[test]
fn l01_a_secret_on_the_command_line_is_scrubbed() {
    for arguments in
        [&["config", "--set", &format!("guard.hosts={APP_KEY}")][..], &[&format!("--{APP_KEY}")], &[APP_KEY]]
    {
        let mut command = program();
        command.args(arguments).env("FINICITY_APP_KEY", APP_KEY).env("FINICITY_CLIENT_SECRET", CLIENT_SECRET);
        let mut process = Process::start(command);
        process.allow_scrubbing();
        process.wait();
        assert!(process.output().contains("[scrubbed]"), "{arguments:?}: {}", process.output());
    }
}

#[test]
fn a_secret_used_as_a_path_argument_is_not_shown() {
    for arguments in [["--set", &format!("upstream.ca_file={APP_KEY}")], ["--config", APP_KEY]] {
        let mut command = program();
        command.arg("check").args(arguments).env("FINICITY_APP_KEY", APP_KEY);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(78));
        assert!(process.output().contains("a path (not shown"), "{arguments:?}: {}", process.output());
    }
}
