//! The way out through an HTTP proxy, for networks that have no other: `CONNECT` (RFC 9110, 9.3.6).
//!
//! The proxy carries bytes that it cannot read. TLS runs through it, from end to end, and is verified as without it.
//!
//! Deliberately absent: proxies that are spoken to over TLS, SOCKS, exceptions by name, and the environment's proxy
//! variables, which would let whoever sets one see where the credentials go.

use std::{fmt, io, str};

use http::{HeaderValue, StatusCode, Uri, uri::Authority};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// The longest head of a response to `CONNECT`. It has a status that matters and nothing else that does.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// An egress proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://` scheme and authority (`upstream.egress_proxy`).
    pub url: Uri,
    /// What is sent as `Proxy-Authorization`, marked sensitive, where there are credentials for it.
    pub authorization: Option<HeaderValue>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The proxy responded with an error status.
    #[error("the egress proxy answered {0}")]
    Rejected(StatusCode),
    /// The response is not HTTP, or far too long.
    #[error("the egress proxy's answer is not valid HTTP")]
    Malformed,
    /// The connection to the proxy broke.
    #[error("the connection to the egress proxy broke")]
    Io(#[source] io::Error),
}

/// Asks for tunnels to one address.
#[derive(Clone)]
pub struct Tunnel(Zeroizing<Vec<u8>>);

impl Tunnel {
    /// To `target`, a host and its port, with `authorization` for the proxy.
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

    /// Makes `stream`, a connection to the proxy, one to the target.
    ///
    /// # Errors
    ///
    /// When the proxy does not let it be.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> Result<(), Error> {
        stream.write_all(&self.0).await.map_err(Error::Io)?;
        stream.flush().await.map_err(Error::Io)?;
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == MAX_HEAD_BYTES {
                return Err(Error::Malformed);
            }
            // One at a time, since the byte after the head is the target's. It is a hundred bytes once a connection.
            head.push(stream.read_u8().await.map_err(Error::Io)?);
        }
        match status(&head) {
            Some(status) if status.is_success() => Ok(()),
            Some(status) => Err(Error::Rejected(status)),
            None => Err(Error::Malformed),
        }
    }
}

/// Shows nothing of the request: it may hold credentials.
impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// What to ask the proxy for, to reach `authority`: its host and port, and the port of HTTPS where it names none.
pub fn target(authority: &Authority) -> String {
    format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443))
}

/// The status of the response with this head.
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

    /// Checks what is made of `response`, and that the bytes after its head are left for the target's connection.
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
    async fn any_success_makes_a_tunnel() {
        for response in
            ["HTTP/1.1 200 Connection established\r\n\r\n", "HTTP/1.0 200 OK\r\nVia: x\r\n\r\n", "HTTP/1.1 204\r\n\r\n"]
        {
            check(response).await.unwrap();
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error_that_names_the_status_and_no_word_of_the_proxys() {
        for (response, expected) in [
            ("HTTP/1.1 407 canary\r\nx: canary\r\n\r\n", "the egress proxy answered 407 Proxy Authentication Required"),
            ("HTTP/1.1 403 canary\r\n\r\n", "the egress proxy answered 403 Forbidden"),
            ("HTTP/1.1 101 canary\r\n\r\n", "the egress proxy answered 101 Switching Protocols"),
            ("HTTP/1.1 2000 canary\r\n\r\n", "the egress proxy's answer is not valid HTTP"),
            ("HTTP/2 200 canary\r\n\r\n", "the egress proxy's answer is not valid HTTP"),
            ("canary\r\n\r\n", "the egress proxy's answer is not valid HTTP"),
            ("HTTP/1.1 200 canary\r\n", "the connection to the egress proxy broke"),
            (&"a".repeat(MAX_HEAD_BYTES), "the egress proxy's answer is not valid HTTP"),
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
