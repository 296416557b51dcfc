//! HTTP requests to the secret stores, by reqwest.
//!
//! Each request uses its own client and connection, because there is about one a minute and `credentials.ca_file` may change
//! in between.
//!
//! Deliberately absent: redirects, the environment's proxies, cookies, decompression, HTTP/2.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use zeroize::Zeroizing;

use crate::{
    credentials::{config::StoreConfig, store_error::StoreFault},
    error_chain,
    tls::{self, TlsFailure},
};

/// The maximum time to connect, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum time for a whole request.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum size of a response. A secret is at most 64 KiB in AWS and 1 MiB in Vault, and JSON may escape a character to six.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Capacity for a typical response.
const TYPICAL_BODY_BYTES: usize = 8 * 1024;

/// The IPv6 prefixes of the metadata services of AWS and Google.
const METADATA_PREFIXES: [[u16; 2]; 2] = [[0xfd00, 0x0ec2], [0xfd20, 0x00ce]];

/// Time limits for a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::credentials) struct Limits {
    /// The maximum time to connect, including TLS.
    pub(in crate::credentials) connect: Duration,
    /// The maximum time for the whole request.
    pub(in crate::credentials) total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: CONNECT_TIMEOUT, total: TIMEOUT }
    }
}

#[cfg(feature = "aws")]
impl Limits {
    /// The minimum of these limits and those that the store's client requests.
    pub(in crate::credentials) fn at_most(self, connect: Option<Duration>, read: Option<Duration>) -> Self {
        let connect = connect.map_or(self.connect, |connect| connect.min(self.connect));
        let total = read.map_or(self.total, |read| (connect + read).min(self.total));
        Self { connect, total }
    }
}

/// Sends requests to a store.
#[derive(Clone, Debug)]
pub(in crate::credentials) struct Transport {
    ca_file: Option<PathBuf>,
    egress_proxy: Option<Uri>,
}

/// Why there is no response. Shows no header field and no body.
#[derive(Debug, thiserror::Error)]
pub(in crate::credentials) enum TransportError {
    /// The CA file cannot be used.
    #[error("credentials.ca_file cannot be used")]
    CaFile(#[source] tls::Error),
    /// The address is `http://` and not on this machine.
    #[error("the address has no TLS and is not on this machine")]
    Plaintext,
    /// The request is invalid.
    #[error("invalid HTTP request")]
    Request(#[source] reqwest::Error),
    /// There was no complete response.
    #[error("the HTTP request failed")]
    Http(#[source] reqwest::Error),
    /// The response is larger than any legitimate response of a store.
    #[error("the response is longer than {MAX_BODY_BYTES} bytes")]
    TooLarge,
}

/// A [`TransportError`] in the operator's terms.
#[derive(Debug)]
pub(in crate::credentials) struct TransportFailure {
    pub(in crate::credentials) fault: StoreFault,
    pub(in crate::credentials) reason: String,
    pub(in crate::credentials) remedy: &'static str,
}

impl Transport {
    pub(in crate::credentials) fn new(config: &StoreConfig) -> Self {
        Self { ca_file: config.ca_file.clone(), egress_proxy: config.egress_proxy.clone() }
    }

    /// Sends `request` and reads the whole response. The memory of its body is overwritten when it is dropped.
    ///
    /// Plain HTTP is allowed only to this machine and to a cloud's link-local metadata service, and never uses the egress proxy.
    ///
    /// # Errors
    ///
    /// If there is no complete response.
    pub(in crate::credentials) async fn send(
        &self,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, TransportError> {
        let is_plaintext = request.uri().scheme_str() != Some("https");
        if is_plaintext && !request.uri().host().is_some_and(is_local) {
            return Err(TransportError::Plaintext);
        }
        let client = self.client(is_plaintext, limits)?;
        let request = reqwest::Request::try_from(request).map_err(request_error)?;
        let mut response = client.execute(request).await.map_err(http_error)?;
        let mut head = Response::new(());
        *head.status_mut() = response.status();
        *head.headers_mut() = std::mem::take(response.headers_mut());
        let mut body = Zeroizing::new(Vec::with_capacity(TYPICAL_BODY_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(http_error)? {
            append(&mut body, &chunk)?;
        }
        Ok(head.map(|()| Bytes::from_owner(body)))
    }

    fn client(&self, is_plaintext: bool, limits: Limits) -> Result<reqwest::Client, TransportError> {
        let trust = tls::Config {
            public_roots: self.ca_file.is_none(),
            ca_file: self.ca_file.clone(),
            ..tls::Config::default()
        };
        let (_, trust) = tls::trust_store(trust).map_err(TransportError::CaFile)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.client_config())
            .https_only(!is_plaintext)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(limits.connect)
            .timeout(limits.total);
        // Plain HTTP to `localhost` stays on this machine even if a resolver disagrees. Port 0 means the port in the URL.
        let client = if is_plaintext {
            client.resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
        } else {
            client
        };
        // The only proxy: `no_proxy` above disables those in the environment.
        let proxy = self.egress_proxy.as_ref().filter(|_| !is_plaintext);
        let proxy = proxy.map(|url| reqwest::Proxy::all(url.to_string())).transpose().map_err(request_error)?;
        proxy.into_iter().fold(client, reqwest::ClientBuilder::proxy).build().map_err(request_error)
    }
}

impl TransportError {
    /// The error in the operator's terms. `peer` is the service that was called, such as "AWS Secrets Manager".
    pub(in crate::credentials) fn describe(&self, peer: &str) -> TransportFailure {
        let unreachable = |reason: String, remedy| TransportFailure { fault: StoreFault::Unreachable, reason, remedy };
        match self {
            Self::CaFile(error) => TransportFailure {
                fault: StoreFault::UntrustedTls,
                reason: format!("credentials.ca_file cannot be used: {}", error_chain::one_line(error)),
                remedy: "name a PEM file with the CA of the store, or none for the public ones",
            },
            Self::Plaintext => unreachable(
                format!("the address of {peer} has no TLS and is not on this machine"),
                "use an https:// address",
            ),
            Self::Request(_) => unreachable(
                format!("the request to {peer} is invalid"),
                "correct the address of the store and credentials.egress_proxy",
            ),
            Self::TooLarge => {
                unreachable(format!("the response of {peer} is too long"), "check the address of the store")
            }
            Self::Http(error) => match TlsFailure::find(error) {
                Some(failure) => tls_failure(failure, peer),
                None => unreachable(
                    format!("{peer} {}", connection_fault(error)),
                    "check the address of the store, DNS, firewalls and network policies, and credentials.egress_proxy",
                ),
            },
        }
    }
}

fn tls_failure(failure: TlsFailure, peer: &str) -> TransportFailure {
    const CA_FILE: &str = "set credentials.ca_file to the CA of the store, or of the proxy that intercepts TLS";
    const CERTIFICATE: &str = "renew or correct the certificate of the store, or its address here";
    let (reason, remedy) = match failure {
        TlsFailure::UnknownIssuer => ("is self-signed or issued by an untrusted CA", CA_FILE),
        TlsFailure::Expired => ("has expired, or the clock of this machine is ahead", CERTIFICATE),
        TlsFailure::NotYetValid => ("is not valid yet, or the clock of this machine is behind", CERTIFICATE),
        TlsFailure::NameMismatch => ("is for another host", CERTIFICATE),
        TlsFailure::PinMismatch | TlsFailure::BadCertificate => ("cannot be used", CERTIFICATE),
        TlsFailure::ProtocolVersion => {
            return TransportFailure {
                fault: StoreFault::UntrustedTls,
                reason: format!("{peer} does not speak TLS 1.2 or 1.3"),
                remedy: "check the address of the store",
            };
        }
    };
    TransportFailure { fault: StoreFault::UntrustedTls, reason: format!("the certificate of {peer} {reason}"), remedy }
}

/// What happened to the connection, phrased to follow the peer's name. Does not use the error's own text, which may quote the peer.
fn connection_fault(error: &reqwest::Error) -> String {
    let names = |text: &str| error_chain::chain(error).any(|cause| cause.to_string().starts_with(text));
    if names("tunnel error") {
        return "cannot be reached: the egress proxy did not open a tunnel".to_owned();
    }
    if names("dns error") {
        return "cannot be reached: its name cannot be resolved".to_owned();
    }
    if error.is_timeout() {
        return "did not respond in time".to_owned();
    }
    let kind = error_chain::find::<io::Error>(error).map(io::Error::kind);
    match kind {
        Some(kind) if error.is_connect() => format!("cannot be reached: {kind}"),
        Some(kind) => format!("did not respond: {kind}"),
        None if error.is_connect() => "cannot be reached".to_owned(),
        None => "did not respond: the connection broke".to_owned(),
    }
}

fn http_error(error: reqwest::Error) -> TransportError {
    TransportError::Http(error.without_url())
}

fn request_error(error: reqwest::Error) -> TransportError {
    TransportError::Request(error.without_url())
}

/// Appends `chunk` to `body`. A body that outgrows its capacity moves to a buffer of the maximum size, and the old memory is overwritten.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) -> Result<(), TransportError> {
    if body.len() + chunk.len() > MAX_BODY_BYTES {
        return Err(TransportError::TooLarge);
    }
    if body.len() + chunk.len() > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(MAX_BODY_BYTES));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
    Ok(())
}

/// Whether `host` is this machine or the address of a cloud's metadata service: link-local, AWS's `fd00:ec2::/32` or Google's
/// `fd20:ce::/32`.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host == "localhost" {
        return true;
    }
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || METADATA_PREFIXES.iter().any(|prefix| ip.segments().starts_with(prefix))
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_only_for_local_and_metadata_services() {
        for local in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "169.254.169.254",
            "169.254.170.23",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in
            ["", "localhost.evil.test", "10.0.0.1", "169.253.1.1", "[fd00:ec3::1]", "[fe80::1]", "127.0.0.1.test"]
        {
            assert!(!is_local(remote), "{remote}");
        }
    }

    #[tokio::test]
    async fn plain_http_to_another_machine_is_not_sent() {
        let store = StoreConfig { poll_interval: TIMEOUT, ca_file: None, egress_proxy: None };
        for address in ["http://192.0.2.1/", "http://store.internal/", "ftp://localhost.test/"] {
            let request = Request::get(address).body(Bytes::new()).unwrap();
            let error = Transport::new(&store).send(request, Limits::default()).await.unwrap_err();
            assert!(matches!(error, TransportError::Plaintext), "{address}: {error:?}");
        }
    }

    #[cfg(feature = "aws")]
    #[test]
    fn a_client_can_only_shorten_the_limits() {
        let limits = Limits::default();
        let short = limits.at_most(Some(Duration::from_secs(1)), Some(Duration::from_secs(1)));
        assert_eq!((short.connect, short.total), (Duration::from_secs(1), Duration::from_secs(2)));
        let long = limits.at_most(Some(Duration::from_secs(60)), Some(Duration::from_secs(60)));
        assert_eq!((long.connect, long.total), (CONNECT_TIMEOUT, TIMEOUT));
        assert_eq!(limits.at_most(None, None).total, TIMEOUT);
    }

    #[test]
    fn a_body_is_read_up_to_the_maximum_size() {
        let mut body = Zeroizing::new(Vec::with_capacity(4));
        append(&mut body, &[1; MAX_BODY_BYTES]).unwrap();
        assert!(matches!(append(&mut body, &[1]), Err(TransportError::TooLarge)));
    }
}
