//! Opens connections to the upstream: DNS lookup, TCP, the egress proxy if configured, and TLS, all within `upstream.connect_timeout`.
//!
//! Each connection does a lookup ([`dns`](crate::dns)).

pub(super) mod failure;

use std::{
    convert::Infallible,
    error::Error as StdError,
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use http::Uri;
use hyper_util::client::legacy::connect::{HttpConnector, dns::Name};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tower::{Service, ServiceExt as _};

use super::{UpstreamConfig, http2, stream::MaybeTlsStream};
use crate::{
    dns::{Addresses, Lookup, ResolveError, Resolver, SystemLookup},
    egress::{self, Tunnel},
    tls::{self, TrustStore},
};

/// How long to try the addresses of the preferred family before trying the others in parallel: the delay that RFC 8305, section 8,
/// recommends. If longer, requests wait for broken IPv6; if shorter, both families are usually tried.
const HAPPY_EYEBALLS: Duration = Duration::from_millis(250);

/// The protocols offered if HTTP/2 is enabled.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The protocol negotiated with the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Opens connections: to the upstream, or in memory in tests.
pub(crate) trait Connect: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens a connection.
    fn connect(&self) -> impl Future<Output = Result<(Self::Stream, Protocol), ConnectError>> + Send;
}

/// Why a connection could not be opened. No byte of a request was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The host name has no address, or the lookup failed.
    #[error("cannot resolve the host name")]
    Resolve(#[from] ResolveError),
    /// No address of the host accepts a connection.
    #[error("TCP connect failed")]
    Tcp(#[source] Box<dyn StdError + Send + Sync>),
    /// The egress proxy did not open a tunnel.
    #[error("CONNECT tunnel failed")]
    Egress(#[from] egress::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The HTTP/2 handshake failed.
    #[error("HTTP/2 handshake failed")]
    Http(#[source] http2::Error),
    /// `upstream.connect_timeout` expired.
    #[error("connect timed out")]
    TimedOut,
}

/// A resolver that returns known addresses.
#[derive(Clone)]
struct Resolved(Addresses);

impl Service<Name> for Resolved {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        // `HttpConnector` sets the port of the URL.
        let addresses: Vec<_> = self.0.iter().map(|address| SocketAddr::new(*address, 0)).collect();
        ready(Ok(addresses.into_iter()))
    }
}

/// Opens connections to the configured upstream.
pub(crate) struct Connector<L = SystemLookup> {
    resolver: Resolver<L>,
    /// The target of the TCP connection: the upstream or the egress proxy.
    first_hop: Uri,
    tunnel: Option<Tunnel>,
    tls: Option<TlsConnector>,
    connect_timeout: Duration,
}

/// Configures TLS for each connection, with the current trust store.
struct TlsConnector {
    trust_store: TrustStore,
    name: ServerName<'static>,
    http2: bool,
}

impl TlsConnector {
    fn client_config(&self) -> Arc<ClientConfig> {
        let mut config = self.trust_store.client_config();
        if self.http2 {
            config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        }
        Arc::new(config)
    }
}

impl<L: Lookup> Connector<L> {
    /// Connects to `config.url`, using `resolver` and the current state of `trust_store` for each connection.
    pub(crate) fn new(config: &UpstreamConfig, resolver: Resolver<L>, trust_store: TrustStore) -> Self {
        let authority = config.url.authority().expect("the configuration checked the upstream's authority");
        let tls = (config.url.scheme_str() != Some("http")).then(|| {
            let name = server_name(authority.host()).expect("the configuration checked the upstream's host");
            TlsConnector { trust_store, name, http2: config.http2 }
        });
        let tunnel = config.egress.as_ref().map(|egress| {
            let target = egress::target(authority);
            Tunnel::new(&target, egress.authorization.as_ref())
        });
        let first_hop = config.egress.as_ref().map_or(&config.url, |egress| &egress.url).clone();
        Self { resolver, first_hop, tunnel, tls, connect_timeout: config.connect_timeout }
    }
}

/// The name that the certificate of `host` must match. `None` if no certificate can match it.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    ServerName::try_from(address.unwrap_or(host).to_owned()).ok()
}

impl<L: Lookup> Connect for Connector<L> {
    type Stream = MaybeTlsStream;

    async fn connect(&self) -> Result<(MaybeTlsStream, Protocol), ConnectError> {
        let deadline = Instant::now() + self.connect_timeout;
        let host = self.first_hop.host().expect("the configuration checked the host");
        let addresses = self.resolver.lookup(host, self.connect_timeout).await?;
        timeout_at(deadline, self.open(addresses)).await.unwrap_or(Err(ConnectError::TimedOut))
    }
}

impl<L: Lookup> Connector<L> {
    /// Connects to one of `addresses`.
    async fn open(&self, addresses: Addresses) -> Result<(MaybeTlsStream, Protocol), ConnectError> {
        let mut connector = HttpConnector::new_with_resolver(Resolved(addresses));
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_happy_eyeballs_timeout(Some(HAPPY_EYEBALLS));
        // `HttpConnector` divides it among the addresses of a family, so that a dead one leaves time for the next.
        connector.set_connect_timeout(Some(self.connect_timeout));
        let connected = connector.oneshot(self.first_hop.clone()).await;
        let mut tcp = connected.map_err(|error| ConnectError::Tcp(error.into()))?.into_inner();
        if let Some(tunnel) = &self.tunnel {
            tunnel.open(&mut tcp).await?;
        }
        let Some(tls) = &self.tls else {
            // The configuration accepts only loopback names here, but the resolver decides where a name leads.
            let is_loopback = tcp.peer_addr().is_ok_and(|address| address.ip().is_loopback());
            let not_loopback =
                || io::Error::new(io::ErrorKind::AddrNotAvailable, "plain HTTP is allowed to loopback addresses only");
            return if is_loopback {
                Ok((MaybeTlsStream::Plain(tcp), Protocol::Http1))
            } else {
                Err(ConnectError::Tcp(not_loopback().into()))
            };
        };
        let tls = tls::Stream::connect(tls.client_config(), tls.name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        let alpn = tls.alpn_protocol();
        let protocol = if alpn == Some(ALPN[0]) { Protocol::Http2 } else { Protocol::Http1 };
        Ok((MaybeTlsStream::Tls(Box::new(tls)), protocol))
    }
}

#[cfg(test)]
mod tests;
