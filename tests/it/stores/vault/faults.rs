//! Faults of the secret, the server and the connection: the message of each, and that a load succeeds afterwards.

use std::fs;

use finicity_proxy::credentials::{KvVersion, StoreFault};
use serde_json::{Value, json};

use super::{Source, members, server::Server, token_auth, usual};
use crate::support::{
    CLIENT_SECRET,
    egress::EgressProxy,
    upstream::{ClosedPort, Reply, Upstream},
};

#[test]
fn a_missing_policy_is_reported_with_its_path() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let auth = server.app_role(dir.path(), &json!({}));
    server.set_policy(r#"path "secret/metadata/finicity" { capabilities = ["read"] }"#);
    let tokens = server.accessors().len();
    let mut source = Source::new(&server.url(), auth);
    for _ in 0..3 {
        source.assert_fails(
            StoreFault::IdentityRefused,
            &[
                "the policies of this identity do not permit reading secret/data/finicity (403)",
                r#"add this to its policies: path "secret/data/finicity" { capabilities = ["read"] }; also check credentials.vault.mount"#,
            ],
        );
    }
    assert_eq!(server.accessors().len(), tokens, "an unusable token is revoked");
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn deleted_and_destroyed_versions_are_unavailable() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let mut source = Source::new(&server.url(), server.app_role(dir.path(), &json!({})));
    server.call("DELETE", "secret/data/finicity", &Value::Null);
    source.assert_fails(
        StoreFault::VersionUnavailable,
        &["its newest version, 1, is deleted (404)", "`vault kv undelete -mount=secret -versions=1 finicity`"],
    );
    server.call("PUT", "secret/undelete/finicity", &json!({"versions": [1]}));
    assert_eq!(source.load(), CLIENT_SECRET);
    server.call("PUT", "secret/destroy/finicity", &json!({"versions": [1]}));
    source.assert_fails(StoreFault::VersionUnavailable, &["version, 1, is destroyed (404); write a new version"]);
    server.write(&members("another"));
    assert_eq!(source.load(), "another");
}

#[test]
fn a_missing_secret_or_mount_is_reported() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let auth = server.app_role(dir.path(), &json!({}));
    server.set_policy(r#"path "*" { capabilities = ["read"] }"#);
    server.call("POST", "sys/mounts/old", &json!({"type": "kv", "options": {"version": "1"}}));
    let mut missing = Source::new(&server.url(), auth.clone());
    missing.assert_fails(
        StoreFault::NotFound,
        &["there is no secret at secret/data/finicity (404)", "`vault kv put -mount=secret finicity client_id=… "],
    );
    server.write(&usual());
    assert_eq!(missing.load(), CLIENT_SECRET);

    let mut no_mount = Source::with(&server.url(), auth.clone(), |_, vault| vault.mount = "nowhere".to_owned());
    no_mount.assert_fails(StoreFault::NotFound, &["no secrets engine at nowhere (404)", "credentials.vault.mount"]);
    let mut newer = Source::with(&server.url(), auth.clone(), |_, vault| vault.kv = KvVersion::V1);
    let parts = ["the secrets engine at secret is KV version 2 (404)", "set credentials.vault.kv to 2"];
    newer.assert_fails(StoreFault::NotFound, &parts);
    let mut older = Source::with(&server.url(), auth.clone(), |_, vault| vault.mount = "old".to_owned());
    older
        .assert_fails(StoreFault::NotFound, &["no secret at old/data/finicity (404)", "set credentials.vault.kv to 1"]);
    let mut no_namespace = Source::with(&server.url(), auth, |_, vault| vault.namespace = Some("nowhere".to_owned()));
    let parts = ["in namespace nowhere in Vault", "no such namespace (404)", "correct credentials.vault.namespace"];
    no_namespace.assert_fails(StoreFault::NotFound, &parts);
}

#[test]
fn a_namespace_is_sent_with_each_request() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.call("POST", "sys/namespaces/team-a", &json!({}));
    let call = |method: &str, path: &str, body: Value| server.call_in("team-a", method, path, &body);
    call("POST", "sys/mounts/kv", json!({"type": "kv", "options": {"version": "2"}}));
    call("POST", "kv/data/apps/finicity", json!({"data": usual()}));
    call("POST", "sys/policies/acl/read", json!({"policy": r#"path "kv/data/apps/*" { capabilities = ["read"] }"#}));
    let created = call("POST", "auth/token/create", json!({"policies": ["read"], "ttl": "1h"}));
    let auth = token_auth(dir.path(), created["auth"]["client_token"].as_str().unwrap());
    let mut source = Source::with(&server.url(), auth, |_, vault| {
        vault.namespace = Some("team-a".to_owned());
        (vault.mount, vault.path) = ("kv".to_owned(), "apps/finicity".to_owned());
    });
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn a_malformed_secret_is_reported_and_never_shown() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let mut source = Source::new(&server.url(), server.app_role(dir.path(), &json!({})));
    server.write(&json!({"client_id": {"nested": CLIENT_SECRET}}));
    let problems = source.try_load().unwrap_err();
    super::assert_fault(&problems[0], StoreFault::Malformed, &["the member client_id is not a string"]);
    server.write(&json!({"client_id": "i", "client_secret": CLIENT_SECRET}));
    let problems = source.try_load().unwrap_err();
    assert_eq!(problems.len(), 1);
    let text = problems[0].to_string();
    assert!(text.starts_with("app_key of secret secret/finicity in Vault at http://127.0.0.1:"), "{text}");
    assert!(text.ends_with(" is not set: add this member to the JSON object"), "{text}");
    server.write(&usual());
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn a_sealed_server_is_unreachable_until_it_is_unsealed() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let mut source = Source::new(&server.url(), server.app_role(dir.path(), &json!({})));
    server.seal();
    let parts = ["the server is sealed (503)", "unseal it; `vault status` shows"];
    source.assert_fails(StoreFault::Unreachable, &parts);
    server.unseal();
    assert_eq!(source.load(), CLIENT_SECRET);
    server.seal();
    source.assert_fails(StoreFault::Unreachable, &parts);
    server.unseal();
    // The poll after the failure triggers a load.
    source.changed().unwrap();
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn each_error_response_has_its_own_fault() {
    let huge = format!(r#"{{"data": "{}"}}"#, "x".repeat(1024 * 1024));
    let cases = [
        (
            (429, "Too Many Requests", "{\"errors\":[\"canary-Secret+9b/2=e!\"]}"),
            StoreFault::Throttled,
            "(429); raise the rate limit",
        ),
        ((503, "Service Unavailable", "{}"), StoreFault::Unreachable, "the server is not ready (503)"),
        ((500, "Internal Server Error", "{}"), StoreFault::Unreachable, "the server failed (500)"),
        ((502, "Bad Gateway", "<html>"), StoreFault::Unreachable, "the server failed (502)"),
        ((412, "Precondition Failed", "{}"), StoreFault::Unreachable, "the server failed (412)"),
        ((307, "Temporary Redirect", "{}"), StoreFault::Unreachable, "it redirects to another server (307)"),
        ((200, "OK", "<html>canary-Secret+9b/2=e!"), StoreFault::Unreachable, "response (200) is not from Vault"),
        ((200, "OK", "{\"data\":{\"ttl\":0}}"), StoreFault::Unreachable, "response (200) is not from Vault"),
        ((200, "OK", huge.as_str()), StoreFault::Malformed, "the response is longer than 1048576 bytes"),
        ((405, "Method Not Allowed", "{}"), StoreFault::Unreachable, "response (405) is not from Vault"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let auth = token_auth(dir.path(), "canarytoken");
    for ((status, reason, body), fault, expected) in cases {
        let body = body.to_owned();
        let upstream = Upstream::start_raw(move |request| {
            assert_eq!(request.headers("x-vault-request"), ["true"]);
            match request.target() {
                "/v1/auth/token/lookup-self" => Reply::json(r#"{"data":{"ttl":0,"renewable":false}}"#),
                _ => Reply::status(status, reason, &body),
            }
        });
        let trusting = |ca_file| Source::with(&upstream.url(), auth.clone(), |store, _| store.ca_file = Some(ca_file));
        trusting(upstream.ca_file()).assert_fails(fault, &[expected]);
    }
}

#[test]
fn unreachable_and_untrusted_servers_are_distinguished() {
    let dir = tempfile::tempdir().unwrap();
    let auth = token_auth(dir.path(), "canarytoken");
    let port = ClosedPort::new();
    let parts = [port.url().as_str(), "cannot be reached", "check the address of the store"].map(str::to_owned);
    Source::new(&port.url(), auth.clone()).assert_fails(StoreFault::Unreachable, &parts.each_ref().map(String::as_str));

    let upstream = Upstream::start_raw(|_| panic!("no request is sent to an untrusted server"));
    let untrusted = "is self-signed or issued by an untrusted CA; set credentials.ca_file";
    Source::new(&upstream.url(), auth.clone()).assert_fails(StoreFault::UntrustedTls, &[&upstream.url(), untrusted]);
    let ca_file = dir.path().join("ca.pem");
    let mut source = Source::with(&upstream.url(), auth, |store, _| store.ca_file = Some(ca_file.clone()));
    let shown = ca_file.display().to_string();
    source.assert_fails(StoreFault::UntrustedTls, &["credentials.ca_file cannot be used", &shown]);
    fs::write(&ca_file, "canary-Secret+9b/2=e!").unwrap();
    source.assert_fails(StoreFault::UntrustedTls, &["credentials.ca_file cannot be used", "contains no certificate"]);
}

#[test]
fn the_egress_proxy_is_used_only_for_tls() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let root = server.create_token(&json!({"policies": ["root"]}));
    let auth = token_auth(dir.path(), &root);
    let egress = EgressProxy::start();
    // Plain HTTP is only for loopback, and an egress proxy would see the token.
    let proxied = |store: &mut finicity_proxy::credentials::StoreConfig| {
        store.egress_proxy = Some(egress.url().parse().unwrap());
    };
    assert_eq!(Source::with(&server.url(), auth.clone(), |store, _| proxied(store)).load(), CLIENT_SECRET);
    assert!(egress.heads().is_empty());

    let upstream = Upstream::start_raw(|request| match request.target() {
        "/v1/auth/token/lookup-self" => Reply::json(r#"{"data":{"ttl":0,"renewable":false}}"#),
        _ => Reply::json(
            &json!({"data": {"data": usual(), "metadata": {"version": 1, "created_time": "", "destroyed": false}}})
                .to_string(),
        ),
    });
    let mut source = Source::with(&upstream.url(), auth, |store, _| {
        store.ca_file = Some(upstream.ca_file());
        proxied(store);
    });
    egress.respond_with(407);
    let parts = ["cannot be reached: the egress proxy did not open a tunnel", "credentials.egress_proxy"];
    source.assert_fails(StoreFault::Unreachable, &parts);
    egress.respond_with(200);
    assert_eq!(source.load(), CLIENT_SECRET);
    assert!(egress.heads().iter().all(|head| head.starts_with(&format!("CONNECT {} ", upstream.authority()))));
}
