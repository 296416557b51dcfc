//! A client for one HTTP request to the running proxy on this machine, for the commands that query, control or demonstrate it.
//!
//! Deliberately absent: TLS and redirects. None of the proxy's listeners uses either.

use std::{fmt, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, response::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::server::Address;

/// The maximum time that a command accepts as a timeout. A longer one is a typing error, and may overflow an `Instant`.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// The maximum size of a response body in bytes. The longest response of a probe has a few hundred.
const MAX_RESPONSE: usize = 64 * 1024;

/// Parses a time limit, such as `30s`.
///
/// # Errors
///
/// Describes the expected form.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| *time <= MAX_TIME);
    time.ok_or_else(|| "must be a duration of at most one day, such as 30s".to_owned())
}

/// The address of a listener of the running proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A host, by name or by address, and its port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// The target by which a process on this machine reaches a listener on `address`. `None` when the port is 0.
    pub(super) fn of(address: &Address) -> Option<Self> {
        let address = match address {
            Address::Unix(path) => return Some(Self::Unix(path.clone())),
            Address::Tcp(address) => address,
        };
        let host = match address.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            // `[::]` accepts IPv4 too, and is replaced by `0.0.0.0` on a machine without IPv6.
            _ => "127.0.0.1".to_owned(),
        };
        (address.port() != 0).then(|| Self::Tcp(host, address.port()))
    }

    /// Parses `http://HOST:PORT`.
    ///
    /// # Errors
    ///
    /// Describes the expected form.
    pub(super) fn from_url(text: &str) -> Result<Self, String> {
        let expected = "must be http:// and a host without a path, such as http://127.0.0.1:3465";
        let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
        let bare = url.scheme_str() == Some("http") && url.path() == "/" && url.query().is_none();
        let authority = url.authority().filter(|authority| bare && !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| expected.to_owned())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self::Tcp(host.to_owned(), authority.port_u16().unwrap_or(80)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    /// Nothing listens there.
    #[error("cannot connect to {0} (is the proxy running with this configuration?)")]
    Unreachable(Target, #[source] io::Error),
    /// There is no complete response within the time limit.
    #[error("no response from {0} within {limit}", limit = humantime::format_duration(*.1))]
    Slow(Target, Duration),
    /// The server there does not speak HTTP.
    #[error("malformed response from {0}")]
    Malformed(Target, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An address to send requests to, and the authorization for it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) target: Target,
    pub(super) authorization: Option<HeaderValue>,
}

impl Endpoint {
    /// One that needs no authorization.
    pub(super) fn open(target: Target) -> Self {
        Self { target, authorization: None }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct LocalRequest<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: &'a str,
    /// Header fields in addition to `Host` and `Authorization`.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> LocalRequest<'a> {
    /// One without header fields and without a body.
    pub(super) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct LocalResponse {
    /// Where it came from.
    pub(super) target: Target,
    pub(super) head: Parts,
    /// The body without trailing white space.
    pub(super) text: String,
}

/// Sends `request` to the first of `endpoints` that accepts a connection. `limit` is the maximum time for the complete response.
///
/// # Errors
///
/// When there is no response. If no endpoint accepts a connection, the error is that of the first.
///
/// # Panics
///
/// When `endpoints` is empty.
pub(super) async fn send(
    endpoints: &[Endpoint],
    request: &LocalRequest<'_>,
    limit: Duration,
) -> Result<LocalResponse, LocalError> {
    let mut current = &endpoints.first().expect("`endpoints` is not empty").target;
    let response = async {
        let mut unreachable = None;
        for endpoint in endpoints {
            current = &endpoint.target;
            match send_to(endpoint, request).await {
                Err(error @ LocalError::Unreachable(..)) => unreachable = unreachable.or(Some(error)),
                response => return response,
            }
        }
        Err(unreachable.expect("at least one endpoint was tried"))
    };
    let response = timeout(limit, response).await;
    response.unwrap_or_else(|_| Err(LocalError::Slow(current.clone(), limit)))
}

/// Whether something listens at `target`.
pub(super) async fn is_listening(target: &Target) -> bool {
    match target {
        Target::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
        Target::Unix(path) => UnixStream::connect(path).await.is_ok(),
    }
}

async fn send_to(endpoint: &Endpoint, request: &LocalRequest<'_>) -> Result<LocalResponse, LocalError> {
    let target = &endpoint.target;
    let unreachable = |error| LocalError::Unreachable(target.clone(), error);
    let (stream, host): (BoxedStream, _) = match target {
        Target::Tcp(name, port) => {
            let stream = TcpStream::connect((name.as_str(), *port)).await.map_err(unreachable)?;
            (Box::new(stream), target.to_string())
        }
        Target::Unix(path) => (Box::new(UnixStream::connect(path).await.map_err(unreachable)?), "localhost".to_owned()),
    };
    let response = async {
        let response = exchange(stream, &host, endpoint.authorization.as_ref(), request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim_end().to_owned();
        Ok(LocalResponse { target: target.clone(), head, text })
    };
    response.await.map_err(|error| LocalError::Malformed(target.clone(), error))
}

/// A connection over any transport.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// One type for all connections: the HTTP client is compiled only once.
pub(super) type BoxedStream = Box<dyn Connection>;

/// Sends `request` over `stream` and returns the response with its body unread. The connection closes after the response.
///
/// # Errors
///
/// When no complete response head arrives.
pub(super) async fn exchange(
    stream: BoxedStream,
    host: &str,
    authorization: Option<&HeaderValue>,
    request: &LocalRequest<'_>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    #[expect(clippy::disallowed_methods, reason = "this task ends with the sender or with the command's runtime")]
    drop(tokio::spawn(connection));
    let mut head = Request::builder().method(&request.method).uri(request.path).header(header::HOST, host);
    if let Some(authorization) = authorization {
        head = head.header(header::AUTHORIZATION, authorization);
    }
    let mut message = head.body(Full::new(request.body.clone()))?;
    message.headers_mut().extend(request.headers.clone());
    Ok(sender.send_request(message).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_over_loopback() {
        for (address, target) in [
            ("127.0.0.1:3465", Some("127.0.0.1:3465")),
            ("0.0.0.0:3465", Some("127.0.0.1:3465")),
            ("[::]:3465", Some("127.0.0.1:3465")),
            ("10.0.0.7:3465", Some("10.0.0.7:3465")),
            ("unix:/run/p.sock", Some("unix:/run/p.sock")),
            ("[::]:0", None),
        ] {
            let shown = Target::of(&address.parse().unwrap()).map(|target| target.to_string());
            assert_eq!(shown.as_deref(), target, "{address}");
        }
    }

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (url, target) in
            [("http://h", "h:80"), ("http://localhost:1/", "localhost:1"), ("http://[::1]:2", "[::1]:2")]
        {
            assert_eq!(Target::from_url(url).unwrap().to_string(), target);
        }
        for wrong in ["", "h:1", "https://h", "http://h/livez", "http://h?q", "http://u:p@h", "http://"] {
            assert!(Target::from_url(wrong).is_err(), "{wrong}");
        }
    }
}
