//! Why a request over HTTP/2 failed, and its disposition.

use std::io;

use h2::Reason;

use crate::{error_chain::BodyError, upstream::Disposition};

/// Why a request has no response, or an incomplete one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client's body failed.
    #[error("reading the request body failed")]
    Body(#[source] BodyError),
    /// Either side ended the stream or the connection. The server's debug data is not included.
    #[error("{}", describe(.0))]
    Http(#[source] h2::Error),
    /// The response can be parsed, but violates the protocol.
    #[error("the response is not valid HTTP: {0}")]
    Invalid(&'static str),
    /// The stream was reset with `NO_ERROR` before the end of the response (RFC 9113, section 8.1), so the response is truncated.
    #[error("the upstream reset the stream before the end of the response")]
    Reset,
    /// The connection failed, or closed without GOAWAY.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl Error {
    /// Whether the error is in the request body, which comes from downstream.
    pub(in crate::upstream) fn is_downstream(&self) -> bool {
        matches!(self, Self::Body(_))
    }

    /// Whether the upstream violated the HTTP protocol, so the proxy ended the stream or the connection.
    pub(in crate::upstream) fn is_protocol(&self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Http(error) => error.is_library(),
            Self::Body(_) | Self::Reset | Self::Io(_) => false,
        }
    }

    /// Whether this is a connection error, after which the connection takes no further requests, and not a stream error (RFC 9113, section 5.4).
    /// A server that violates the protocol may continue to do so, so that counts as a connection error too.
    pub(super) fn is_connection_error(&self) -> bool {
        match self {
            Self::Body(_) | Self::Reset => false,
            Self::Http(error) => !error.is_reset(),
            Self::Io(_) | Self::Invalid(_) => true,
        }
    }

    /// The disposition of a sent request that failed with this error. A server reports that it did not process a stream by `REFUSED_STREAM`, or
    /// by a GOAWAY with an earlier last stream (RFC 9113, section 8.7); h2 ends only those streams with the server's GOAWAY.
    /// `reused`: the connection has served a request before.
    pub(super) fn disposition(&self, reused: bool) -> Option<Disposition> {
        match self {
            Self::Http(error) => {
                let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
                (error.is_remote() && (is_refused || error.is_go_away())).then_some(Disposition::NotProcessed)
            }
            Self::Io(_) => reused.then_some(Disposition::NoResponse),
            Self::Body(_) | Self::Invalid(_) | Self::Reset => None,
        }
    }
}

impl From<h2::Error> for Error {
    fn from(error: h2::Error) -> Self {
        if !error.is_io() {
            return Self::Http(error);
        }
        Self::Io(error.into_io().expect("checked above"))
    }
}

/// Describes which side ended the stream or the connection, and the reason.
fn describe(error: &h2::Error) -> String {
    let ended_by = if error.is_remote() { "the upstream" } else { "the proxy" };
    let scope = if error.is_go_away() { "the connection" } else { "the stream" };
    error.reason().map_or_else(
        || "the request could not be sent".to_owned(),
        |reason| format!("{ended_by} ended {scope}: {reason}"),
    )
}
