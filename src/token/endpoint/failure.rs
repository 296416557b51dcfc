//! Why a token request got no complete response: one sentence with host, port, reason and what to do.
//!
//! The words are this program's, the resolver's or the operating system's; none is a peer's.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{StatusCode, Uri};
use humantime::format_duration;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    credentials::{EGRESS_PASSWORD, EGRESS_USERNAME},
    dns::{ResolveError, Resolver},
    egress, error_chain,
    tls::TlsFailure,
    token::classify::{Disposition, FailureClass, TokenFailure},
};

/// The way to the token endpoint: puts what failed on it into words.
#[derive(Debug)]
pub(crate) struct Route {
    /// Host and port of the token endpoint.
    endpoint: Arc<str>,
    /// Host and port of the egress proxy, where there is one.
    egress: Option<String>,
    /// Whether TLS is spoken with the token endpoint.
    is_tls: bool,
}

impl Route {
    /// The way to `base`. `None` where an address has no host.
    pub(crate) fn new(base: &Uri, egress: Option<&egress::Config>) -> Option<Self> {
        let egress = match egress {
            Some(egress) => Some(host_and_port(&egress.url)?),
            None => None,
        };
        Some(Self { endpoint: host_and_port(base)?.into(), egress, is_tls: base.scheme_str() != Some("http") })
    }

    /// Host and port of the token endpoint.
    pub(crate) fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    /// What the first connection leads to, and the key that says so.
    pub(crate) fn first_hop(&self) -> (String, &'static str) {
        match &self.egress {
            Some(egress) => (format!("the egress proxy {egress}"), "upstream.egress_proxy"),
            None => (format!("the token endpoint {}", self.endpoint), "upstream.url"),
        }
    }

    /// The failure of a request for which no connection could be opened within `limit`. Nothing of it was sent. `tunnel_error` is why
    /// the egress proxy makes no tunnel, where it does not.
    pub(super) fn connect_failure(
        &self,
        error: &reqwest::Error,
        tunnel_error: Option<&egress::Error>,
        limit: Duration,
    ) -> TokenFailure {
        let is_tls = TlsFailure::find(error).is_some() || error_chain::find::<rustls::Error>(error).is_some();
        let failure = if let Some(error) = tunnel_error {
            self.egress_failure(error)
        } else if is_tls {
            self.tls_failure(error)
        } else if error.is_timeout() {
            let ((hop, key), limit) = (self.first_hop(), format_duration(limit));
            transient(format!("no connection to {hop} within {limit}, DNS and TLS included"), unanswered(key))
        } else if self.is_tls && error_chain::find::<ResolveError>(error).is_none() && !is_of_tcp(error) {
            self.tls_failure(error)
        } else {
            self.tcp_failure(error, limit)
        };
        failure.with_disposition(Disposition::NotSent)
    }

    /// The failure of a connection to the first hop: of its name, or of TCP within `limit`.
    pub(crate) fn tcp_failure(&self, error: &(dyn Error + 'static), limit: Duration) -> TokenFailure {
        let (hop, key) = self.first_hop();
        if let Some(error) = error_chain::find::<ResolveError>(error) {
            return transient(
                format!("cannot connect to {hop}: {}", error_chain::one_line(error)),
                format!("check the name in {key}, and that the DNS server of this machine or cluster answers"),
            );
        }
        let kind = innermost_kind(error).unwrap_or(io::ErrorKind::Other);
        let (reason, remedy) = match kind {
            io::ErrorKind::ConnectionRefused => {
                (kind.to_string(), format!("check {key}, and that a server listens there"))
            }
            io::ErrorKind::TimedOut => (format!("no answer within {}", format_duration(limit)), unanswered(key)),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied => (
                kind.to_string(),
                "check routes, firewalls and network policies, and whether this network needs upstream.egress_proxy"
                    .to_owned(),
            ),
            // Of the connector, too, which sends plain HTTP to no other machine.
            io::ErrorKind::AddrNotAvailable => (
                "no local address is free, or plain HTTP leads to another machine".to_owned(),
                format!("check where the name in {key} leads"),
            ),
            _ => (kind.to_string(), format!("check {key} and the network")),
        };
        transient(format!("cannot connect to {hop}: {reason}"), remedy)
    }

    /// The failure of an egress proxy to make a tunnel.
    pub(crate) fn egress_failure(&self, error: &egress::Error) -> TokenFailure {
        let ((hop, key), endpoint) = (self.first_hop(), &self.endpoint);
        match error {
            egress::Error::Rejected(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => transient(
                format!("{hop} answered 407: it wants credentials, or others"),
                format!("check {EGRESS_USERNAME} and {EGRESS_PASSWORD}"),
            ),
            egress::Error::Rejected(status) if status.is_client_error() => transient(
                format!("{hop} answered {}: it refuses a tunnel to {endpoint}", status.as_u16()),
                format!("have its rules permit CONNECT to {endpoint}"),
            ),
            egress::Error::Rejected(status) => transient(
                format!("{hop} answered {}: it makes no tunnel to {endpoint}", status.as_u16()),
                format!("check that the egress proxy can reach {endpoint}"),
            ),
            egress::Error::Malformed => {
                transient(format!("the response of {hop} is not valid HTTP"), format!("check host and port in {key}"))
            }
            egress::Error::Io(error) => transient(
                format!("the connection to {hop} broke before there was a tunnel to {endpoint}: {}", error.kind()),
                format!("check {key} and the log of the egress proxy"),
            ),
        }
    }

    /// The failure of a TLS handshake with the token endpoint.
    pub(crate) fn tls_failure(&self, error: &(dyn Error + 'static)) -> TokenFailure {
        let found = TlsFailure::find(error);
        let reason = match (found, error_chain::find::<rustls::Error>(error)) {
            (Some(fault), _) => fault.description().to_owned(),
            (None, Some(rustls::Error::AlertReceived(alert))) => format!("the server sent the TLS alert {alert:?}"),
            (None, Some(rustls::Error::InvalidMessage(_))) => "what listens there does not speak TLS".to_owned(),
            (None, Some(error)) => error.to_string(),
            (None, None) => format!("the connection broke ({})", broken_kind(error)),
        };
        let certificate = found.is_some_and(TlsFailure::is_certificate);
        let class = if certificate { FailureClass::Certificate } else { FailureClass::Transient };
        let reason = format!("the TLS handshake with the token endpoint {} failed: {reason}", self.endpoint);
        TokenFailure::new(class, reason).with_remedy(if certificate {
            "check upstream.ca_file, upstream.pinned_keys and the clock, and whether a gateway in between ends TLS"
        } else {
            "check host and port in upstream.url, and whether a gateway in between ends TLS"
        })
    }

    /// The failure of a request whose connection was open, and whose response is not complete.
    pub(super) fn exchange_failure(&self, error: &reqwest::Error) -> TokenFailure {
        if error_chain::find::<rustls::Error>(error).is_some() {
            return self.tls_failure(error);
        }
        match error_chain::find::<hyper::Error>(error) {
            Some(error) if error.is_parse() => self.broken("the response is not valid HTTP"),
            Some(error) if error.is_incomplete_message() => {
                self.broken("the server closed it before the response was complete")
            }
            _ => self.broken(&broken_kind(error)),
        }
    }

    fn broken(&self, reason: &str) -> TokenFailure {
        transient(
            format!("the connection to the token endpoint {} broke: {reason}", self.endpoint),
            "check what stands between this proxy and the vendor, and the vendor's status page".to_owned(),
        )
    }
}

/// Whether `error`, of a connection through an egress proxy, may be of the tunnel: neither of DNS or TCP, nor certainly of TLS.
pub(super) fn is_of_tunnel(error: &reqwest::Error) -> bool {
    !error.is_timeout()
        && !is_of_tcp(error)
        && error_chain::find::<ResolveError>(error).is_none()
        && error_chain::find::<rustls::Error>(error).is_none()
}

/// Whether opening a TCP connection failed: the errors of `connect`, and of a connector that finds no address to try.
fn is_of_tcp(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
    };
    let kinds = [AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut];
    innermost_kind(error).is_some_and(|kind| kinds.contains(&kind))
}

/// Asks the egress proxy for a tunnel once more, and returns why it makes none. Nothing is sent through it. `None` when there is one
/// now, or the proxy cannot be reached within `limit`.
pub(super) async fn tunnel_error(
    config: &egress::Config,
    base: &Uri,
    resolver: &Resolver,
    limit: Duration,
) -> Option<egress::Error> {
    let tunnel = egress::Tunnel::new(&egress::target(base.authority()?), config.authorization.as_ref());
    let (host, port) = (config.url.host()?, config.url.port_u16().unwrap_or(80));
    let opened = async {
        let addresses = resolver.lookup(host, limit).await.ok()?;
        let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        let mut stream = TcpStream::connect(&addresses[..]).await.ok()?;
        tunnel.open(&mut stream).await.err()
    };
    timeout(limit, opened).await.ok()?
}

/// No HTTP client can be built, which the start has ruled out.
pub(super) fn unusable_client() -> TokenFailure {
    TokenFailure::new(FailureClass::Misconfigured, "the HTTP client for token requests cannot be built")
        .with_disposition(Disposition::NotSent)
}

/// The failure of a request to `endpoint` without a complete response within `limit`.
pub(super) fn timed_out(endpoint: &str, limit: Duration) -> TokenFailure {
    transient(
        format!("the token endpoint {endpoint} sent no complete response within {}", format_duration(limit)),
        "check the vendor's status page, and what stands between this proxy and the vendor".to_owned(),
    )
}

fn transient(reason: String, remedy: String) -> TokenFailure {
    TokenFailure::new(FailureClass::Transient, reason).with_remedy(remedy)
}

/// What to do where nothing answers at the address in `key`.
fn unanswered(key: &str) -> String {
    format!("check {key}, and that DNS, firewalls and network policies permit the connection")
}

/// What the system said of a broken connection.
fn broken_kind(error: &(dyn Error + 'static)) -> String {
    innermost_kind(error).map_or_else(|| "it was closed".to_owned(), |kind| kind.to_string())
}

/// The kind of the I/O error that is the cause of all others.
fn innermost_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let errors = error_chain::chain(error).filter_map(|error| error.downcast_ref::<io::Error>());
    errors.last().map(io::Error::kind)
}

/// Host and port; the scheme's own port where none is named.
fn host_and_port(url: &Uri) -> Option<String> {
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    Some(format!("{}:{port}", url.host()?))
}
