//! Maps errors of the Azure SDK to operator terms. Of a response's content, only error codes are kept.

mod identity;

use std::io;

use azure_core::{Error, error::ErrorKind};
use serde::Deserialize;

use super::{
    code::is_code,
    connector::{Failed, Peer, Reason},
};
use crate::{
    credentials::{
        config::AzureConfig,
        store::{TransportError, TransportFailure},
        store_error::StoreFault,
    },
    error_chain,
};

const STORE: &str = "Azure Key Vault";

/// The maximum nesting depth of Key Vault's errors.
const MAX_INNER_ERRORS: usize = 4;

/// A [`StoreError`](crate::credentials::StoreError) without the name of its secret.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: StoreFault,
    pub(super) reason: String,
    pub(super) remedy: String,
}

impl Failure {
    fn new(fault: StoreFault, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), remedy: remedy.into() }
    }

    /// The failure of a read of the secret.
    pub(super) fn of(error: &Error, config: &AzureConfig) -> Self {
        if let Some(failed) = error_chain::find::<Failed>(error) {
            return of_connector(failed);
        }
        match error.kind() {
            ErrorKind::HttpResponse { status, raw_response, .. } => {
                let body = raw_response.as_deref().map(|response| response.body().as_ref()).unwrap_or_default();
                of_vault(u16::from(*status), body, config)
            }
            ErrorKind::Credential => match error_chain::find::<io::Error>(error) {
                Some(error) => Self::unreadable_token_file(error),
                None => identity::unreadable_response(),
            },
            // The SDK compares the resource in the vault's challenge with the host.
            ErrorKind::Other => Self::new(
                StoreFault::Unreachable,
                "the host is outside the domain in its challenge, so no token was sent to it",
                "set credentials.azure.vault_url to the vault's own address, such as https://NAME.vault.azure.net",
            ),
            _ => Self::unreadable_response(),
        }
    }

    pub(super) fn timeout() -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("{STORE}, or the service of this process's identity, did not respond in time"),
            "check DNS, firewalls, network policies and credentials.egress_proxy",
        )
    }

    pub(super) fn unreadable_response() -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("the response is not from {STORE}"),
            "check credentials.azure.vault_url, and any intermediary between this process and the vault",
        )
    }

    pub(super) fn not_yet_valid() -> Self {
        Self::new(
            StoreFault::VersionUnavailable,
            "its activation date is in the future",
            "change the activation date of the version, or wait for it",
        )
    }

    pub(super) fn expired() -> Self {
        Self::new(
            StoreFault::VersionUnavailable,
            "its expiration date has passed",
            "store a new version (az keyvault secret set), or change the expiration date of this one",
        )
    }
}

/// Whether the vault rejected the token (401).
pub(super) fn is_unauthorized(error: &Error) -> bool {
    error.http_status().is_some_and(|status| u16::from(status) == 401)
}

fn of_connector(failed: &Failed) -> Failure {
    match (&failed.reason, failed.peer) {
        (Reason::Transport(error), Peer::Vault) => of_transport(error, STORE),
        (Reason::Transport(error), Peer::Entra) => of_transport(error, identity::ENTRA),
        (Reason::Transport(TransportError::Http(_)), Peer::ManagedIdentity) => identity::no_endpoint(),
        (Reason::Transport(error), Peer::ManagedIdentity) => of_transport(error, identity::ENDPOINT),
        (Reason::Refused { status, code }, Peer::ManagedIdentity) => {
            identity::of_managed_identity(*status, code.as_deref())
        }
        (Reason::Refused { status, code }, _) => identity::of_entra(*status, code.as_deref()),
        (Reason::Request, _) => Failure::new(
            StoreFault::Unreachable,
            "the HTTP request is invalid",
            "correct credentials.azure.vault_url, and AZURE_AUTHORITY_HOST and IDENTITY_ENDPOINT if they are set",
        ),
    }
}

fn of_transport(error: &TransportError, peer: &str) -> Failure {
    let TransportFailure { fault, reason, remedy } = error.describe(peer);
    Failure::new(fault, reason, remedy)
}

/// An error of Key Vault: `{"error": {"code": …, "message": …, "innererror": {"code": …}}}`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct VaultError {
    code: Option<String>,
    message: Option<String>,
    #[serde(alias = "innerError")]
    innererror: Option<Box<VaultError>>,
}

impl VaultError {
    fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: VaultError,
        }
        serde_json::from_slice(body).map(|body: Body| body.error).unwrap_or_default()
    }

    /// The innermost code, which is the most specific one.
    fn code(&self) -> Option<&str> {
        let inner = std::iter::successors(Some(self), |error| error.innererror.as_deref()).take(MAX_INNER_ERRORS);
        inner.filter_map(|error| error.code.as_deref()).filter(|code| is_code(code)).last()
    }

    /// The number at the start of the message: `AKV10032`.
    fn number(&self) -> Option<&str> {
        let word = self.message.as_deref()?.split(':').next()?;
        let digits = word.strip_prefix("AKV")?;
        ((4..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(word)
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn of_vault(status: u16, body: &[u8], config: &AzureConfig) -> Failure {
    let error = VaultError::parse(body);
    let Some(code) = error.code() else {
        return match status {
            429 => throttled("HTTP status 429"),
            500.. => failed(&format!("HTTP status {status}")),
            401 => unauthorized("HTTP status 401"),
            _ => Failure::unreadable_response(),
        };
    };
    let shown = error.number().map_or_else(|| code.to_owned(), |number| format!("{code}, {number}"));
    let secret = &config.secret;
    match (status, code) {
        (_, "SecretDisabled") => Failure::new(
            StoreFault::VersionUnavailable,
            format!("its version is disabled ({shown})"),
            format!(
                "enable it (az keyvault secret set-attributes --name {secret} --enabled true), or store a new version"
            ),
        ),
        (_, "SecretNotYetValid") => Failure::not_yet_valid(),
        (_, "SecretExpired") => Failure::expired(),
        (_, "ObjectIsDeletedButRecoverable" | "ObjectIsBeingDeleted" | "ObjectIsBeingRecovered") => Failure::new(
            StoreFault::VersionUnavailable,
            format!("it is deleted ({shown})"),
            format!(
                "recover it (az keyvault secret recover --name {secret}), or set credentials.azure.secret to another one"
            ),
        ),
        (404, _) => Failure::new(
            StoreFault::NotFound,
            match &config.version {
                None => format!("the secret does not exist in the vault or is deleted ({shown})"),
                Some(_) => format!("the secret or version does not exist in the vault or is deleted ({shown})"),
            },
            format!(
                "store it, recover it (az keyvault secret recover --name {secret}), or correct credentials.azure.secret and \
                 credentials.azure.vault_url"
            ) + if config.version.is_some() { ", or credentials.azure.version" } else { "" },
        ),
        (400, _) => Failure::new(
            StoreFault::NotFound,
            format!("its name or version is not valid ({shown})"),
            "correct credentials.azure.secret and credentials.azure.version",
        ),
        (401, _) => unauthorized(&shown),
        (403, "ForbiddenByFirewall") => Failure::new(
            StoreFault::Unreachable,
            format!("the firewall of the vault does not permit the address of this process ({shown})"),
            "permit its address or subnet in the vault's networking settings, or use a private endpoint",
        ),
        (403, "ForbiddenByConnection") => Failure::new(
            StoreFault::Unreachable,
            format!("the vault permits connections only through private endpoints ({shown})"),
            "use a private endpoint, and make DNS resolve the vault's name to its address",
        ),
        (403, "ForbiddenByRbac") => Failure::new(
            StoreFault::IdentityRefused,
            format!("the identity of this process is not permitted to read it ({shown})"),
            "assign the role \"Key Vault Secrets User\" on this secret or its vault to the identity; this takes effect after some minutes",
        ),
        (403, "AccessDenied" | "ForbiddenByPolicy") => Failure::new(
            StoreFault::IdentityRefused,
            format!("the identity of this process is not permitted to read it ({shown})"),
            "permit it `get` on secrets in an access policy of the vault (az keyvault set-policy --secret-permissions get)",
        ),
        (403, _) => Failure::new(
            StoreFault::IdentityRefused,
            format!("the identity of this process is not permitted to read it ({shown})"),
            "permit it `get` on secrets: with the role \"Key Vault Secrets User\", or with an access policy of the vault",
        ),
        (429, _) => throttled(&shown),
        (500.., _) => failed(&shown),
        _ => Failure::new(
            StoreFault::Unreachable,
            format!("{STORE} rejected the request ({shown})"),
            "check credentials.azure.vault_url, and look up the error code in the Azure documentation",
        ),
    }
}

fn unauthorized(shown: &str) -> Failure {
    Failure::new(
        StoreFault::IdentityRefused,
        format!("{STORE} does not accept the identity of this process ({shown})"),
        "use an identity of the tenant that the vault belongs to (AZURE_TENANT_ID), and check the clock of this machine",
    )
}

fn throttled(shown: &str) -> Failure {
    Failure::new(
        StoreFault::Throttled,
        format!("{STORE} rate limit exceeded ({shown})"),
        "increase credentials.poll_interval, or keep the secret in a separate vault",
    )
}

fn failed(shown: &str) -> Failure {
    Failure::new(
        StoreFault::Unreachable,
        format!("{STORE} failed ({shown})"),
        "wait; if the problem persists, see the Azure status page",
    )
}

#[cfg(test)]
mod tests;
