//! `config --changed`, `config explain` and `config init`.

use std::fs;

use crate::support::process::{Process, program};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::start(command);
    (process.wait().code(), process.output())
}

#[test]
fn config_changed_shows_only_differences_and_sources() {
    assert_eq!(run(&["config", "--changed"], &[]), (Some(0), "# every key has its default".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.toml");
    fs::write(&path, "[limits]\nqueue = 256\nqueue_timeout = \"1000ms\"\nheaders = 65\n").unwrap();
    let path = path.display().to_string();
    let variables = [("FINICITY__LOG__LEVEL", "debug"), ("FINICITY_IMAGE__ADMIN__SOCKET", "/image.sock")];
    let (code, output) =
        run(&["config", "--changed", "--config", &path, "--set", "shutdown.drain_delay=5s"], &variables);
    let expected = format!(
        "[admin]\nsocket = \"/image.sock\" # FINICITY_IMAGE__ADMIN__SOCKET\n\n[limits]\nheaders = 65 # {path}\n\n[log]\n\
         level = \"debug\" # FINICITY__LOG__LEVEL\n\n[shutdown]\ndrain_delay = \"5s\" # --set"
    );
    assert_eq!((code, output.trim_end()), (Some(0), expected.as_str()));
    let (code, output) = run(&["config", "--changed", "--set", "log.levle=x"], &[]);
    assert!(code == Some(78) && output.contains("did you mean log.level?"), "{output}");
}

#[test]
fn explain_shows_a_key_and_its_error() {
    let (code, output) = run(&["config", "explain", "limits.queue", "--set", "limits.queue=7"], &[]);
    assert_eq!(code, Some(0), "{output}");
    for part in [
        "limits.queue\n  Maximum number of requests",
        "type         whole number from 0 to 100000",
        "default      256",
        "value        \"7\", set by --set",
        "variable     FINICITY__LIMITS__QUEUE",
        "example      limits.queue = 256",
    ] {
        assert!(output.contains(part), "{part:?} is not in\n{output}");
    }
    let (code, output) = run(&["config", "explain", "FINICITY__LIMITS__QUEUE"], &[("FINICITY__LIMITS__QUEUE", "-1")]);
    assert!(code == Some(78) && output.contains("must be a whole number from 0 to 100000"), "{output}");
    let (code, output) = run(&["config", "explain", "shutdown"], &[]);
    assert!(
        code == Some(0) && output.contains("shutdown.drain_delay\n") && output.contains("shutdown.drain_timeout\n")
    );
}

#[test]
fn explain_suggests_similar_keys_and_shows_no_secret() {
    for (key, meant) in [
        ("limits.queu", "did you mean limits.queue?"),
        ("drain_delay", "did you mean shutdown.drain_delay?"),
        ("client_secret", "set FINICITY_CLIENT_SECRET or FINICITY_CLIENT_SECRET_FILE"),
        ("canary-Secret+9b/2=e!", "unknown key"),
    ] {
        let (code, output) = run(&["config", "explain", key], &[]);
        assert!(code == Some(2) && output.contains(meant) && !output.contains("canary"), "{key}: {output}");
    }
    let url = "http://name:canary-Egress+9b@proxy.internal";
    let (code, output) =
        run(&["config", "explain", "upstream.egress_proxy"], &[("FINICITY__UPSTREAM__EGRESS_PROXY", url)]);
    assert!(code == Some(78) && output.contains("[redacted]") && !output.contains("canary"), "{output}");
}

#[test]
fn init_writes_defaults_and_never_overwrites_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let run_there = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).current_dir(dir.path());
        let mut process = Process::start(command);
        (process.wait().code(), process.output())
    };
    let (code, output) = run_there(&["config", "init"]);
    assert!(code == Some(0) && output.contains("finicity-proxy.toml"), "{output}");
    let file = dir.path().join("finicity-proxy.toml");
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains("\n[limits]\n") && written.contains("\n#queue = 256\n"), "{written}");
    let changed = run_there(&["config", "--changed", "--config", "finicity-proxy.toml"]);
    assert_eq!(changed, (Some(0), "# every key has its default".to_owned()));

    fs::write(&file, "mine").unwrap();
    let (code, output) = run_there(&["config", "init"]);
    assert!(code == Some(1) && output.contains("--force"), "{output}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(run_there(&["config", "init", "--force"]).0, Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), written);

    let (code, output) = run_there(&["config", "init", "-"]);
    assert!(code == Some(0) && output.trim_end() == written.trim_end());
    assert_eq!(run_there(&["config", "init", "other/file.toml"]).0, Some(1));
}
