//! The identity of this process by Application Default Credentials: a credentials file or the metadata server.

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    access_token::AccessToken,
    assertion,
    credentials_file::{self, AuthorizedUser, CredentialsFile},
    failure::{ErrorReport, Failure},
    federation, http as google_http, metadata,
};
use crate::credentials::{config::GcpAmbient, store::Transport};

/// Obtains tokens and caches the current one.
#[derive(Debug)]
pub(super) struct Identity {
    ambient: GcpAmbient,
    current: Option<AccessToken>,
}

impl Identity {
    pub(super) fn new(ambient: GcpAmbient) -> Self {
        Self { ambient, current: None }
    }

    /// A token, and whether it was obtained just now.
    pub(super) async fn token(&mut self, transport: &Transport) -> Result<(AccessToken, bool), Failure> {
        if let Some(token) = self.current.as_ref().filter(|token| token.is_current(Instant::now())) {
            return Ok((token.clone(), false));
        }
        let token = self.obtain(transport).await?;
        Ok((self.current.insert(token).clone(), true))
    }

    /// Discards the token, so that the next request obtains another one.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }

    async fn obtain(&self, transport: &Transport) -> Result<AccessToken, Failure> {
        let Some(path) = credentials_file::path(&self.ambient) else {
            return metadata::token(transport, self.ambient.metadata_host.as_deref()).await;
        };
        match credentials_file::read(path)? {
            CredentialsFile::ServiceAccount(key) => {
                let sent = Instant::now();
                let token = assertion::sign(&key).and_then(|jwt| AccessToken::new(&jwt, sent, assertion::LIFETIME));
                token.ok_or_else(|| {
                    let problem = "has a private_key that is not an RSA key in PKCS #8 and PEM";
                    credentials_file::unusable("credentials file", path, problem)
                })
            }
            CredentialsFile::ExternalAccount(account) => federation::token(transport, &account, path).await,
            CredentialsFile::AuthorizedUser(user) => user_token(transport, &user).await,
        }
    }
}

/// The token of a user (RFC 6749, section 6).
async fn user_token(transport: &Transport, user: &AuthorizedUser) -> Result<AccessToken, Failure> {
    const PEER: &str = "Google's OAuth 2.0 token endpoint";
    let parameters = [
        ("grant_type", "refresh_token"),
        ("client_id", &user.client_id),
        ("client_secret", &user.client_secret),
        ("refresh_token", &user.refresh_token),
    ];
    let request = google_http::form(&user.token_uri, &parameters);
    let sent = Instant::now();
    let response = google_http::send(transport, request).await;
    let response = response.map_err(|error| Failure::of_identity_transport(&error, PEER))?;
    let token = AccessToken::read(&response, sent).filter(|_| response.status().is_success());
    let mut token = token.ok_or_else(|| {
        let remedy = "log in again: gcloud auth application-default login";
        Failure::of_issuer(&ErrorReport::new(&response), PEER, remedy)
    })?;
    let quota_project = user.quota_project_id.as_ref().and_then(|project| HeaderValue::from_str(project).ok());
    token.quota_project = quota_project;
    Ok(token)
}
