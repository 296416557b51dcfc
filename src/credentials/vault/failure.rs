//! Failures of requests to Vault, described in operator terms without the server's text.

use std::error::Error;

use http::StatusCode;

use super::response::Response;
use crate::credentials::{
    store::{TransportError, TransportFailure},
    store_error::{StoreError, StoreFault},
};

/// A [`StoreError`] without the name of its secret.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: StoreFault,
    pub(super) reason: String,
    pub(super) remedy: String,
    pub(super) cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(super) fn new(fault: StoreFault, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), remedy: remedy.into(), cause: None }
    }

    pub(super) fn with_cause(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    pub(super) fn into_error(self, secret: String) -> StoreError {
        let Self { fault, reason, remedy, cause } = self;
        StoreError { fault, secret, reason, remedy, cause }
    }

    /// The address and the path do not form a URL.
    pub(super) fn address() -> Self {
        let remedy = "correct credentials.vault.address, credentials.vault.mount and credentials.vault.path";
        Self::new(StoreFault::Unreachable, "the address of the request is not a URL", remedy)
    }

    /// A request that got no complete response from `origin`.
    pub(super) fn transport(error: &TransportError, origin: &str) -> Self {
        if let TransportError::TooLarge = error {
            let remedy = "keep the credentials in a separate secret";
            return Self::new(StoreFault::Malformed, error.to_string(), remedy);
        }
        let TransportFailure { fault, reason, remedy } = error.describe(&format!("the server at {origin}"));
        Self::new(fault, reason, remedy)
    }

    /// The failure in `response`, if it does not depend on the request.
    pub(super) fn of_server(response: &Response) -> Option<Self> {
        let status = response.status;
        let code = status.as_u16();
        let unreachable = |reason: String, remedy: &str| Some(Self::new(StoreFault::Unreachable, reason, remedy));
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::new(
                StoreFault::Throttled,
                "the server's rate limit is exceeded (429)",
                "raise the rate limit quota of the server, or increase credentials.poll_interval",
            )),
            StatusCode::SERVICE_UNAVAILABLE if response.mentions("sealed") => {
                unreachable("the server is sealed (503)".to_owned(), "unseal it; `vault status` shows the progress")
            }
            StatusCode::SERVICE_UNAVAILABLE => unreachable(
                "the server is not ready (503)".to_owned(),
                "check with `vault status` that it is initialized, unsealed and not in maintenance",
            ),
            StatusCode::NOT_FOUND if response.mentions("namespace not found") => Some(Self::new(
                StoreFault::NotFound,
                "the server has no such namespace (404)",
                "correct credentials.vault.namespace, or create the namespace",
            )),
            _ if status.is_redirection() => unreachable(
                format!("it redirects to another server ({code}); redirects are not followed"),
                "set credentials.vault.address to the active server, or let standby servers forward requests",
            ),
            _ if status.is_server_error() || status == StatusCode::PRECONDITION_FAILED => {
                unreachable(format!("the server failed ({code})"), "see the server's log; the next poll retries")
            }
            _ => None,
        }
    }

    /// A response that cannot be from Vault.
    pub(super) fn not_vault(status: StatusCode) -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("the response ({}) is not from Vault", status.as_u16()),
            "check that credentials.vault.address is the address of a Vault or OpenBao server and not of an intermediary",
        )
    }
}
