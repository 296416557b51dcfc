//! Requests to the server.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use zeroize::Zeroizing;

use super::{failure::Failure, response::Response};
use crate::credentials::{
    StoreConfig, VaultConfig,
    store::{Limits, Transport},
};

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("finicity-proxy/", env!("CARGO_PKG_VERSION")));

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// Vault Agent can be configured to reject requests without this header.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Sends requests to one server.
#[derive(Debug)]
pub(super) struct Client {
    transport: Transport,
    origin: String,
    namespace: Option<HeaderValue>,
}

/// The scheme, host and port of `address`.
pub(super) fn origin(address: &Uri) -> String {
    let scheme = address.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", address.authority().map(ToString::to_string).unwrap_or_default())
}

impl Client {
    pub(super) fn new(store: &StoreConfig, config: &VaultConfig) -> Self {
        let namespace = config.namespace.as_ref().and_then(|name| HeaderValue::from_str(name).ok());
        Self { transport: Transport::new(store), origin: origin(&config.address), namespace }
    }

    /// Reads `path`, such as `secret/data/finicity`.
    pub(super) async fn get(&self, path: &str, token: &HeaderValue) -> Result<Response, Failure> {
        self.send(Method::GET, path, Some(token), None).await
    }

    /// Writes `body`, which is JSON, to `path`.
    pub(super) async fn post(
        &self,
        path: &str,
        token: Option<&HeaderValue>,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Response, Failure> {
        self.send(Method::POST, path, token, Some(body)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&HeaderValue>,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Response, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.origin))
            .header(REQUEST, "true")
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(token) = token {
            request = request.header(TOKEN, token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Bytes::from_owner(body)),
            None => request.body(Bytes::new()),
        };
        let request = request.map_err(|_| Failure::address())?;
        let response = self.transport.send(request, Limits::default()).await;
        let response = response.map_err(|error| Failure::transport(&error, &self.origin))?;
        Ok(Response { status: response.status(), body: response.into_body() })
    }
}
