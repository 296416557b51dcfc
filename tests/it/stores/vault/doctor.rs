//! `doctor` with credentials in Vault: a fault of the store fails the corresponding step, with a remedy.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    rotation::{from_vault, upstream},
    server::Server,
    usual,
};
use crate::support::{
    canary::scan,
    process::{Process, program, serve_command},
    upstream::Upstream,
};

/// The exit code and the steps of `doctor --json --no-token-request`, with credentials from the server at `address`.
fn doctor(upstream: &Upstream, address: &str, dir: &Path) -> (i32, Value) {
    let serve = serve_command(upstream, &[]);
    let mut command = program();
    command.args(["doctor", "--json", "--no-token-request"]);
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    from_vault(&mut command, address, dir);
    command.env_remove("FINICITY__LOG__LEVEL");
    let mut process = Process::start(command);
    let code = process.wait().code().unwrap();
    let output = process.output();
    scan("the report", &output);
    (code, serde_json::from_str(output.trim()).unwrap_or_else(|error| panic!("{error}: {output}")))
}

fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap()
}

#[test]
fn a_store_fault_fails_its_step_with_a_remedy() {
    let (server, dir, upstream) = (Server::start(), tempfile::tempdir().unwrap(), upstream());
    server.write(&usual());
    server.app_role(dir.path(), &json!({}));
    let (_, report) = doctor(&upstream, &server.url(), dir.path());
    assert_eq!(step(&report, "credential_source")["outcome"], "ok", "{report}");
    assert_eq!(step(&report, "store_identity")["outcome"], "ok", "{report}");

    server.forbid();
    let (code, report) = doctor(&upstream, &server.url(), dir.path());
    let identity = step(&report, "store_identity");
    assert_eq!((code, &identity["outcome"]), (11, &"failed".into()), "{report}");
    assert!(identity["detail"].as_str().unwrap().contains("do not permit reading secret/data/finicity"), "{report}");
    assert!(identity["remedy"].as_str().unwrap().contains("path \"secret/data/finicity\""), "{report}");

    server.seal();
    let (code, report) = doctor(&upstream, &server.url(), dir.path());
    let source = step(&report, "credential_source");
    assert_eq!((code, &source["outcome"]), (10, &"failed".into()), "{report}");
    assert!(source["detail"].as_str().unwrap().contains("the server is sealed (503)"), "{report}");
    assert!(source["remedy"].as_str().unwrap().contains("unseal it"), "{report}");
}
