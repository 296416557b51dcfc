//! Azure Key Vault, by the Azure SDK.
//!
//! The identity is a workload identity if the environment names its token file (AKS). Otherwise it is a managed identity: from App Service
//! or Container Apps if the environment names their endpoint, or from instance metadata (IMDS).
//!
//! A poll is a `Get Secret`, like a read: listing the versions costs as many requests, returns no order, and needs another permission.
//!
//! Deliberately absent: retries by the SDK (the next poll is the retry), Azure Arc, Service Fabric, client secrets and certificates, and
//! the credentials of developer tools, which start processes.

mod code;
mod connector;
mod failure;
mod identity;

use std::{fmt, time::Duration};

use azure_core::http::{Response, headers::HeaderName};
use azure_security_keyvault_secrets::{
    ResourceExt as _, SecretClient, SecretClientOptions,
    models::{Secret as SecretModel, SecretAttributes, SecretClientGetSecretOptions},
};
use tokio::time::timeout;

use self::{
    connector::{Connector, Peer},
    failure::Failure,
};
use super::{
    config::{AzureConfig, StoreConfig},
    store::{SecretStore, StoredSecret, Transport},
    store_error::{StoreError, StoreFault},
};
use crate::secret::Secret;

/// The maximum time for a poll or a read, which may be three requests: for the vault's challenge, for a token, and for the secret.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(45);

/// One secret in Azure Key Vault.
pub(super) struct AzureStore {
    config: AzureConfig,
    transport: Transport,
    /// Holds the token. Created by the first request, and again after a request that failed because of the identity.
    client: Option<SecretClient>,
}

impl fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl SecretStore for AzureStore {
    const KIND: &'static str = "azure";

    fn description(&self) -> String {
        let AzureConfig { vault_url, secret, version, .. } = &self.config;
        let version = version.as_ref().map(|version| format!(" in version {version}")).unwrap_or_default();
        format!("secret {secret}{version} in Azure Key Vault {}", vault_url.host().unwrap_or_default())
    }

    async fn version(&mut self) -> Result<String, StoreError> {
        self.read().await.map(|secret| secret.version)
    }

    async fn read(&mut self) -> Result<StoredSecret, StoreError> {
        let result = timeout(TOTAL_TIMEOUT, self.fetch()).await;
        result.unwrap_or_else(|_| Err(Failure::timeout())).map_err(|failure| {
            let Failure { fault, reason, remedy } = failure;
            if matches!(fault, StoreFault::NoIdentity | StoreFault::IdentityRefused) {
                self.client = None;
            }
            StoreError { fault, secret: self.description(), reason, remedy, cause: None }
        })
    }
}

impl AzureStore {
    pub(super) fn new(store: &StoreConfig, config: AzureConfig) -> Self {
        Self { config, transport: Transport::new(store), client: None }
    }

    async fn fetch(&mut self) -> Result<StoredSecret, Failure> {
        identity::check_token_file(&self.config.identity)?;
        loop {
            let is_new = self.client.is_none();
            let client = match &mut self.client {
                Some(client) => client,
                none => none.insert(new_client(&self.transport, &self.config)?),
            };
            let options = SecretClientGetSecretOptions {
                secret_version: self.config.version.clone(),
                ..SecretClientGetSecretOptions::default()
            };
            match client.get_secret(&self.config.secret, Some(options)).await {
                Ok(response) => return stored(response),
                // The token was revoked before it expired, and the SDK would reuse it: a new client obtains another one.
                Err(error) if !is_new && failure::is_unauthorized(&error) => self.client = None,
                Err(error) => return Err(Failure::of(&error, &self.config)),
            }
        }
    }
}

fn new_client(transport: &Transport, config: &AzureConfig) -> Result<SecretClient, Failure> {
    let credential = identity::credential(transport, &config.identity)?;
    let options = SecretClientOptions {
        client_options: Connector::new(transport.clone(), Peer::Vault).into_options(),
        // Prevents sending a token to a host outside the domain that the token is for.
        verify_challenge_resource: Some(true),
        ..SecretClientOptions::default()
    };
    SecretClient::new(&config.vault_url.to_string(), credential, Some(options))
        .map_err(|_| Failure::unreadable_response())
}

/// The secret in the response. Moves the text out of it, so that no other copy remains.
fn stored(response: Response<SecretModel>) -> Result<StoredSecret, Failure> {
    let date = response.headers().get_optional_str(&HeaderName::from_static("date")).and_then(unix_seconds);
    let mut secret = response.into_model().map_err(|_| Failure::unreadable_response())?;
    let text = secret.value.take().map(Secret::new);
    let version = secret.resource_id().ok().and_then(|id| id.version);
    let (Some(version), Some(text)) = (version, text) else { return Err(Failure::unreadable_response()) };
    if let Some((attributes, now)) = secret.attributes.zip(date) {
        check_dates(&attributes, now)?;
    }
    Ok(StoredSecret { version, text })
}

/// Checks the dates here, because Key Vault also returns a version before its activation date and after its expiration date. `now` is
/// the vault's time.
fn check_dates(attributes: &SecretAttributes, now: i64) -> Result<(), Failure> {
    if attributes.not_before.is_some_and(|date| now < date.unix_timestamp()) {
        return Err(Failure::not_yet_valid());
    }
    if attributes.expires.is_some_and(|date| now >= date.unix_timestamp()) {
        return Err(Failure::expired());
    }
    Ok(())
}

fn unix_seconds(date: &str) -> Option<i64> {
    let date = httpdate::parse_http_date(date).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
