//! The HTTP client of the Azure SDK, implemented by [`Transport`]. The program thus has one TLS stack, and the vault and Microsoft Entra
//! share one list of trusted CAs and one egress proxy.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::{
    Error,
    error::ErrorKind,
    http::{
        self as azure, AsyncRawResponse, Body, ClientOptions, HttpClient, RetryOptions,
        headers::{HeaderName, Headers},
    },
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header, uri};

use super::code::refusal;
use crate::credentials::store::{Limits, Transport, TransportError};

/// Where the SDK sends requests for instance metadata.
const IMDS: &str = "169.254.169.254";

/// The response header fields that the SDK or this program reads.
const FIELDS: [header::HeaderName; 3] = [header::CONTENT_TYPE, header::DATE, header::WWW_AUTHENTICATE];

/// The service that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The vault.
    Vault,
    /// Microsoft Entra, which exchanges the token of a workload identity.
    Entra,
    /// The managed identity endpoint on this machine.
    ManagedIdentity,
}

/// Why an operation has no response.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failed {
    pub(super) peer: Peer,
    #[source]
    pub(super) reason: Reason,
}

/// Why a request has no response that the SDK can use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    /// There was no complete response.
    #[error("there is no response")]
    Transport(#[source] TransportError),
    /// The SDK's request is not a valid HTTP request.
    #[error("invalid HTTP request")]
    Request,
    /// The identity service did not issue a token.
    #[error("the identity service did not issue a token")]
    Refused {
        status: u16,
        /// The error code, if there is one.
        code: Option<String>,
    },
}

/// Sends the requests of one of the SDK's clients.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    transport: Transport,
    peer: Peer,
    /// The origin for instance metadata, in place of [`IMDS`].
    imds: Option<Uri>,
}

impl Connector {
    pub(super) fn new(transport: Transport, peer: Peer) -> Self {
        Self { transport, peer, imds: None }
    }

    /// Sends requests for instance metadata to `origin`, if it is set.
    pub(super) fn with_imds(self, origin: Option<Uri>) -> Self {
        Self { imds: origin, ..self }
    }

    /// The options for an SDK client that uses this connector.
    pub(super) fn into_options(self) -> ClientOptions {
        ClientOptions {
            transport: Some(azure::Transport::new(Arc::new(self))),
            retry: RetryOptions::none(),
            ..ClientOptions::default()
        }
    }

    async fn send(&self, request: &azure::Request) -> Result<Response<Bytes>, Reason> {
        let request = self.convert(request).ok_or(Reason::Request)?;
        let response = self.transport.send(request, Limits::default()).await.map_err(Reason::Transport)?;
        // Not left to the SDK, which would retry instance metadata for 72 s and require JSON from Microsoft Entra.
        if self.peer != Peer::Vault && !response.status().is_success() {
            let code = refusal(response.body());
            return Err(Reason::Refused { status: response.status().as_u16(), code });
        }
        Ok(response)
    }

    /// Converts the request to this program's types.
    fn convert(&self, request: &azure::Request) -> Option<Request<Bytes>> {
        let method = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
        let mut target: Uri = request.url().as_str().parse().ok()?;
        if let Some(origin) = self.imds.as_ref().filter(|_| target.host() == Some(IMDS)) {
            target = at(origin, &target)?;
        }
        let mut converted = Request::builder().method(method).uri(target);
        for (name, value) in request.headers().iter() {
            let mut value = HeaderValue::from_str(value.as_str()).ok()?;
            value.set_sensitive(true);
            converted = converted.header(name.as_str(), value);
        }
        let Body::Bytes(body) = request.body() else { return None };
        converted.body(body.clone()).ok()
    }
}

#[async_trait]
impl HttpClient for Connector {
    async fn execute_request(&self, request: &azure::Request) -> azure_core::Result<AsyncRawResponse> {
        // The SDK does not retry this kind.
        let failed = |reason| Error::new(ErrorKind::Other, Failed { peer: self.peer, reason });
        let (head, body) = self.send(request).await.map_err(failed)?.into_parts();
        let mut fields = Headers::new();
        for name in FIELDS {
            if let Some(value) = head.headers.get(&name).and_then(|value| value.to_str().ok()) {
                fields.insert(HeaderName::from(name.as_str().to_owned()), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(head.status.as_u16().into(), fields, body))
    }
}

/// `target` at `origin`.
fn at(origin: &Uri, target: &Uri) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    parts.scheme = origin.scheme().cloned();
    parts.authority = origin.authority().cloned();
    parts.path_and_query = target.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}
