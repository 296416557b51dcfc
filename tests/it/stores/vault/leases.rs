//! Leases are renewed in time, or replaced by a login if they cannot be renewed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use finicity_proxy::credentials::VaultAuth;
use serde_json::json;

use super::{Source, members, server::Server, token_auth, usual};
use crate::support::{
    CLIENT_SECRET, TIMEOUT,
    upstream::{ReceivedRequest, Reply, Upstream},
};

fn login(version: u64, lease_s: u64, renewable: bool) -> Reply {
    let token = format!("canarytoken-{version}");
    Reply::json(
        &json!({"auth": {"client_token": token, "lease_duration": lease_s, "renewable": renewable}}).to_string(),
    )
}

fn secret() -> Reply {
    let metadata = json!({"version": 1, "created_time": "2026-01-31T09:00:00Z", "destroyed": false});
    Reply::json(&json!({"data": {"data": usual(), "metadata": metadata}}).to_string())
}

/// The targets that `upstream` received, without the API version.
fn targets(upstream: &Upstream) -> Vec<String> {
    upstream.received().iter().map(|request| request.target().trim_start_matches("/v1/").to_owned()).collect()
}

/// Loads from `upstream`, and keeps the lease alive until `count` requests match and `connections` connections have been closed. The secret
/// is polled once an hour.
fn keep_alive(upstream: &Upstream, connections: usize, count: usize, matches: impl Fn(&ReceivedRequest) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("id"), "canary").unwrap();
    let id = dir.path().join("id");
    let auth = VaultAuth::AppRole { role_id_file: id.clone(), secret_id_file: id };
    let mut source = Source::with(&upstream.url(), auth, |store, _| {
        store.ca_file = Some(upstream.ca_file());
        store.poll_interval = Duration::from_secs(3600);
    });
    assert_eq!(source.load(), CLIENT_SECRET);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            let Source { source, runtime } = &mut source;
            runtime.block_on(async {
                tokio::select! {
                    changed = source.changed() => panic!("{changed:?}"),
                    _ = stopped => {}
                    () = tokio::time::sleep(TIMEOUT) => {}
                }
            });
        });
        upstream.wait_for_requests(count, matches);
        // Each request has its own connection, which is closed after its response.
        upstream.wait_for_closed(connections);
        drop(stop);
    });
    // The token is reused without a login.
    let before = upstream.received().len();
    assert_eq!(source.load(), CLIENT_SECRET);
    assert_eq!(targets(upstream)[before..], ["secret/data/finicity"]);
}

#[test]
fn a_lease_is_renewed_between_polls_with_its_own_token() {
    let upstream = Upstream::start_raw(|request| match request.target() {
        "/v1/auth/approle/login" => login(1, 9, true),
        "/v1/auth/token/renew-self" => {
            assert_eq!(request.headers("x-vault-token"), ["canarytoken-1"]);
            login(1, 3600, true)
        }
        _ => secret(),
    });
    keep_alive(&upstream, 3, 1, |request| request.target() == "/v1/auth/token/renew-self");
    let expected = ["auth/approle/login", "secret/data/finicity", "auth/token/renew-self", "secret/data/finicity"];
    assert_eq!(targets(&upstream), expected);
}

/// Checks that a lease that is `renewable` is replaced by a login, if a renewal gets the response `renewal`.
#[track_caller]
fn assert_replaced(renewable: bool, renewal: Option<Reply>) {
    let logins = AtomicU64::new(0);
    let renewals: &[&str] = if renewal.is_some() { &["auth/token/renew-self"] } else { &[] };
    let renewal = Mutex::new(renewal);
    let upstream = Upstream::start_raw(move |request| match request.target() {
        "/v1/auth/approle/login" => match logins.fetch_add(1, SeqCst) {
            0 => login(1, 9, renewable),
            _ => login(2, 3600, renewable),
        },
        "/v1/auth/token/renew-self" => renewal.lock().unwrap().take().unwrap(),
        _ => secret(),
    });
    keep_alive(&upstream, 3 + renewals.len(), 2, |request| request.target() == "/v1/auth/approle/login");
    let first = ["auth/approle/login", "secret/data/finicity"];
    assert_eq!(targets(&upstream), [&first[..], renewals, &first].concat());
}

#[test]
fn a_non_renewable_lease_is_replaced_by_a_login() {
    assert_replaced(false, None);
}

#[test]
fn a_lease_at_its_maximum_is_replaced_by_a_login() {
    assert_replaced(true, Some(login(1, 1, true)));
}

#[test]
fn a_lease_with_a_rejected_renewal_is_replaced_by_a_login() {
    assert_replaced(true, Some(Reply::status(400, "Bad Request", "{}")));
}

#[test]
fn an_expired_lease_loses_no_poll() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    // Tokens expire between two polls.
    let auth = server.app_role(dir.path(), &json!({"token_ttl": "5s", "token_explicit_max_ttl": "5s"}));
    let mut source = Source::with(&server.url(), auth, |store, _| store.poll_interval = Duration::from_secs(12));
    assert_eq!(source.load(), CLIENT_SECRET);
    server.write(&members("another"));
    source.changed().unwrap();
    assert_eq!(source.load(), "another");
}

#[test]
fn a_token_from_a_file_is_renewed() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    // The token would expire before the first poll.
    let token = server.create_token(&json!({"policies": ["finicity"], "period": "9s"}));
    let auth = token_auth(dir.path(), &token);
    let mut source = Source::with(&server.url(), auth, |store, _| store.poll_interval = Duration::from_secs(15));
    assert_eq!(source.load(), CLIENT_SECRET);
    server.write(&members("another"));
    source.changed().unwrap();
    assert_eq!(source.load(), "another");
}

#[test]
fn a_token_with_limited_uses_is_replaced() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let mut source = Source::new(&server.url(), server.app_role(dir.path(), &json!({"token_num_uses": 1})));
    for _ in 0..3 {
        assert_eq!(source.load(), CLIENT_SECRET);
    }
}

#[test]
fn a_failed_renewal_is_retried_while_the_lease_lasts() {
    let renewals = AtomicU64::new(0);
    let upstream = Upstream::start_raw(move |request| match request.target() {
        "/v1/auth/approle/login" => login(1, 15, true),
        "/v1/auth/token/renew-self" => match renewals.fetch_add(1, SeqCst) {
            0 => Reply::status(500, "Internal Server Error", "{}"),
            _ => login(1, 3600, true),
        },
        _ => secret(),
    });
    keep_alive(&upstream, 4, 2, |request| request.target() == "/v1/auth/token/renew-self");
    let renewals = ["auth/token/renew-self", "auth/token/renew-self"];
    let expected = [&["auth/approle/login", "secret/data/finicity"][..], &renewals, &["secret/data/finicity"]].concat();
    assert_eq!(targets(&upstream), expected);
}
