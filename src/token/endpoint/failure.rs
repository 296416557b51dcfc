//! Describes why a token request got no complete response: one sentence with host, port, reason and remedy.
//!
//! The text comes from this program, the resolver or the operating system, never from a peer.

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

/// The route to the token endpoint. Describes failures on it.
#[derive(Debug)]
pub(crate) struct Route {
    /// Host and port of the token endpoint.
    endpoint: Arc<str>,
    /// Host and port of the egress proxy, if any.
    egress: Option<String>,
    /// Whether the token endpoint uses TLS.
    is_tls: bool,
}

impl Route {
    /// The route to `base`. `None` if a URL has no host.
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

    /// The peer of the TCP connection, and the configuration key that sets its address.
    pub(crate) fn first_hop(&self) -> (String, &'static str) {
        match &self.egress {
            Some(egress) => (format!("the egress proxy {egress}"), "upstream.egress_proxy"),
            None => (format!("the token endpoint {}", self.endpoint), "upstream.url"),
        }
    }

    /// The failure of a request for which no connection could be opened within `limit`, so nothing was sent. `tunnel_error` is why
    /// the egress proxy opened no tunnel, if that was the cause.
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
            transient(format!("no connection to {hop} within {limit}, DNS and TLS included"), unreachable_remedy(key))
        } else if self.is_tls && error_chain::find::<ResolveError>(error).is_none() && !is_of_tcp(error) {
            self.tls_failure(error)
        } else {
            self.tcp_failure(error, limit)
        };
        failure.with_disposition(Disposition::NotSent)
    }

    /// The failure of a connection to the first hop: of DNS, or of TCP within `limit`.
    pub(crate) fn tcp_failure(&self, error: &(dyn Error + 'static), limit: Duration) -> TokenFailure {
        let (hop, key) = self.first_hop();
        if let Some(error) = error_chain::find::<ResolveError>(error) {
            return transient(
                format!("cannot connect to {hop}: {}", error_chain::one_line(error)),
                format!("check the name in {key}, and that the DNS server of this machine or cluster responds"),
            );
        }
        let kind = innermost_kind(error).unwrap_or(io::ErrorKind::Other);
        let (reason, remedy) = match kind {
            io::ErrorKind::ConnectionRefused => {
                (kind.to_string(), format!("check {key}, and that a server is listening there"))
            }
            io::ErrorKind::TimedOut => {
                (format!("no response within {}", format_duration(limit)), unreachable_remedy(key))
            }
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied => (
                kind.to_string(),
                "check routes, firewalls and network policies, and whether this network needs upstream.egress_proxy"
                    .to_owned(),
            ),
            // The connector also returns this for plain HTTP to another machine.
            io::ErrorKind::AddrNotAvailable => (
                "no local address is available, or plain HTTP would leave this machine".to_owned(),
                format!("check what the name in {key} resolves to"),
            ),
            _ => (kind.to_string(), format!("check {key} and the network")),
        };
        transient(format!("cannot connect to {hop}: {reason}"), remedy)
    }

    /// The failure of an egress proxy to open a tunnel.
    pub(crate) fn egress_failure(&self, error: &egress::Error) -> TokenFailure {
        let ((hop, key), endpoint) = (self.first_hop(), &self.endpoint);
        match error {
            egress::Error::Rejected(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => transient(
                format!("{hop} returned 407: it requires credentials, or rejected those it received"),
                format!("check {EGRESS_USERNAME} and {EGRESS_PASSWORD}"),
            ),
            egress::Error::Rejected(status) if status.is_client_error() => transient(
                format!("{hop} returned {}: it forbids a tunnel to {endpoint}", status.as_u16()),
                format!("allow CONNECT to {endpoint} in its rules"),
            ),
            egress::Error::Rejected(status) => transient(
                format!("{hop} returned {}: it cannot open a tunnel to {endpoint}", status.as_u16()),
                format!("check that the egress proxy can reach {endpoint}"),
            ),
            egress::Error::Malformed => {
                transient(format!("the response of {hop} is not valid HTTP"), format!("check host and port in {key}"))
            }
            egress::Error::Io(error) => transient(
                format!("the connection to {hop} failed before the tunnel to {endpoint} was open: {}", error.kind()),
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
            (None, Some(rustls::Error::InvalidMessage(_))) => "the server does not speak TLS".to_owned(),
            (None, Some(error)) => error.to_string(),
            (None, None) => format!("the connection failed ({})", broken_kind(error)),
        };
        let certificate = found.is_some_and(TlsFailure::is_certificate);
        let class = if certificate { FailureClass::Certificate } else { FailureClass::Transient };
        let reason = format!("the TLS handshake with the token endpoint {} failed: {reason}", self.endpoint);
        TokenFailure::new(class, reason).with_remedy(if certificate {
            "check upstream.ca_file, upstream.pinned_keys and the clock, and whether a gateway in between terminates TLS"
        } else {
            "check host and port in upstream.url, and whether a gateway in between terminates TLS"
        })
    }

    /// The failure of a request after its connection was open and before its response was complete.
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
            format!("the connection to the token endpoint {} failed: {reason}", self.endpoint),
            "check the gateways between this proxy and the vendor, and the vendor's status page".to_owned(),
        )
    }
}

/// Whether `error`, from a connection through an egress proxy, may be a tunnel failure: it is not from DNS or TCP, and not
/// certainly from TLS.
pub(super) fn is_of_tunnel(error: &reqwest::Error) -> bool {
    !error.is_timeout()
        && !is_of_tcp(error)
        && error_chain::find::<ResolveError>(error).is_none()
        && error_chain::find::<rustls::Error>(error).is_none()
}

/// Whether opening a TCP connection failed: an error of `connect`, or of a connector without an address to try.
fn is_of_tcp(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
    };
    let kinds = [AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut];
    innermost_kind(error).is_some_and(|kind| kinds.contains(&kind))
}

/// Requests a tunnel from the egress proxy once more, and returns why it opens none. Nothing is sent through it. `None` if the tunnel
/// opens this time, or the proxy cannot be reached within `limit`.
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

/// The failure to build an HTTP client. Not expected: startup has built one with the same configuration.
pub(super) fn unusable_client() -> TokenFailure {
    TokenFailure::new(FailureClass::Misconfigured, "cannot build the HTTP client for token requests")
        .with_disposition(Disposition::NotSent)
}

/// The failure of a request to `endpoint` without a complete response within `limit`.
pub(super) fn timed_out(endpoint: &str, limit: Duration) -> TokenFailure {
    transient(
        format!("the token endpoint {endpoint} sent no complete response within {}", format_duration(limit)),
        "check the vendor's status page, and the gateways between this proxy and the vendor".to_owned(),
    )
}

fn transient(reason: String, remedy: String) -> TokenFailure {
    TokenFailure::new(FailureClass::Transient, reason).with_remedy(remedy)
}

/// The remedy when the address in `key` does not respond.
fn unreachable_remedy(key: &str) -> String {
    format!("check {key}, and that DNS, firewalls and network policies permit the connection")
}

/// Describes the I/O error of a failed connection.
fn broken_kind(error: &(dyn Error + 'static)) -> String {
    innermost_kind(error).map_or_else(|| "it was closed".to_owned(), |kind| kind.to_string())
}

/// The kind of the innermost I/O error in the chain.
fn innermost_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let errors = error_chain::chain(error).filter_map(|error| error.downcast_ref::<io::Error>());
    errors.last().map(io::Error::kind)
}

/// Host and port; by default, the port of the scheme.
fn host_and_port(url: &Uri) -> Option<String> {
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    Some(format!("{}:{port}", url.host()?))
}
