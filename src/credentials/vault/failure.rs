//! What went wrong, in this program's words.

use std::error::Error;

use http::StatusCode;

use super::response::Response;
use crate::{
    credentials::store_error::{StoreError, StoreFault},
    tls::{self, TlsFailure},
};

/// A failure, before the name of the secret is added.
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

    /// `credentials.ca_file` cannot be used.
    pub(super) fn ca_file(error: tls::Error) -> Self {
        let remedy = "put the certificates of the server's CA, in PEM, in the file of credentials.ca_file";
        Self::new(StoreFault::UntrustedTls, "credentials.ca_file cannot be used", remedy).with_cause(error)
    }

    /// No request can be made.
    pub(super) fn client(error: reqwest::Error) -> Self {
        let remedy = "check credentials.vault.address and credentials.egress_proxy";
        Self::new(StoreFault::Unreachable, "the HTTP client cannot be built", remedy).with_cause(error.without_url())
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let reason = format!("the response is larger than {} KiB", limit / 1024);
        Self::new(StoreFault::Malformed, reason, "keep the credentials in a secret of their own")
    }

    /// A request without a complete response from `origin`.
    pub(super) fn transport(error: reqwest::Error, origin: &str, has_egress_proxy: bool) -> Self {
        if let Some(failure) = TlsFailure::find(&error) {
            return tls_failure(failure);
        }
        let way = if has_egress_proxy { " through credentials.egress_proxy" } else { "" };
        let (reason, remedy) = if error.is_timeout() {
            (format!("{origin} did not answer in time{way}"), REACH)
        } else if error.is_connect() {
            (format!("{origin} cannot be reached{way}"), REACH)
        } else {
            (
                format!("the connection to {origin} broke"),
                "check the server and what is between; the next poll tries again",
            )
        };
        let remedy = if has_egress_proxy { REACH_BY_PROXY } else { remedy };
        // The texts of reqwest hold no more than the address and what the system said.
        Self::new(StoreFault::Unreachable, reason, remedy).with_cause(error.without_url())
    }

    /// The failure that `response` is whatever was requested, if it is one of these.
    pub(super) fn of_server(response: &Response) -> Option<Self> {
        let status = response.status;
        let code = status.as_u16();
        let unreachable = |reason: String, remedy: &str| Some(Self::new(StoreFault::Unreachable, reason, remedy));
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::new(
                StoreFault::Throttled,
                "the server limits the rate of requests (429)",
                "raise the rate limit quota of the server, or credentials.poll_interval",
            )),
            StatusCode::SERVICE_UNAVAILABLE if response.mentions("sealed") => {
                unreachable("the server is sealed (503)".to_owned(), "unseal it; `vault status` shows how far that is")
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
                format!("it redirects to another server ({code}), which is not followed"),
                "set credentials.vault.address to the active server, or let standby servers forward requests",
            ),
            _ if status.is_server_error() || status == StatusCode::PRECONDITION_FAILED => unreachable(
                format!("the server failed ({code})"),
                "see the log of the server; the next poll tries again",
            ),
            _ => None,
        }
    }

    /// A response that Vault does not send.
    pub(super) fn not_vault(status: StatusCode) -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("the response ({}) is not what Vault sends", status.as_u16()),
            "check that credentials.vault.address is that of a Vault or OpenBao server, and not of something in front of it",
        )
    }
}

const REACH: &str =
    "check credentials.vault.address, DNS, and that network policies and firewalls permit this connection";
const REACH_BY_PROXY: &str =
    "check credentials.egress_proxy, and that it permits connections to credentials.vault.address";

fn tls_failure(failure: TlsFailure) -> Failure {
    let untrusted = |reason: &str, remedy: &str| Failure::new(StoreFault::UntrustedTls, reason, remedy);
    match failure {
        TlsFailure::UnknownIssuer => untrusted(
            "the server's certificate is self-signed or of an authority that is not trusted",
            "set credentials.ca_file to a PEM file with the certificate of its CA",
        ),
        TlsFailure::Expired => {
            untrusted("the server's certificate has expired, or this machine's clock is ahead", "renew the certificate")
        }
        TlsFailure::NotYetValid => untrusted(
            "the server's certificate is not valid yet, or this machine's clock is behind",
            "check both clocks",
        ),
        TlsFailure::NameMismatch => untrusted(
            "the server's certificate is for another host than credentials.vault.address names",
            "use a name that the certificate has, or give it this one",
        ),
        TlsFailure::PinMismatch | TlsFailure::BadCertificate => {
            untrusted("the server's certificate cannot be used", "check it with `openssl s_client -connect`")
        }
        TlsFailure::ProtocolVersion => untrusted(
            "the server does not speak TLS 1.2 or 1.3",
            "set tls_min_version of its listener to tls12 or tls13",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_failure_names_the_server_and_its_own_keys() {
        for failure in TlsFailure::ALL {
            let Failure { fault, reason, remedy, .. } = tls_failure(failure);
            assert_eq!(fault, StoreFault::UntrustedTls);
            assert!(reason.starts_with("the server") && !format!("{reason} {remedy}").contains("upstream"), "{reason}");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_unreachable() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", silent.local_addr().unwrap());
        let (_, trust_store) = tls::trust_store(tls::Config::default()).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(trust_store.client_config());
        let client = client.timeout(std::time::Duration::from_millis(1)).build().unwrap();
        let error = client.get(&origin).send().await.unwrap_err();
        let Failure { fault, reason, .. } = Failure::transport(error, &origin, true);
        assert_eq!(fault, StoreFault::Unreachable);
        assert_eq!(reason, format!("{origin} did not answer in time through credentials.egress_proxy"));
    }
}
