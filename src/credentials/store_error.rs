//! Why a secret store returned no credentials, and the remedy.

use std::{error::Error, fmt};

labels! {
    /// The kinds of failure of a secret store. Labels of the metric `credentials_source_errors_total`.
    pub enum StoreFault {
        /// The process has no identity for the store: none is configured on this machine, or obtaining it failed.
        NoIdentity = "no_identity",
        /// The store does not permit this identity to read the secret.
        IdentityRefused = "identity_refused",
        /// The secret, or this version of it, does not exist.
        NotFound = "not_found",
        /// The version is disabled, deleted or pending.
        VersionUnavailable = "version_unavailable",
        /// The secret is not a JSON object of strings.
        Malformed = "malformed",
        /// The store rejected the request because of a rate limit.
        Throttled = "throttled",
        /// The store is unreachable, did not respond in time, or failed.
        Unreachable = "unreachable",
        /// The certificate of the store is not trusted.
        UntrustedTls = "untrusted_tls",
    }
}

/// A failure of a secret store. Shows the name of the secret, the reason and the remedy. Never shows a value, and shows only error
/// codes from the store's response.
#[derive(Debug)]
pub struct StoreError {
    /// The kind of failure.
    pub fault: StoreFault,
    /// The secret and its store: `secret finicity/prod in AWS Secrets Manager`.
    pub secret: String,
    /// What failed, in this program's words and the store's error codes.
    pub reason: String,
    /// What the operator should do.
    pub remedy: String,
    /// The error of the store's client, for `Error::source`. `None` if its text may contain a value.
    pub cause: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}; {}", self.secret, self.reason, self.remedy)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
