//! One call to the running proxy, for the commands that ask it something.
//!
//! Deliberately absent: TLS and redirects, which none of its own listeners has.

use std::{fmt, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::server::Address;

/// The longest time that a command waits. A longer one is a typing error, and may be more than a clock can show.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// The most bytes of an answer. The longest explanation of a probe has some hundreds.
const MAX_ANSWER: usize = 64 * 1024;

/// Reads how long to wait.
///
/// # Errors
///
/// What is expected instead.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| *time <= MAX_TIME);
    time.ok_or_else(|| "must be a time of at most a day, such as 30s".to_owned())
}

/// Where a listener of the running proxy is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A host, by name or by address, and its port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Place {
    /// Where a process on this machine reaches what listens on `address`. `None` when that leaves the port to the system.
    pub(super) fn of(address: &Address) -> Option<Self> {
        let address = match address {
            Address::Unix(path) => return Some(Self::Unix(path.clone())),
            Address::Tcp(address) => address,
        };
        let host = match address.ip() {
            ip if !ip.is_unspecified() => ip.to_string(),
            // `[::]` takes IPv4 as well, and is `0.0.0.0` on a machine without IPv6.
            _ => "127.0.0.1".to_owned(),
        };
        (address.port() != 0).then(|| Self::Tcp(host, address.port()))
    }

    /// Reads `http://HOST:PORT`.
    ///
    /// # Errors
    ///
    /// What is expected instead.
    pub(super) fn from_url(text: &str) -> Result<Self, String> {
        let expected = "must be http:// and a host, such as http://127.0.0.1:3465";
        let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
        let bare = url.scheme_str() == Some("http") && url.path() == "/" && url.query().is_none();
        let authority = url.authority().filter(|authority| bare && !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| expected.to_owned())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self::Tcp(host.to_owned(), authority.port_u16().unwrap_or(80)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody listens there.
    #[error("{0} cannot be reached; does the proxy run, with this configuration?")]
    Unreachable(Place, #[source] io::Error),
    /// There is no whole answer within the time.
    #[error("{0} does not answer within {limit}", limit = humantime::format_duration(*.1))]
    Slow(Place, Duration),
    /// Who listens there does not speak HTTP.
    #[error("{0} gives no proper answer")]
    Broken(Place, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is to be called.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    pub(super) authorization: Option<HeaderValue>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Its body, without the line end.
    pub(super) text: String,
}

/// Calls the first of `places` that can be connected to. `limit` is the time for all of it.
///
/// # Errors
///
/// Why there is no answer.
///
/// # Panics
///
/// Without any place.
pub(super) async fn call(places: &[Place], call: &Call<'_>, limit: Duration) -> Result<Answer, CallError> {
    let mut asked = places.first().expect("there is a place to call");
    let answer = async {
        let mut unreachable = None;
        for place in places {
            asked = place;
            match call_at(place, call).await {
                Err(error @ CallError::Unreachable(..)) => unreachable = unreachable.or(Some(error)),
                answer => return answer,
            }
        }
        Err(unreachable.expect("at least one place was tried"))
    };
    let answer = timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Err(CallError::Slow(asked.clone(), limit)))
}

/// Whether somebody listens at `place`.
pub(super) async fn is_there(place: &Place) -> bool {
    match place {
        Place::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
        Place::Unix(path) => UnixStream::connect(path).await.is_ok(),
    }
}

async fn call_at(place: &Place, call: &Call<'_>) -> Result<Answer, CallError> {
    let unreachable = |error| CallError::Unreachable(place.clone(), error);
    let answer = match place {
        Place::Tcp(host, port) => {
            exchange(TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?, place, call).await
        }
        Place::Unix(path) => exchange(UnixStream::connect(path).await.map_err(unreachable)?, place, call).await,
    };
    answer.map_err(|error| CallError::Broken(place.clone(), error))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    place: &Place,
    call: &Call<'_>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let host = match place {
        Place::Tcp(..) => place.to_string(),
        Place::Unix(_) => "localhost".to_owned(),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or with the runtime.
    drop(tokio::spawn(connection));
    let mut request = Request::builder().method(&call.method).uri(call.target).header(header::HOST, host);
    if let Some(authorization) = &call.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    Ok(Answer { status, text: String::from_utf8_lossy(&body).trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_on_all_addresses_is_reached_over_loopback() {
        for (address, place) in [
            ("127.0.0.1:3465", Some("127.0.0.1:3465")),
            ("0.0.0.0:3465", Some("127.0.0.1:3465")),
            ("[::]:3465", Some("127.0.0.1:3465")),
            ("10.0.0.7:3465", Some("10.0.0.7:3465")),
            ("unix:/run/p.sock", Some("unix:/run/p.sock")),
            ("[::]:0", None),
        ] {
            let shown = Place::of(&address.parse().unwrap()).map(|place| place.to_string());
            assert_eq!(shown.as_deref(), place, "{address}");
        }
    }

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (url, place) in
            [("http://h", "h:80"), ("http://localhost:1/", "localhost:1"), ("http://[::1]:2", "[::1]:2")]
        {
            assert_eq!(Place::from_url(url).unwrap().to_string(), place);
        }
        for wrong in ["", "h:1", "https://h", "http://h/livez", "http://h?q", "http://u:p@h", "http://"] {
            assert!(Place::from_url(wrong).is_err(), "{wrong}");
        }
    }
}
