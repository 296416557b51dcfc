//! The token request, over reqwest.
//!
//! The HTTP client follows no redirects, uses no proxies from the environment, keeps no cookies, does not decompress bodies and does
//! not reuse connections. The request carries the client secret, so it goes to one address only, over verified TLS; only an upstream
//! on this machine may use plain HTTP.

mod failure;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tracing::debug;
use zeroize::Zeroizing;

pub(crate) use self::failure::Route;
use super::{
    Config,
    classify::{Disposition, FailureClass, IssuedToken, MAX_BODY_BYTES, TokenFailure, TokenResponse, classify},
    scheme::{self, AuthHeaders, TokenRequest},
};
use crate::{
    credentials::{Credentials, Scheme, lockout},
    dns::Resolver,
    egress,
    tls::TrustStore,
};

/// The initial capacity of the response buffer.
const TYPICAL_RESPONSE_BYTES: usize = 8 * 1024;

/// The time limit for connecting, TLS included. If a server takes longer, a new attempt is more promising.
const CONNECT_TIMEOUT: Duration = lockout::MAX_CONNECT_TIME;

/// The time limit for the DNS lookup, below `CONNECT_TIMEOUT` so that a slow lookup is reported as such.
const LOOKUP_TIMEOUT: Duration = CONNECT_TIMEOUT.saturating_sub(Duration::from_millis(200));

/// The time limit for a token request with proven credentials. Refreshes start early enough for many such attempts before a token
/// expires.
pub(super) const PROVEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for a token request with credentials that have not obtained a token yet. It is longer because a rejection that
/// arrives after the time limit is an attempt with an unknown outcome.
pub const UNPROVEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit for a probe of the token endpoint.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The vendor's production host, to which [`ADVICE`] applies.
const VENDOR_HOST: &str = "api.finicity.com";

const ADVICE: &str = "the vendor's published API documents partner authentication, not OAuth 2.0: set \
                      FINICITY_PARTNER_ID and FINICITY_PARTNER_SECRET instead, unless the vendor specified OAuth 2.0";

/// Issues tokens: the real endpoint, or a mock in tests.
pub trait TokenSource: Send + Sync + 'static {
    /// Makes one token request, with the total time limit `limit`.
    ///
    /// # Errors
    ///
    /// Fails when the request obtained no usable token.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server may have issued a token that is never used, which is harmless.
    fn fetch(
        &self,
        credentials: &Credentials,
        limit: Duration,
    ) -> impl Future<Output = Result<AuthHeaders, TokenFailure>> + Send;

    /// Sends a request to the path of the token endpoint, without credentials and App Key, so it cannot count as a failed
    /// authentication. Any complete response is a success.
    ///
    /// # Errors
    ///
    /// Fails when there was no complete response.
    fn probe(&self, scheme: Scheme) -> impl Future<Output = Result<(), TokenFailure>> + Send;

    /// Revokes a token. `None` when revocation is not supported or not configured.
    fn revoke(
        &self,
        credentials: &Credentials,
        token: &HeaderValue,
    ) -> impl Future<Output = Option<Result<(), TokenFailure>>> + Send {
        let _ = (credentials, token);
        async { None }
    }

    /// The host of the token endpoint, for the fingerprint of the lock-out guard.
    fn host(&self) -> &str;

    /// The failure of a request without a complete response within `limit`.
    fn timed_out(&self, limit: Duration) -> TokenFailure {
        failure::timed_out(self.host(), limit)
    }

    /// Further advice to the operator about `failure`, if any.
    fn advice(&self, scheme: Scheme, failure: &TokenFailure) -> Option<&'static str> {
        let _ = (scheme, failure);
        None
    }
}

/// The configured token endpoint.
#[derive(Debug)]
pub struct TokenEndpoint {
    resolver: Resolver,
    trust: TrustStore,
    host: String,
    route: Route,
    config: Config,
}

/// Why a [`TokenEndpoint`] cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Base and path do not form a URL.
    #[error("the token endpoint's address is not a valid URL")]
    Url,
    /// The HTTP client cannot be built.
    #[error("cannot build the HTTP client for token requests")]
    Client(#[source] reqwest::Error),
}

impl TokenEndpoint {
    /// The endpoint that `config` names. Each request uses `resolver` and the current configuration of `trust`.
    ///
    /// # Errors
    ///
    /// Fails when the address is not a valid URL, or the HTTP client cannot be built.
    pub fn new(config: Config, resolver: Resolver, trust: TrustStore) -> Result<Self, EndpointError> {
        let host = config.base.host().ok_or(EndpointError::Url)?.to_owned();
        for path in [&config.token_path, &config.revocation_path].into_iter().flatten() {
            url(&config.base, path).ok_or(EndpointError::Url)?;
        }
        client(&resolver, &trust, &config).map_err(EndpointError::Client)?;
        let route = Route::new(&config.base, config.egress.as_ref()).ok_or(EndpointError::Url)?;
        Ok(Self { resolver, trust, host, route, config })
    }

    async fn send(&self, token_request: TokenRequest, limit: Duration) -> Result<reqwest::Response, TokenFailure> {
        let headers = token_request.headers.into_iter().collect();
        let request = self.request(Method::POST, &token_request.path, limit)?;
        let response = request.headers(headers).body(Bytes::from_owner(token_request.body)).send().await;
        match response {
            Ok(response) => Ok(response),
            Err(error) => Err(self.transport_failure(error, limit).await),
        }
    }

    /// A request for `path` on the token endpoint's host.
    fn request(&self, method: Method, path: &str, limit: Duration) -> Result<reqwest::RequestBuilder, TokenFailure> {
        let url = url(&self.config.base, path).ok_or_else(|| {
            TokenFailure::new(FailureClass::Misconfigured, "the token endpoint's address is not a valid URL")
                .with_disposition(Disposition::NotSent)
        })?;
        let client = client(&self.resolver, &self.trust, &self.config).map_err(|_| failure::unusable_client())?;
        Ok(client.request(method, url).timeout(limit))
    }

    async fn request_token(&self, credentials: &Credentials, limit: Duration) -> Result<AuthHeaders, TokenFailure> {
        let response = self.send(scheme::token_request(credentials, &self.config), limit).await?;
        let issued = self.read_response(response, scheme::token_field(credentials.scheme), limit).await?;
        Ok(scheme::auth_headers(credentials, &self.config, &issued))
    }

    /// Reads a response, up to [`MAX_BODY_BYTES`], and classifies it. `token_field` is the member that holds the token.
    #[expect(clippy::disallowed_methods, reason = "an HTTP-date in Retry-After is wall-clock time")]
    async fn read_response(
        &self,
        mut response: reqwest::Response,
        token_field: &str,
        limit: Duration,
    ) -> Result<IssuedToken, TokenFailure> {
        let mut body = Zeroizing::new(Vec::with_capacity(TYPICAL_RESPONSE_BYTES));
        let mut whole = true;
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY_BYTES => append(&mut body, &chunk),
                Ok(Some(_)) => {
                    whole = false;
                    break None;
                }
                Ok(None) => break None,
                Err(error) => break Some(self.transport_failure(error, limit).await),
            }
        };
        let body = whole.then_some(body.as_slice());
        let token_response = TokenResponse { status: response.status(), headers: response.headers(), body };
        debug!(
            http.response.status_code = token_response.status.as_u16(),
            bytes = body.map(<[u8]>::len),
            "token response"
        );
        let outcome = classify(&token_response, token_field, SystemTime::now())
            .map_err(|failure| failure.from_endpoint(self.route.endpoint()));
        match (outcome, broken) {
            (outcome, None) => outcome,
            // A definitive failure stands even if its body is truncated: as a transient fault, it would be retried too soon.
            (Err(failure), Some(_)) if failure.is_definitive() => Err(failure.with_disposition(Disposition::Unknown)),
            (_, Some(broken)) => Err(broken),
        }
    }

    /// Reads a response to its end and discards it.
    async fn read_to_end(&self, mut response: reqwest::Response, limit: Duration) -> Result<(), TokenFailure> {
        // Such a server may close the connection without a TLS close_notify.
        let ends_with_connection = ends_with_connection(response.headers());
        loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) if ends_with_connection && !error.is_timeout() => return Ok(()),
                Err(error) => return Err(self.transport_failure(error, limit).await),
            }
        }
    }

    /// The failure for a reqwest error. The error's text is discarded, because it contains the URL.
    async fn transport_failure(&self, error: reqwest::Error, limit: Duration) -> TokenFailure {
        let error = error.without_url();
        debug!(error = ?error, "token request failed");
        if error.is_timeout() && !error.is_connect() {
            return self.timed_out(limit);
        }
        if !error.is_connect() {
            return self.route.exchange_failure(&error);
        }
        // reqwest does not expose the egress proxy's response.
        let tunnel_error = match &self.config.egress {
            Some(egress) if failure::is_of_tunnel(&error) => {
                failure::tunnel_error(egress, &self.config.base, &self.resolver, CONNECT_TIMEOUT).await
            }
            _ => None,
        };
        self.route.connect_failure(&error, tunnel_error.as_ref(), CONNECT_TIMEOUT)
    }
}

/// Builds a client for one request: the trusted CAs may change between requests, and there is no connection to keep.
fn client(resolver: &Resolver, trust: &TrustStore, config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(trust.client_config())
        .https_only(config.base.scheme_str() != Some("http"))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(TokenResolver(resolver.clone()))
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("finicity-proxy/", env!("CARGO_PKG_VERSION")));
    // Plain HTTP is for this machine only, so `localhost` is not looked up. Port 0 means the port of the URL.
    let client = if config.base.scheme_str() == Some("http") {
        client.resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
    } else {
        client
    };
    // The proxies of the environment are disabled by `no_proxy` above.
    let proxy = config.egress.as_ref().map(egress_proxy).transpose()?;
    proxy.into_iter().fold(client, reqwest::ClientBuilder::proxy).build()
}

/// An adapter from [`Resolver`] to reqwest.
struct TokenResolver(Resolver);

impl reqwest::dns::Resolve for TokenResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str(), LOOKUP_TIMEOUT).await?;
            // Port 0 means the port of the URL.
            let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Whether the end of the connection delimits the response (RFC 9112, 6.3).
fn ends_with_connection(headers: &HeaderMap) -> bool {
    ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| headers.contains_key(name))
}

/// Appends `chunk` to `body`. A body that exceeds its capacity moves once, to a buffer of the maximum size; the old memory is
/// overwritten.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if body.len() + chunk.len() > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(MAX_BODY_BYTES));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

impl TokenSource for TokenEndpoint {
    fn fetch(
        &self,
        credentials: &Credentials,
        limit: Duration,
    ) -> impl Future<Output = Result<AuthHeaders, TokenFailure>> + Send {
        self.request_token(credentials, limit)
    }

    async fn probe(&self, scheme: Scheme) -> Result<(), TokenFailure> {
        let path = scheme::token_path(scheme, &self.config);
        let request = self.request(Method::GET, path, PROBE_TIMEOUT)?;
        match request.header(header::ACCEPT, "application/json").send().await {
            Ok(response) => self.read_to_end(response, PROBE_TIMEOUT).await,
            Err(error) => Err(self.transport_failure(error, PROBE_TIMEOUT).await),
        }
    }

    async fn revoke(&self, credentials: &Credentials, token: &HeaderValue) -> Option<Result<(), TokenFailure>> {
        let request = scheme::revocation_request(credentials, &self.config, token)?;
        Some(match self.send(request, PROVEN_TIMEOUT).await {
            Ok(response) if response.status().is_success() => Ok(()),
            // The request carries the client secret, so a rejection means the same as one by the token endpoint.
            Ok(response) => self.read_response(response, "", PROVEN_TIMEOUT).await.map(drop),
            Err(failure) => Err(failure),
        })
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn timed_out(&self, limit: Duration) -> TokenFailure {
        failure::timed_out(self.route.endpoint(), limit)
    }

    fn advice(&self, scheme: Scheme, failure: &TokenFailure) -> Option<&'static str> {
        let refused = failure.class == FailureClass::Rejected || failure.status == Some(StatusCode::NOT_FOUND);
        (refused && scheme == Scheme::OAuth2 && self.host == VENDOR_HOST).then_some(ADVICE)
    }
}

/// The egress proxy for every request.
fn egress_proxy(config: &egress::Config) -> Result<reqwest::Proxy, reqwest::Error> {
    let proxy = reqwest::Proxy::all(config.url.to_string())?;
    Ok(match &config.authorization {
        Some(authorization) => proxy.custom_http_auth(authorization.clone()),
        None => proxy,
    })
}

fn url(base: &Uri, path: &str) -> Option<reqwest::Url> {
    let (scheme, authority) = (base.scheme()?.clone(), base.authority()?.clone());
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()?;
    reqwest::Url::parse(&uri.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::config;

    fn endpoint(base: &str) -> TokenEndpoint {
        let (_, trust) = crate::tls::trust_store(crate::tls::Config::default()).unwrap();
        TokenEndpoint::new(Config { base: base.parse().unwrap(), ..config() }, Resolver::new(), trust).unwrap()
    }

    #[test]
    fn the_url_is_the_authority_and_the_path() {
        for (base, expected) in [
            ("https://api.finicity.com", "https://api.finicity.com/oauth/token"),
            ("https://[::1]:8443", "https://[::1]:8443/oauth/token"),
            ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example/oauth/token"),
        ] {
            assert_eq!(url(&base.parse().unwrap(), "/oauth/token").unwrap().as_str(), expected);
        }
    }

    #[test]
    fn advice_is_given_when_the_vendor_rejects_oauth() {
        let refused = TokenFailure::new(FailureClass::Rejected, "no");
        let missing = TokenFailure {
            status: Some(StatusCode::NOT_FOUND),
            ..TokenFailure::new(FailureClass::Misconfigured, "no")
        };
        let (vendor, other) = (endpoint("https://api.finicity.com"), endpoint("https://localhost:1"));
        for failure in [&refused, &missing] {
            assert!(vendor.advice(Scheme::OAuth2, failure).unwrap().contains("FINICITY_PARTNER_ID"));
            assert!(vendor.advice(Scheme::Partner, failure).is_none());
            assert!(other.advice(Scheme::OAuth2, failure).is_none());
        }
        assert!(vendor.advice(Scheme::OAuth2, &TokenFailure::new(FailureClass::Transient, "no")).is_none());
    }
}
