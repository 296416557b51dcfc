//! Vault, against a real OpenBao server. Responses that it cannot be made to send come from the mock upstream.

mod doctor;
mod faults;
mod leases;
mod logins;
mod rotation;
mod server;
mod startup;

use std::{fs, path::Path, time::Duration};

use finicity_proxy::{
    credentials::{
        self, CredentialSource, Credentials, KvVersion, Problem, SourceConfig, StoreConfig, StoreFault, VaultAuth,
        VaultConfig,
    },
    error_chain,
};
use serde_json::{Value, json};

use crate::support::{APP_KEY, CLIENT_ID, CLIENT_SECRET, TIMEOUT, canary};

/// A credential source for the secret `finicity` of the server at `address`.
struct Source {
    source: Box<dyn CredentialSource>,
    runtime: tokio::runtime::Runtime,
}

impl Source {
    fn new(address: &str, auth: VaultAuth) -> Self {
        Self::with(address, auth, |_, _| {})
    }

    /// Like [`new`](Self::new), with a changed configuration.
    fn with(address: &str, auth: VaultAuth, change: impl FnOnce(&mut StoreConfig, &mut VaultConfig)) -> Self {
        let mut store = StoreConfig { poll_interval: Duration::from_millis(500), ca_file: None, egress_proxy: None };
        let mut vault = VaultConfig {
            address: address.parse().unwrap(),
            mount: "secret".to_owned(),
            path: "finicity".to_owned(),
            kv: KvVersion::V2,
            namespace: None,
            auth,
        };
        change(&mut store, &mut vault);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { source: SourceConfig::Vault(Box::new((store, vault))).open(), runtime }
    }

    fn try_load(&mut self) -> Result<Credentials, Vec<Problem>> {
        self.runtime.block_on(credentials::load(self.source.as_mut(), None))
    }

    /// Loads the credentials, and returns the client secret.
    #[track_caller]
    fn load(&mut self) -> String {
        self.try_load().unwrap().secret.expose().clone()
    }

    /// Waits until it reports a change, or fails to poll.
    #[track_caller]
    fn changed(&mut self) -> Result<(), Problem> {
        self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, self.source.changed()).await.unwrap() })
    }

    /// Checks that a load fails with `fault`, and that the whole message contains each of `parts` and no secret.
    #[track_caller]
    fn assert_fails(&mut self, fault: StoreFault, parts: &[&str]) {
        let problems = self.try_load().unwrap_err();
        assert_fault(&problems[0], fault, parts);
        // A poll reports the same.
        assert_fault(&self.changed().unwrap_err(), fault, parts);
    }
}

#[track_caller]
fn assert_fault(problem: &Problem, fault: StoreFault, parts: &[&str]) {
    let text = error_chain::one_line(problem);
    let Problem::Store(error) = problem else { panic!("{text}") };
    assert_eq!(error.fault, fault, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    canary::scan("the error", &format!("{text} {problem:?}"));
}

/// The members of a secret with the client secret `secret`.
fn members(secret: &str) -> Value {
    json!({"client_id": CLIENT_ID, "client_secret": secret, "app_key": APP_KEY, "owner": "payments"})
}

/// The default members.
fn usual() -> Value {
    members(CLIENT_SECRET)
}

/// Writes a token to a file in `dir`.
fn token_auth(dir: &Path, token: &str) -> VaultAuth {
    let token_file = dir.join("token");
    fs::write(&token_file, format!("{token}\n")).unwrap();
    VaultAuth::Token { token_file }
}
