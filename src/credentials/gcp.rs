//! Google Secret Manager: one version of one secret.
//!
//! Uses the HTTP API directly, as for Vault, because few requests are needed: two for the secret, and up to three for the identity.
//! `ARCHITECTURE.md` explains why Google's SDK is not used.
//!
//! A poll is a `versions.get`, which returns the version and transfers no secret. If the identity lacks that permission, polls use
//! `versions.access`, so that the role of a reader is sufficient.

mod access_token;
mod assertion;
mod credentials_file;
mod failure;
mod federation;
mod http;
mod identity;
mod metadata;
mod version;

use std::time::Duration;

use ::http::{HeaderName, Method, StatusCode, Uri, header};
use bytes::Bytes;
use tokio::time::timeout;
use tracing::info;

use self::{
    failure::{ErrorReport, Failure},
    http::Response,
    identity::Identity,
    version::Version,
};
use super::{
    config::{GcpConfig, StoreConfig},
    store::{SecretStore, StoredSecret, Transport},
    store_error::{StoreError, StoreFault},
};

/// The maximum time for a poll or a read, which may be two operations after obtaining an identity by three requests.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(45);

const QUOTA_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// One secret in Google Secret Manager.
#[derive(Debug)]
pub(super) struct GcpStore {
    config: GcpConfig,
    transport: Transport,
    identity: Identity,
    /// Whether `versions.get` was denied to the identity. Not repeated, because a denied request may raise an alarm.
    cannot_describe: bool,
    /// Whether the denial was logged.
    is_denial_logged: bool,
}

impl SecretStore for GcpStore {
    const KIND: &'static str = "gcp";

    fn description(&self) -> String {
        format!("secret {} in Google Secret Manager", self.config.secret)
    }

    async fn version(&mut self) -> Result<String, StoreError> {
        let result = timeout(TOTAL_TIMEOUT, self.present_version()).await;
        self.finish(result.unwrap_or_else(|_| Err(Failure::timeout())))
    }

    async fn read(&mut self) -> Result<StoredSecret, StoreError> {
        let result = timeout(TOTAL_TIMEOUT, self.present_secret()).await;
        self.finish(result.unwrap_or_else(|_| Err(Failure::timeout())))
    }
}

impl GcpStore {
    pub(super) fn new(store: &StoreConfig, config: GcpConfig) -> Self {
        let identity = Identity::new(config.ambient.clone());
        Self { config, transport: Transport::new(store), identity, cannot_describe: false, is_denial_logged: false }
    }

    async fn present_version(&mut self) -> Result<String, Failure> {
        if let Some(Version { id, .. }) = self.describe().await? {
            return Ok(id);
        }
        let secret = self.access(None).await?;
        if !self.is_denial_logged {
            info!(secret = %self.config.secret, "secretmanager.versions.get is not permitted; polling with secretmanager.versions.access");
            self.is_denial_logged = true;
        }
        Ok(secret.version)
    }

    async fn present_secret(&mut self) -> Result<StoredSecret, Failure> {
        let described = self.describe().await?;
        self.access(described.as_ref()).await
    }

    /// The current version, or `None` if `versions.get` is denied to the identity.
    async fn describe(&mut self) -> Result<Option<Version>, Failure> {
        if self.cannot_describe {
            return Ok(None);
        }
        let response = self.get(&self.config.version.clone()).await?;
        if response.status() == StatusCode::OK {
            return version::describe(&response).map(Some);
        }
        let report = ErrorReport::new(&response);
        if report.is_denied() {
            // If reading is denied as well, the read that follows reports it.
            self.cannot_describe = true;
            return Ok(None);
        }
        Err(Failure::of_store(&report))
    }

    /// The secret in the described version, or else in the configured one.
    async fn access(&mut self, described: Option<&Version>) -> Result<StoredSecret, Failure> {
        let version = described.map_or(&self.config.version, |version| &version.number);
        let response = self.get(&format!("{version}:access")).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::of_store(&ErrorReport::new(&response)));
        }
        version::read(&response, described)
    }

    /// Requests `resource` below the versions of the secret. Replaces a token once if it is rejected (401).
    async fn get(&mut self, resource: &str) -> Result<Response, Failure> {
        let endpoint = self.config.endpoint.to_string();
        let url = format!("{}/v1/{}/versions/{resource}", endpoint.trim_end_matches('/'), self.config.secret);
        let url: Uri = url.parse().expect("the configuration accepts only names that are valid in a URL");
        loop {
            let (token, is_new) = self.identity.token(&self.transport).await?;
            let mut request = http::request(Method::GET, &url).header(header::AUTHORIZATION, token.authorization);
            if let Some(project) = token.quota_project {
                request = request.header(QUOTA_PROJECT, project);
            }
            let request = request.body(Bytes::new()).expect("the URL was parsed, and the fields are valid");
            let response = http::send(&self.transport, request).await;
            let response = response.map_err(|error| Failure::of_transport(&error))?;
            if response.status() != StatusCode::UNAUTHORIZED || is_new {
                return Ok(response);
            }
            self.identity.forget();
        }
    }

    /// Adds the name of the secret to an error. Discards an identity that caused the error, so that the next request obtains another one.
    fn finish<T>(&mut self, result: Result<T, Failure>) -> Result<T, StoreError> {
        result.map_err(|Failure { fault, reason, remedy }| {
            if matches!(fault, StoreFault::NoIdentity | StoreFault::IdentityRefused) {
                self.identity.forget();
                self.cannot_describe = false;
            }
            StoreError { fault, secret: self.description(), reason, remedy, cause: None }
        })
    }
}
