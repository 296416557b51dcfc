//! HashiCorp Vault and OpenBao: one secret in the KV secrets engine, version 1 or 2.
//!
//! Uses reqwest directly, as for the token endpoint, because only five requests are needed: login, read, lookup, renewal and revocation.
//! `ARCHITECTURE.md` explains why `vaultrs` is not used.
//!
//! Deliberately absent: response wrapping, client certificates, `VAULT_…` environment variables, redirects.

mod client;
mod failure;
mod kv;
mod lease;
mod login;
mod response;

use std::future;

use http::{HeaderValue, StatusCode};
use ring::{hmac, rand::SystemRandom};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use self::{client::Client, failure::Failure, kv::StoredVersion, lease::Lease, response::Response};
use super::{
    StoreConfig, VaultAuth, VaultConfig,
    store::{SecretStore, StoredSecret},
    store_error::StoreError,
};

const RENEW: &str = "auth/token/renew-self";
const LOOKUP: &str = "auth/token/lookup-self";
const REVOKE: &str = "auth/token/revoke-self";

/// The client of one secret.
#[derive(Debug)]
pub(super) struct VaultStore {
    store: StoreConfig,
    config: VaultConfig,
    session: Option<Session>,
    /// The key of the content hashes that serve as versions if the engine has none.
    key: hmac::Key,
}

/// A token of the server.
#[derive(Debug)]
struct Session {
    /// Marked sensitive.
    token: HeaderValue,
    /// Whether the server is known to accept it. Unknown for a token from a file if its policies do not permit `lookup-self`.
    is_accepted: bool,
    /// `None` if the token does not expire or its lease cannot be looked up.
    lease: Option<Lease>,
}

/// A token, and whether it was obtained for the current request.
struct CurrentToken {
    token: HeaderValue,
    is_accepted: bool,
    is_new: bool,
}

impl VaultStore {
    pub(super) fn new(store: StoreConfig, config: VaultConfig) -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.expect("TLS requires a working random number generator as well");
        Self { store, config, session: None, key }
    }

    /// Reads the secret, with a version that identifies its content.
    async fn fetch(&mut self) -> Result<StoredVersion, Failure> {
        let client = self.client();
        let path = kv::path(&self.config);
        loop {
            let CurrentToken { token, is_accepted, is_new } = self.token(&client).await?;
            let response = client.get(&path, &token).await?;
            if response.status != StatusCode::FORBIDDEN {
                return kv::read(&response, &self.config, &self.key);
            }
            self.end_session(&client).await;
            if is_new {
                return Err(kv::forbidden(&self.config, is_accepted));
            }
            // The token was revoked or has no uses left, or the policies of its role changed: the next iteration obtains a new one.
        }
    }

    /// Creates a client for the requests of one operation.
    fn client(&self) -> Client {
        Client::new(&self.store, &self.config)
    }

    /// The token for the next request: the session's token, after renewing its lease if due, or the token of a new login.
    async fn token(&mut self, client: &Client) -> Result<CurrentToken, Failure> {
        if let Some(token) = self.session_token(client).await? {
            return Ok(CurrentToken { token, is_accepted: true, is_new: false });
        }
        let sent = Instant::now();
        let session = match login::request(&self.config.auth)? {
            login::Request::Login { path, body } => {
                let response = client.post(&path, None, body).await?;
                let granted = login::read(&response, &self.config)?;
                debug!(path, lease_s = granted.lease_s, renewable = granted.renewable, "logged in to Vault");
                let lease = Lease::new(sent, granted.lease_s, granted.renewable);
                Session { token: granted.token, is_accepted: true, lease }
            }
            login::Request::Token(token) => {
                let response = client.get(LOOKUP, &token).await?;
                let found = login::read_lookup(&response)?;
                let lease = found.and_then(|(lease_s, renewable)| Lease::new(sent, lease_s, renewable));
                Session { token, is_accepted: found.is_some(), lease }
            }
        };
        let Session { token, is_accepted, .. } = self.session.insert(session);
        Ok(CurrentToken { token: token.clone(), is_accepted: *is_accepted, is_new: true })
    }

    /// The session's token, if it is still usable. Renews its lease if due.
    async fn session_token(&mut self, client: &Client) -> Result<Option<HeaderValue>, Failure> {
        let Some(session) = &mut self.session else { return Ok(None) };
        if !login::is_current(&self.config.auth, &session.token)? {
            self.session = None;
            return Ok(None);
        }
        let now = Instant::now();
        match &mut session.lease {
            Some(lease) if lease.is_expired(now) => return Ok(None),
            Some(lease) if lease.is_due(now) => {
                if !lease.renewable {
                    return Ok(None);
                }
                let response = client.post(RENEW, Some(&session.token), login::empty_body()).await?;
                match login::read_renewal(&response)? {
                    Some((lease_s, renewable)) if lease.is_extended_by(now, lease_s) => {
                        session.lease = Lease::new(now, lease_s, renewable);
                        debug!(lease_s, "renewed the lease of the Vault token");
                    }
                    // It has reached its maximum lifetime, or renewal is denied.
                    _ => return Ok(None),
                }
            }
            _ => {}
        }
        Ok(Some(session.token.clone()))
    }

    /// Drops the token, and revokes it if this program obtained it: otherwise, if a policy forbids the read, each poll would leave an
    /// unused token on the server.
    async fn end_session(&mut self, client: &Client) {
        let Some(session) = self.session.take() else { return };
        if !matches!(self.config.auth, VaultAuth::Token { .. }) {
            let revoked = client.post(REVOKE, Some(&session.token), login::empty_body()).await;
            debug!(status = revoked.ok().map(|Response { status, .. }| status.as_u16()), "revoked the Vault token");
        }
    }

    fn error(&self, failure: Failure) -> StoreError {
        failure.into_error(self.description())
    }
}

impl SecretStore for VaultStore {
    const KIND: &'static str = "vault";

    fn description(&self) -> String {
        let VaultConfig { mount, path, namespace, .. } = &self.config;
        let namespace = namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
        format!("secret {mount}/{path}{namespace} in Vault at {}", client::origin(&self.config.address))
    }

    async fn version(&mut self) -> Result<String, StoreError> {
        // Reads the data: the metadata costs as much, grows with the number of versions, and needs another policy.
        self.fetch().await.map(|stored| stored.version).map_err(|failure| self.error(failure))
    }

    async fn read(&mut self) -> Result<StoredSecret, StoreError> {
        let StoredVersion { version, text } = self.fetch().await.map_err(|failure| self.error(failure))?;
        Ok(StoredSecret { version, text })
    }

    /// Renews the lease when due, possibly several times between two polls, and retries until it expires, because an expired token
    /// from a file cannot be replaced.
    async fn keep_alive(&mut self) {
        while let Some(lease) = self.session.as_ref().and_then(|session| session.lease) {
            sleep_until(lease.renew_at).await;
            let renewed = self.token(&self.client()).await.map(drop);
            if let Err(Failure { reason, .. }) = renewed {
                debug!(reason, "cannot renew the lease of the Vault token");
                let Some(retry_at) = lease.retry_at(Instant::now()) else { break };
                sleep_until(retry_at).await;
            }
        }
        future::pending::<()>().await;
    }
}
