//! Tunnels through an HTTP egress proxy by `CONNECT` (RFC 9110, section 9.3.6), for networks without direct access.
//!
//! TLS is end to end through the tunnel and is verified as without it, so the proxy cannot read the traffic.
//!
//! Deliberately absent: TLS to the proxy, SOCKS, exceptions by name, and the environment's proxy variables, which could redirect
//! traffic without a change of the configuration.

use std::{fmt, io, str};

use http::{HeaderValue, StatusCode, Uri, uri::Authority};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// The maximum size of the response head to `CONNECT`. Only its status is used.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// An egress proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://` and the proxy's authority (`upstream.egress_proxy`).
    pub url: Uri,
    /// The `Proxy-Authorization` value, marked sensitive, if there are credentials for the proxy.
    pub authorization: Option<HeaderValue>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The proxy responded with an error status.
    #[error("the egress proxy returned {0}")]
    Rejected(StatusCode),
    /// The response is not HTTP, or its head is too long.
    #[error("the egress proxy's response is not valid HTTP")]
    Malformed,
    /// The connection to the proxy failed.
    #[error("the connection to the egress proxy failed")]
    Io(#[source] io::Error),
}

/// Opens tunnels to one address.
#[derive(Clone)]
pub struct Tunnel(Zeroizing<Vec<u8>>);

impl Tunnel {
    /// A tunnel to `target` (host and port), with `authorization` for the proxy.
    pub fn new(target: &str, authorization: Option<&HeaderValue>) -> Self {
        let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes());
        if let Some(authorization) = authorization {
            request.reserve_exact(authorization.len() + 32);
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Self(request)
    }

    /// Turns `stream`, a connection to the proxy, into a connection to the target.
    ///
    /// # Errors
    ///
    /// If the proxy does not open a tunnel.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> Result<(), Error> {
        stream.write_all(&self.0).await.map_err(Error::Io)?;
        stream.flush().await.map_err(Error::Io)?;
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == MAX_HEAD_BYTES {
                return Err(Error::Malformed);
            }
            // Byte by byte, because the byte after the head belongs to the target. This is about a hundred bytes once a connection.
            head.push(stream.read_u8().await.map_err(Error::Io)?);
        }
        match status(&head) {
            Some(status) if status.is_success() => Ok(()),
            Some(status) => Err(Error::Rejected(status)),
            None => Err(Error::Malformed),
        }
    }
}

/// Does not show the request, which may contain credentials.
impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// The target of `CONNECT` for `authority`: its host and port, with port 443 as the default.
pub fn target(authority: &Authority) -> String {
    format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443))
}

/// The status in a response head.
fn status(head: &[u8]) -> Option<StatusCode> {
    let line = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let code = line.get(..3).filter(|_| matches!(line.get(3), Some(b' ' | b'\r')))?;
    StatusCode::from_bytes(code).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const REQUEST: &str = "CONNECT api.finicity.com:443 HTTP/1.1\r\nHost: api.finicity.com:443\r\n";

    /// Opens a tunnel with `response`, and checks that the bytes after its head remain in the stream.
    async fn check(response: &str) -> Result<(), Error> {
        let (mut stream, mut proxy) = duplex(64 * 1024);
        proxy.write_all(format!("{response}rest").as_bytes()).await.unwrap();
        drop(proxy.shutdown().await);
        Tunnel::new("api.finicity.com:443", None).open(&mut stream).await?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
        let mut request = vec![0; REQUEST.len() + 2];
        proxy.read_exact(&mut request).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&request), format!("{REQUEST}\r\n"));
        Ok(())
    }

    #[tokio::test]
    async fn any_2xx_opens_a_tunnel() {
        for response in
            ["HTTP/1.1 200 Connection established\r\n\r\n", "HTTP/1.0 200 OK\r\nVia: x\r\n\r\n", "HTTP/1.1 204\r\n\r\n"]
        {
            check(response).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_error_shows_the_status_and_none_of_the_proxys_text() {
        for (response, expected) in [
            ("HTTP/1.1 407 canary\r\nx: canary\r\n\r\n", "the egress proxy returned 407 Proxy Authentication Required"),
            ("HTTP/1.1 403 canary\r\n\r\n", "the egress proxy returned 403 Forbidden"),
            ("HTTP/1.1 101 canary\r\n\r\n", "the egress proxy returned 101 Switching Protocols"),
            ("HTTP/1.1 2000 canary\r\n\r\n", "the egress proxy's response is not valid HTTP"),
            ("HTTP/2 200 canary\r\n\r\n", "the egress proxy's response is not valid HTTP"),
            ("canary\r\n\r\n", "the egress proxy's response is not valid HTTP"),
            ("HTTP/1.1 200 canary\r\n", "the connection to the egress proxy failed"),
            (&"a".repeat(MAX_HEAD_BYTES), "the egress proxy's response is not valid HTTP"),
        ] {
            assert_eq!(check(response).await.unwrap_err().to_string(), expected);
        }
    }

    #[tokio::test]
    async fn credentials_are_sent_and_never_shown() {
        let tunnel = Tunnel::new("h:1", Some(&HeaderValue::from_static("Basic canary")));
        assert!(!format!("{tunnel:?}").contains("canary"));
        let (mut stream, mut proxy) = duplex(1024);
        proxy.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tunnel.open(&mut stream).await.unwrap();
        drop(stream);
        let mut request = String::new();
        proxy.read_to_string(&mut request).await.unwrap();
        assert_eq!(request, "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nProxy-Authorization: Basic canary\r\n\r\n");
    }

    #[test]
    fn the_target_has_a_port() {
        for (authority, expected) in
            [("api.finicity.com", "api.finicity.com:443"), ("h:8443", "h:8443"), ("[::1]", "[::1]:443")]
        {
            assert_eq!(target(&authority.parse().unwrap()), expected);
        }
    }
}
