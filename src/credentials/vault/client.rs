//! Requests to the server, over reqwest.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header, uri::Scheme};
use zeroize::Zeroizing;

use super::{failure::Failure, response::Response};
use crate::{
    credentials::{StoreConfig, VaultConfig},
    tls,
};

/// The time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for a whole request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Capacity for a typical response.
const TYPICAL_RESPONSE_BYTES: usize = 8 * 1024;

/// Several times what credentials take. A larger secret is another one.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// Vault Agent can be set to refuse requests without it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Sends requests for one operation.
pub(super) struct Client {
    http: reqwest::Client,
    origin: String,
    namespace: Option<HeaderValue>,
    has_egress_proxy: bool,
}

/// Scheme, host and port of `address`.
pub(super) fn origin(address: &Uri) -> String {
    let scheme = address.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", address.authority().map(ToString::to_string).unwrap_or_default())
}

impl Client {
    /// Reads `credentials.ca_file`.
    pub(super) fn new(store: &StoreConfig, config: &VaultConfig) -> Result<Self, Failure> {
        let is_plain = config.address.scheme() == Some(&Scheme::HTTP);
        // Not for plain HTTP, which is for this machine alone: the proxy would see the token.
        let egress_proxy = store.egress_proxy.as_ref().filter(|_| !is_plain);
        let http = http_client(store, is_plain, egress_proxy)?;
        let namespace = config.namespace.as_ref().and_then(|name| HeaderValue::from_str(name).ok());
        Ok(Self { http, origin: origin(&config.address), namespace, has_egress_proxy: egress_proxy.is_some() })
    }

    /// The response to a read of `path`, such as `secret/data/finicity`.
    pub(super) async fn get(&self, path: &str, token: &HeaderValue) -> Result<Response, Failure> {
        self.send(Method::GET, path, Some(token), None).await
    }

    /// The response to a write of `body`, which is JSON.
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
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.origin)).header(REQUEST, "true");
        if let Some(token) = token {
            request = request.header(TOKEN, token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(Bytes::from_owner(body));
        }
        let transport = |error| Failure::transport(error, &self.origin, self.has_egress_proxy);
        let mut response = request.send().await.map_err(transport)?;
        let mut body = Zeroizing::new(Vec::with_capacity(TYPICAL_RESPONSE_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(Failure::too_large(MAX_RESPONSE_BYTES));
            }
            append(&mut body, &chunk);
        }
        Ok(Response { status: response.status(), body })
    }
}

/// Appends `chunk` to `body`. What outgrows its capacity moves to the largest buffer there can be, and its old memory is overwritten.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.len() + chunk.len() > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(MAX_RESPONSE_BYTES));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

fn http_client(store: &StoreConfig, is_plain: bool, egress_proxy: Option<&Uri>) -> Result<reqwest::Client, Failure> {
    let roots =
        tls::Config { public_roots: store.ca_file.is_none(), ca_file: store.ca_file.clone(), ..tls::Config::default() };
    let (_, trust_store) = tls::trust_store(roots).map_err(Failure::ca_file)?;
    let mut client = reqwest::Client::builder()
        .tls_backend_preconfigured(trust_store.client_config())
        .https_only(!is_plain)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("finicity-proxy/", env!("CARGO_PKG_VERSION")));
    if is_plain {
        // Whatever a resolver says of the name. Port 0 stands for the address's own.
        client =
            client.resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()]);
    }
    if let Some(proxy) = egress_proxy {
        client = client.proxy(reqwest::Proxy::all(proxy.to_string()).map_err(Failure::client)?);
    }
    client.build().map_err(Failure::client)
}
