//! The store while the proxy runs: new versions, faults, and what is logged.

use std::{fs, path::Path, process::Command};

use finicity_proxy::credentials::KvVersion;
use serde_json::{Value, json};

use super::{Source, members, server::Server, token_auth, usual};
use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    canary::{encodings, scan},
    process::{Process, Proxy, program, serve_command},
    upstream::{Reply, Upstream, token_response},
};

#[test]
fn each_new_version_of_kv_2_is_a_change() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let mut source = Source::new(&server.url(), server.app_role(dir.path(), &json!({})));
    assert_eq!(source.load(), CLIENT_SECRET);
    server.write(&members("second"));
    source.changed().unwrap();
    assert_eq!(source.load(), "second");
    // A secret that is recreated at version 1 is a change.
    server.call("DELETE", "secret/metadata/finicity", &Value::Null);
    server.write(&members("third"));
    source.changed().unwrap();
    assert_eq!(source.load(), "third");
}

#[test]
fn changed_content_is_a_new_version_in_kv_1() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.call("POST", "sys/mounts/old", &json!({"type": "kv", "options": {"version": "1"}}));
    server.call("POST", "old/team/finicity", &usual());
    server.set_policy(r#"path "old/team/finicity" { capabilities = ["read"] }"#);
    let token = server.create_token(&json!({"policies": ["finicity"]}));
    let mut source = Source::with(&server.url(), token_auth(dir.path(), &token), |_, vault| {
        (vault.mount, vault.path, vault.kv) = ("old".to_owned(), "team/finicity".to_owned(), KvVersion::V1);
    });
    assert_eq!(source.load(), CLIENT_SECRET);
    server.call("POST", "old/team/finicity", &members("second"));
    source.changed().unwrap();
    assert_eq!(source.load(), "second");
    server.call("DELETE", "old/team/finicity", &Value::Null);
    source.assert_fails(
        finicity_proxy::credentials::StoreFault::NotFound,
        &["there is no secret at old/team/finicity (404)", "set credentials.vault.kv to 2"],
    );
}

/// The proxy with credentials from `server`, with the AppRole in `dir`. Proxy variables in the environment must be ignored.
pub(super) fn proxy(upstream: &Upstream, server: &Server, dir: &Path) -> Proxy {
    let mut command = serve_command(upstream, &[]);
    from_vault(&mut command, &server.url(), dir);
    Proxy::run(command)
}

/// Configures `command` to read credentials from the server at `address`, with the AppRole in `dir`.
pub(super) fn from_vault(command: &mut Command, address: &str, dir: &Path) {
    for name in ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"] {
        command.env_remove(name);
    }
    command
        .env("FINICITY__CREDENTIALS__SOURCE", "vault")
        .env("FINICITY__CREDENTIALS__POLL_INTERVAL", "1s")
        .env("FINICITY__CREDENTIALS__VAULT__ADDRESS", address)
        .env("FINICITY__CREDENTIALS__VAULT__PATH", "finicity")
        .env("FINICITY__CREDENTIALS__VAULT__AUTH", "approle")
        .env("FINICITY__CREDENTIALS__VAULT__ROLE_ID_FILE", dir.join("role_id"))
        .env("FINICITY__CREDENTIALS__VAULT__SECRET_ID_FILE", dir.join("secret_id"));
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1");
    }
    command.env("VAULT_TOKEN", "canary").env("VAULT_ADDR", "http://127.0.0.1:1");
}

#[test]
fn check_contacts_no_server() {
    let mut command = program();
    command.arg("check").env("FINICITY__UPSTREAM__URL", "https://localhost:1");
    from_vault(&mut command, "http://127.0.0.1:1", Path::new("/nowhere"));
    let mut check = Process::start(command);
    assert!(check.wait().success(), "{}", check.output());
    assert!(check.output().contains("secret secret/finicity in Vault at http://127.0.0.1:1"), "{}", check.output());
}

/// The number of store errors with this fault.
pub(super) fn failures(proxy: &Proxy, fault: &str) -> u64 {
    let name = format!("finicity_proxy_credentials_store_errors_total{{fault=\"{fault}\"}} ");
    let page = proxy.ops().get("/metrics").text();
    page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

/// An upstream that accepts `CLIENT_SECRET` and client secrets that begin with "good".
pub(super) fn upstream() -> Upstream {
    Upstream::start_raw(|request| {
        if request.target() != "/oauth/token" {
            return Reply::json("{}");
        }
        let call: Value = serde_json::from_slice(&request.body).unwrap();
        let secret = call["client_secret"].as_str().unwrap();
        if secret == CLIENT_SECRET || secret.starts_with("good") {
            Reply::json(&token_response(1, 3600))
        } else {
            Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#)
        }
    })
}

#[test]
fn a_wrong_secret_is_tried_once_and_the_old_one_kept() {
    let (server, dir, upstream) = (Server::start(), tempfile::tempdir().unwrap(), upstream());
    server.write(&usual());
    server.app_role(dir.path(), &json!({}));
    let proxy = proxy(&upstream, &server, dir.path());
    proxy.process.wait_for_log("token obtained");
    server.write(&members("wrong"));
    proxy.process.wait_for_line(|line| line.contains("invalid_client") || line.contains("rejected"));
    assert_eq!(proxy.connect().get("/x").status, 200);
    server.write(&members("good-one"));
    upstream.wait_for_requests(1, |request| String::from_utf8_lossy(&request.body).contains("good-one"));
    let bodies = upstream.received();
    let wrong = bodies.iter().filter(|request| String::from_utf8_lossy(&request.body).contains("wrong")).count();
    assert_eq!(wrong, 1);
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn a_fault_while_serving_is_counted_and_credentials_kept() {
    let (server, dir, upstream) = (Server::start(), tempfile::tempdir().unwrap(), upstream());
    server.write(&usual());
    server.app_role(dir.path(), &json!({}));
    let proxy = proxy(&upstream, &server, dir.path());
    proxy.process.wait_for_log("token obtained");
    let wait_for_fault = |fault: &str, message: &str| {
        proxy.process.wait_for_line(|line| line.contains("cannot load the credentials") && line.contains(message));
        assert!(failures(&proxy, fault) >= 1, "{fault}");
        assert_eq!(proxy.connect().get("/x").status, 200);
    };
    server.forbid();
    wait_for_fault("identity_refused", "do not permit reading secret/data/finicity (403)");
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    server.call("DELETE", "secret/data/finicity", &Value::Null);
    wait_for_fault("version_unavailable", "its newest version, 1, is deleted");
    server.seal();
    wait_for_fault("unreachable", "the server is sealed (503)");
    server.unseal();
    server.write(&members("good-again"));
    upstream.wait_for_requests(1, |request| String::from_utf8_lossy(&request.body).contains("good-again"));
    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 1);
}

#[test]
fn no_store_secret_is_logged_at_trace() {
    let (server, dir, upstream) = (Server::start(), tempfile::tempdir().unwrap(), upstream());
    server.write(&usual());
    server.app_role(dir.path(), &json!({"token_ttl": "2s"}));
    let secret_id = fs::read_to_string(dir.path().join("secret_id")).unwrap().trim().to_owned();
    let role_id = fs::read_to_string(dir.path().join("role_id")).unwrap().trim().to_owned();
    let mut proxy = proxy(&upstream, &server, dir.path());
    proxy.process.wait_for_log("token obtained");
    proxy.process.wait_for_log("renewed the lease of the Vault token");
    server.write(&json!({"client_id": CLIENT_ID, "client_secret": "good-second-secret", "app_key": APP_KEY}));
    upstream.wait_for_requests(1, |request| String::from_utf8_lossy(&request.body).contains("good-second-secret"));
    proxy.process.signal(rustix::process::Signal::TERM);
    proxy.process.wait();
    let output = proxy.process.output();
    assert!(output.contains(r#""level":"TRACE""#) && output.contains("hyper_util"), "all crates log at TRACE");
    scan("the log", &output);
    for secret in [secret_id, role_id, "good-second-secret".to_owned()] {
        for form in encodings(&secret) {
            assert!(!output.contains(&form), "the log contains {form}");
        }
    }
    // The prefixes of server tokens.
    let token = output.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_')).find(|word| {
        let rest = word.strip_prefix("s.").or_else(|| word.strip_prefix("hvs."));
        rest.is_some_and(|rest| rest.len() >= 20)
    });
    assert_eq!(token, None);
}
