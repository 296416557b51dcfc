//! The token call itself, over reqwest.
//!
//! Deliberately absent: redirects, the environment's proxies, plain HTTP, cookies, decompression, connection reuse. The
//! call carries the client secret, so it goes to one address, over verified TLS, and nowhere else.

use std::time::{Duration, SystemTime};

use http::{Uri, header};
use rustls::ClientConfig;
use tracing::debug;
use zeroize::Zeroizing;

use super::{
    Config,
    classify::{Answer, Class, Failure, classify},
    scheme::{FINICITY_APP_KEY, Grant, oauth2},
};
use crate::{cause, credentials::Credentials};

/// A token answer is a few hundred bytes; a signed token with many claims, a few thousand. Above this it is not one, and
/// must not fill the memory.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Room for the usual answer, so that reading it leaves no copy of the token behind in a buffer that was outgrown.
const USUAL_ANSWER_BYTES: usize = 8 * 1024;

/// The time to connect, TLS included. A server that takes longer is better tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for the whole call. Refreshes start early enough that many such attempts fit before a token ends.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The vendor's own host, of which it is known what its published API documents.
const VENDOR_HOST: &str = "api.finicity.com";

const ADVICE: &str = "the vendor's published API documents partner authentication (POST \
                      /aggregation/v2/partners/authentication), not OAuth 2.0: ask the vendor whether OAuth 2.0 is enabled \
                      for this account";

/// Something that mints tokens: the real endpoint, or a test's.
pub trait Mint: Send + Sync + 'static {
    /// Makes one token call.
    ///
    /// # Errors
    ///
    /// When the call brought no usable token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a token minted at the server that nobody knows of; that costs nothing.
    fn mint(&self) -> impl Future<Output = Result<Grant, Failure>> + Send;

    /// What else an operator should know about `failure`, if anything.
    fn advice(&self, failure: &Failure) -> Option<&'static str> {
        let _ = failure;
        None
    }
}

/// The configured token endpoint.
#[derive(Debug)]
pub struct Endpoint {
    client: reqwest::Client,
    url: reqwest::Url,
    scope: Option<String>,
    credentials: Credentials,
}

/// Why the endpoint cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Base and path do not make a URL.
    #[error("the token endpoint's address is not a valid URL")]
    Url,
    /// The HTTP client cannot be built.
    #[error("the HTTP client for token calls cannot be built")]
    Client(#[source] reqwest::Error),
}

impl Endpoint {
    /// The endpoint that `config` names, trusted as `tls` says, called with `credentials`.
    ///
    /// # Errors
    ///
    /// When the address or the TLS configuration cannot be used.
    pub fn new(config: &Config, tls: ClientConfig, credentials: Credentials) -> Result<Self, EndpointError> {
        let url = endpoint_url(&config.base, &config.token_path).ok_or(EndpointError::Url)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .user_agent(concat!("finicity-proxy/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(EndpointError::Client)?;
        Ok(Self { client, url, scope: config.scope.clone(), credentials })
    }

    async fn call(&self) -> Result<Grant, Failure> {
        let body = oauth2::body(&self.credentials, self.scope.as_deref());
        let mut response = self
            .client
            .post(self.url.clone())
            .header(FINICITY_APP_KEY, self.credentials.app_key.header())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.expose().clone())
            .send()
            .await
            .map_err(failure)?;

        let mut body = Zeroizing::new(Vec::with_capacity(USUAL_ANSWER_BYTES));
        let mut whole = true;
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER_BYTES => body.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    whole = false;
                    break None;
                }
                Ok(None) => break None,
                Err(error) => break Some(failure(error)),
            }
        };
        let answer =
            Answer { status: response.status(), headers: response.headers(), body: whole.then_some(body.as_slice()) };
        debug!(
            http.response.status_code = answer.status.as_u16(),
            bytes = answer.body.map(<[u8]>::len),
            "token answer"
        );
        let outcome = classify(&answer, oauth2::TOKEN_FIELD, SystemTime::now());
        match (outcome, broken) {
            (Ok(minted), None) => Ok(oauth2::grant(&self.credentials, minted)),
            (Err(failure), None) => Err(failure),
            // A refusal stays one when its body breaks off: taken for a passing fault, it would be tried again at once.
            (Err(failure), Some(_)) if failure.is_verdict() => Err(failure),
            (_, Some(broken)) => Err(broken),
        }
    }
}

impl Mint for Endpoint {
    fn mint(&self) -> impl Future<Output = Result<Grant, Failure>> + Send {
        self.call()
    }

    fn advice(&self, failure: &Failure) -> Option<&'static str> {
        let refused = failure.class == Class::Rejected || failure.status == Some(http::StatusCode::NOT_FOUND);
        (refused && self.url.host_str() == Some(VENDOR_HOST)).then_some(ADVICE)
    }
}

fn endpoint_url(base: &Uri, path: &str) -> Option<reqwest::Url> {
    let uri = Uri::builder().scheme("https").authority(base.authority()?.clone()).path_and_query(path).build().ok()?;
    reqwest::Url::parse(&uri.to_string()).ok()
}

/// The class of a call that got no whole answer. Nothing of reqwest's error is kept: its text holds the URL.
fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    debug!(error = ?error, "token call failed");
    let (class, reason) = if error.is_timeout() {
        (Class::Transient, "the token endpoint did not answer in time")
    } else if is_certificate_error(&error) {
        (Class::Certificate, "the token endpoint's certificate does not verify: see upstream.ca_file")
    } else if error.is_connect() {
        (Class::Transient, "the token endpoint cannot be reached")
    } else {
        (Class::Transient, "the connection to the token endpoint broke")
    };
    Failure::new(class, reason)
}

fn is_certificate_error(error: &reqwest::Error) -> bool {
    matches!(cause::find(error), Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str) -> Endpoint {
        let config = Config {
            base: base.parse().unwrap(),
            token_path: oauth2::TOKEN_PATH.to_owned(),
            scope: None,
            default_lifetime: Duration::from_secs(7200),
            token_wait: Duration::from_secs(2),
        };
        let credentials = Credentials {
            client_id: "id".into(),
            client_secret: "canary-secret".into(),
            app_key: crate::credentials::AppKey::new("canary-key".into()).unwrap(),
        };
        let tls = crate::tls::client_config(&crate::tls::Config::default()).unwrap();
        Endpoint::new(&config, tls, credentials).unwrap()
    }

    #[test]
    fn the_address_is_the_authority_and_the_path() {
        assert_eq!(endpoint("https://api.finicity.com").url.as_str(), "https://api.finicity.com/oauth/token");
        assert_eq!(endpoint("https://[::1]:8443").url.as_str(), "https://[::1]:8443/oauth/token");
    }

    #[test]
    fn a_refusal_by_the_vendor_itself_comes_with_advice() {
        let refused = Failure::new(Class::Rejected, "no");
        let missing = Failure { status: Some(http::StatusCode::NOT_FOUND), ..Failure::new(Class::Config, "no") };
        for failure in [&refused, &missing] {
            assert!(endpoint("https://api.finicity.com").advice(failure).unwrap().contains("partner"));
            assert!(endpoint("https://localhost:1").advice(failure).is_none());
        }
        assert!(endpoint("https://api.finicity.com").advice(&Failure::new(Class::Transient, "no")).is_none());
    }

    #[test]
    fn l03_debug_output_of_an_endpoint_holds_no_secret() {
        assert!(!format!("{:?}", endpoint("https://localhost:1")).contains("canary"));
    }
}
