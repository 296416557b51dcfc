//! Azure Key Vault, against strict mock servers on this machine. The vault and Microsoft Entra have their real names, through an egress
//! proxy.

mod faults;
mod identities;
mod server;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::process::Signal;
use serde_json::json;

use self::server::{Azure, CANARY, Endpoint, VAULT};
use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET, TOKEN_PREFIX,
    process::Proxy,
    upstream::{Reply, Upstream},
};

const UNUSABLE: &str = "cannot load the credentials; keeping the current ones";
const IN_USE: &str = "the new credentials obtained a token and are now in use";

/// The managed identity of the machine.
const MACHINE: Endpoint = Endpoint::Imds(None);

/// The text of the secret in `version`.
fn secret(version: u32) -> String {
    json!({
        "client_id": CLIENT_ID,
        "client_secret": format!("{CLIENT_SECRET}{version}"),
        "app_key": format!("{APP_KEY}{version}"),
        "other": "of another program",
    })
    .to_string()
}

/// An upstream that accepts ID, secret and key of the same version of the secret, and rejects version 9.
fn upstream() -> Upstream {
    Upstream::start_raw(|request| {
        let key = request.headers("finicity-app-key")[0].strip_prefix(APP_KEY).unwrap().to_owned();
        if request.target() == "/oauth/token" {
            let call: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(call["client_secret"], format!("{CLIENT_SECRET}{key}"), "id, secret and key change together");
            return if key == "9" {
                Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#)
            } else {
                Reply::json(&format!(
                    r#"{{"access_token":"{TOKEN_PREFIX}{key}","token_type":"Bearer","expires_in":3600}}"#
                ))
            };
        }
        if request.headers("authorization") == [format!("Bearer {TOKEN_PREFIX}{key}")] {
            Reply::json("{}")
        } else {
            Reply::status(403, "Forbidden", "{}")
        }
    })
}

fn start(upstream: &Upstream, variables: &BTreeMap<String, String>) -> Proxy {
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Proxy::start_with(upstream, &variables)
}

#[track_caller]
fn assert_serves(proxy: &Proxy) {
    assert_eq!(proxy.connect().get("/x").status, 200);
}

/// Checks that the output, with all levels of all crates, contains no token, no App Service header and no error text of Azure.
#[track_caller]
fn assert_shows_nothing(proxy: &Proxy) {
    let output = proxy.process.output();
    let line = output.lines().find(|line| line.contains(CANARY) || line.contains("canary-message"));
    assert_eq!(line, None);
}

#[test]
fn a_new_version_under_load_fails_no_request() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_managed_identity());
    azure.wait_for_authorized_requests(3);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while !done.load(Relaxed) {
                    assert_eq!(client.get("/x").status, 200);
                }
            });
        }
        azure.put(&secret(2));
        proxy.process.wait_for_log(IN_USE);
        proxy.connect().get("/after");
        done.store(true, Relaxed);
    });
    let after = upstream.received().into_iter().find(|request| request.target() == "/after").unwrap();
    assert_eq!(after.headers("authorization"), [format!("Bearer {TOKEN_PREFIX}2")]);
    assert_eq!(upstream.token_requests(), 2, "an unchanged version is tried again");
    assert_eq!(azure.issued(), 1, "a valid vault token is not obtained again");
    assert!(proxy.process.logs(UNUSABLE).is_empty());
    assert_shows_nothing(&proxy);
}

#[test]
fn sighup_polls_immediately_and_a_wrong_secret_is_tried_once() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let mut variables = azure.variables_of_managed_identity();
    variables.insert("FINICITY__CREDENTIALS__POLL_INTERVAL".to_owned(), "24h".to_owned());
    let proxy = start(&upstream, &variables);
    azure.put(&secret(9));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log(
        "new credentials rejected; they are not tried again, and the old ones stay in use: correct the new credentials",
    );
    proxy.process.signal(Signal::HUP);
    azure.wait_for_authorized_requests(3);
    assert_serves(&proxy);
    azure.put(&secret(2));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log(IN_USE);
    assert_eq!(upstream.token_requests(), 3);
    assert_shows_nothing(&proxy);
}

#[test]
fn the_configured_version_is_read() {
    let (upstream, azure) = (upstream(), Azure::new("canary-not-this-one", MACHINE));
    let version = azure.put(&secret(1));
    azure.put(&secret(2));
    let mut variables = azure.variables_of_managed_identity();
    variables.insert("FINICITY__CREDENTIALS__AZURE__VERSION".to_owned(), version.clone());
    let proxy = start(&upstream, &variables);
    azure.wait_for_authorized_requests(3);
    assert_eq!(upstream.token_requests(), 1);
    azure.delete();
    let line = proxy.process.wait_for_line(|line| line.contains(UNUSABLE));
    let expected = format!(
        "cannot read secret finicity in version {version} in Azure Key Vault {VAULT}: the secret or version does not exist"
    );
    assert!(line.contains(&expected), "{line}");
}
