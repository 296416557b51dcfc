//! Google Secret Manager, against strict mock servers of its API, its token services and its metadata.

mod faults;
mod identities;
mod rotation;
mod server;

use std::time::Duration;

use finicity_proxy::{
    credentials::{
        self, CredentialSource, Credentials, GcpAmbient, GcpConfig, Problem, SourceConfig, StoreConfig, StoreFault,
    },
    error_chain,
};
use serde_json::json;

use self::server::{Google, SECRET};
use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET, TIMEOUT, TOKEN_PREFIX, canary,
    process::{Proxy, serve_command},
    upstream::{Reply, Upstream},
};

const UNUSABLE: &str = "cannot load the credentials; keeping the current ones";
const IN_USE: &str = "the new credentials obtained a token and are now in use";

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

/// A credential source for the secret.
struct Source {
    source: Box<dyn CredentialSource>,
    runtime: tokio::runtime::Runtime,
}

impl Source {
    fn new(google: &Google, ambient: GcpAmbient) -> Self {
        Self::with(google, ambient, |_, _| {})
    }

    /// Like [`new`](Self::new), with a changed configuration.
    fn with(google: &Google, ambient: GcpAmbient, change: impl FnOnce(&mut StoreConfig, &mut GcpConfig)) -> Self {
        let mut store = StoreConfig {
            poll_interval: Duration::from_millis(100),
            ca_file: Some(google.tls.ca_file()),
            egress_proxy: None,
        };
        let endpoint = google.tls.url().parse().unwrap();
        let mut gcp = GcpConfig { secret: SECRET.to_owned(), version: "latest".to_owned(), endpoint, ambient };
        change(&mut store, &mut gcp);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { source: SourceConfig::Gcp(Box::new((store, gcp))).open(), runtime }
    }

    fn try_load(&mut self) -> Result<Credentials, Vec<Problem>> {
        self.runtime.block_on(credentials::load(self.source.as_mut(), None))
    }

    /// Checks that it loads the credentials of this version.
    #[track_caller]
    fn assert_loads(&mut self, version: u32) {
        assert_eq!(self.try_load().unwrap().secret.expose(), &format!("{CLIENT_SECRET}{version}"));
    }

    /// Waits until it reports a change, or fails to poll.
    #[track_caller]
    fn changed(&mut self) -> Result<(), Problem> {
        self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, self.source.changed()).await.unwrap() })
    }

    /// Checks that a load and a poll fail with `fault`, and that the whole message contains each of `parts` and no secret.
    #[track_caller]
    fn assert_fails(&mut self, fault: StoreFault, parts: &[&str]) {
        let problems = self.try_load().unwrap_err();
        for problem in [&problems[0], &self.changed().unwrap_err()] {
            let text = error_chain::one_line(problem);
            let Problem::Store(error) = problem else { panic!("{text}") };
            assert_eq!(error.fault, fault, "{text}");
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text}");
            }
            canary::scan("the error", &format!("{text} {problem:?}"));
            assert!(!text.contains("canary"), "{text}");
        }
    }
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

/// Starts the proxy with credentials from `google`, as the service account of the machine, and waits until it has a token.
fn start(upstream: &Upstream, google: &Google, variables: &[(&str, &str)]) -> Proxy {
    let mut command = serve_command(upstream, variables);
    for name in ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"] {
        command.env_remove(name);
    }
    let ca_file = google.tls.ca_file().display().to_string();
    let defaults = [
        ("FINICITY__CREDENTIALS__SOURCE", "gcp"),
        ("FINICITY__CREDENTIALS__POLL_INTERVAL", "1s"),
        ("FINICITY__CREDENTIALS__CA_FILE", &ca_file),
        ("FINICITY__CREDENTIALS__GCP__SECRET", SECRET),
        ("FINICITY__CREDENTIALS__GCP__ENDPOINT", &google.tls.url()),
        ("GCE_METADATA_HOST", &google.metadata.to_string()),
        // Proxy variables must be ignored.
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("https_proxy", "http://127.0.0.1:1"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("ALL_PROXY", "http://127.0.0.1:1"),
    ];
    for (name, value) in defaults {
        if !variables.iter().any(|(other, _)| *other == name) {
            command.env(name, value);
        }
    }
    let proxy = Proxy::run(command);
    proxy.process.wait_for_log("token obtained");
    proxy
}

#[track_caller]
fn assert_serves(proxy: &Proxy) {
    assert_eq!(proxy.connect().get("/x").status, 200);
}
