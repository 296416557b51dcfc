//! Sends an event to the service, over plain HTTP on this machine.
//!
//! Each event has its own connection: events are rare, and a pooled connection could close just when the next event arrives.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    str::FromStr,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    select,
};

use crate::{
    proxy::headers::{self, X_FINICITY_PROXY_VERIFIED},
    secret::absolute,
};

/// The prefix of a Unix socket's text form.
const UNIX_PREFIX: &str = "unix:";

/// The address of the service (`webhook.forward_to`). One of:
///
/// - `http://`, with a loopback address or `localhost`, and optionally a port and a path
/// - `unix:/path/of/socket`, optionally followed by a colon and the request path, as in `unix:/run/app.sock:/webhooks`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardTo {
    destination: Destination,
    path: PathAndQuery,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    Tcp { addresses: Vec<SocketAddr>, host: HeaderValue },
    Unix(PathBuf),
}

/// The text is not a valid [`ForwardTo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a service on this machine, such as \"http://127.0.0.1:8080/webhooks\" or \"unix:/run/app.sock:/webhooks\""
)]
pub struct ForwardToError;

impl FromStr for ForwardTo {
    type Err = ForwardToError;

    fn from_str(text: &str) -> Result<Self, ForwardToError> {
        if let Some(rest) = text.strip_prefix(UNIX_PREFIX) {
            let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
            let is_path = socket.starts_with('/') && !socket.ends_with('/') && path.starts_with('/');
            let path = path.parse().ok().filter(|_| is_path).ok_or(ForwardToError)?;
            return Ok(Self { destination: Destination::Unix(socket.into()), path });
        }
        let uri: Uri = text.parse().map_err(|_| ForwardToError)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(ForwardToError)?;
        if uri.scheme_str() != Some("http") || text.contains('#') {
            return Err(ForwardToError);
        }
        let port = match authority.port_u16() {
            None if authority.as_str().len() > authority.host().len() => return Err(ForwardToError),
            port => port.unwrap_or(80),
        };
        let addresses = loopback_addresses(authority.host()).filter(|_| port > 0).ok_or(ForwardToError)?;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ForwardToError)?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { destination: Destination::Tcp { addresses, host }, path })
    }
}

/// The addresses of `host`: the literal `localhost`, or a loopback address. Looks up no name.
fn loopback_addresses(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse().ok().filter(IpAddr::is_loopback).map(|address| vec![address])
}

/// Omits the path, because it may contain a secret of the service.
impl fmt::Display for ForwardTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::Tcp { addresses, .. } => write!(f, "http://{}", addresses[0]),
            Destination::Unix(path) => write!(f, "{UNIX_PREFIX}{}", absolute(path).display()),
        }
    }
}

/// Why there is no response of the service.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    #[error("cannot connect to the service")]
    Connect(#[source] io::Error),
    #[error("the connection to the service failed")]
    Http(#[source] hyper::Error),
    #[error("the service did not respond in time")]
    TimedOut,
}

/// Sends an event with these `headers` and this `body`, and returns the status of the service's response. Strips the headers
/// ([`headers::strip_webhook`]) and adds [`X_FINICITY_PROXY_VERIFIED`].
///
/// # Errors
///
/// If there is no response.
pub(super) async fn send(to: &ForwardTo, mut headers: HeaderMap, body: Bytes) -> Result<StatusCode, ServiceError> {
    headers::strip_webhook(&mut headers);
    headers.insert(X_FINICITY_PROXY_VERIFIED, HeaderValue::from_static("true"));
    let mut request = Request::post(Uri::from(to.path.clone())).body(Full::new(body)).expect("a path is a target");
    *request.headers_mut() = headers;
    match &to.destination {
        Destination::Tcp { addresses, host } => {
            request.headers_mut().insert(header::HOST, host.clone());
            // `localhost` has two addresses; `connect` tries them in turn.
            let stream = TcpStream::connect(&addresses[..]).await.map_err(ServiceError::Connect)?;
            exchange(Box::pin(stream), request).await
        }
        Destination::Unix(path) => {
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
            let stream = UnixStream::connect(path).await.map_err(ServiceError::Connect)?;
            exchange(Box::pin(stream), request).await
        }
    }
}

/// A connection to the service. Used as a trait object, so that hyper's client is compiled only once and not per transport.
trait ServiceStream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> ServiceStream for S {}

async fn exchange(
    stream: Pin<Box<dyn ServiceStream>>,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, ServiceError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ServiceError::Http)?;
    let mut connection = Box::pin(connection);
    let mut response = std::pin::pin!(sender.send_request(request));
    // The response body is not needed, so the connection ends with the response head.
    let ended = select! {
        biased;
        response = &mut response => return response.map(|response| response.status()).map_err(ServiceError::Http),
        ended = &mut connection => ended,
    };
    // hyper may have received the response head before the connection ended.
    drop(connection);
    match (response.await, ended) {
        (Ok(response), _) => Ok(response.status()),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(ServiceError::Http(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_service_on_this_machine_is_accepted() {
        for (text, shown, path) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "/"),
            ("http://localhost:8080/webhooks?x=y", "http://127.0.0.1:8080", "/webhooks?x=y"),
            ("http://[::1]/a", "http://[::1]:80", "/a"),
            ("http://127.9.9.9:1/", "http://127.9.9.9:1", "/"),
            ("unix:/run/app.sock", "unix:/run/app.sock", "/"),
            ("unix:/run/app.sock:/hooks", "unix:/run/app.sock", "/hooks"),
        ] {
            let forward_to: ForwardTo = text.parse().unwrap();
            assert_eq!((forward_to.to_string().as_str(), forward_to.path.as_str()), (shown, path), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:8080",
            "https://127.0.0.1",
            "http://10.0.0.1:80",
            "http://service.internal",
            "http://localhost.example",
            "http://0.0.0.0:1",
            "http://[::]:1",
            "http://u:p@127.0.0.1",
            "http://127.0.0.1:",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1/#x",
            "unix:",
            "unix:run/app.sock",
            "unix:/run/",
            "unix:/run/app.sock:",
            "unix:/run/app.sock:hooks",
        ] {
            assert_eq!(text.parse::<ForwardTo>(), Err(ForwardToError), "{text}");
        }
    }
}
