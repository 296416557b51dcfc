//! Why a secret store gave no credentials, and what an operator does about it.

use std::{error::Error, fmt};

labels! {
    /// The kinds of failure of a secret store. The label is that of `credentials_source_errors_total`.
    pub enum StoreFault {
        /// The process has no identity with the store: none is configured on this machine, or it could not be obtained.
        NoIdentity = "no_identity",
        /// The store does not permit this identity to read the secret.
        IdentityRefused = "identity_refused",
        /// There is no such secret, or no such version of it.
        NotFound = "not_found",
        /// The version is disabled, deleted or pending.
        VersionUnavailable = "version_unavailable",
        /// The secret is not a JSON object of texts.
        Malformed = "malformed",
        /// The store limits the rate of requests.
        Throttled = "throttled",
        /// The store cannot be reached, did not answer in time, or failed.
        Unreachable = "unreachable",
        /// The certificate of the store is not trusted.
        UntrustedTls = "untrusted_tls",
    }
}

/// A failure of a secret store. Shows the name of the secret, what failed and the remedy; never a value, and nothing that the store
/// sent but its error codes.
#[derive(Debug)]
pub struct StoreError {
    /// What failed.
    pub fault: StoreFault,
    /// The secret and its store: `secret finicity/prod in AWS Secrets Manager`.
    pub secret: String,
    /// What the store reported, in words of this program and the store's error codes.
    pub reason: String,
    /// What an operator does.
    pub remedy: String,
    /// The error of the store's client, for `Error::source`. `None` where its text may hold a value.
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
