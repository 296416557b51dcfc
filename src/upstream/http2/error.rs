//! Why a request over HTTP/2 failed, and what is known to have become of it.

use std::io;

use h2::Reason;

use crate::{error_chain::BodyError, upstream::Disposition};

/// Why a request brought no answer, or not all of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The caller's body failed.
    #[error("the request's body broke off")]
    Body(#[source] BodyError),
    /// The stream, or the connection, was ended by one side or the other. What a server adds in words is not told.
    #[error("{}", describe(.0))]
    Http(#[source] h2::Error),
    /// Each part of the answer can be read, and as a whole it must not be believed.
    #[error("the answer is not valid HTTP: {0}")]
    Invalid(&'static str),
    /// The stream was reset "without error" before the end of the answer (RFC 9113, 8.1); that is no end.
    #[error("the upstream reset the body before its end")]
    Reset,
    /// The connection failed, or closed without a word.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl Error {
    /// Whether the request's body is at fault, which comes from downstream.
    pub(in crate::upstream) fn is_downstream(&self) -> bool {
        matches!(self, Self::Body(_))
    }

    /// Whether the upstream broke the HTTP protocol, so that our side ended the stream or the connection.
    pub(in crate::upstream) fn is_protocol(&self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Http(error) => error.is_library(),
            Self::Body(_) | Self::Reset | Self::Io(_) => false,
        }
    }

    /// Whether it is an error of the connection, which takes no further requests, and not of one stream (RFC 9113, 5.4). A server whose
    /// answer must not be believed may go on with it, so that only the end of the connection ends it.
    pub(super) fn is_connection_error(&self) -> bool {
        match self {
            Self::Body(_) | Self::Reset => false,
            Self::Http(error) => !error.is_reset(),
            Self::Io(_) | Self::Invalid(_) => true,
        }
    }

    /// The disposition of a request that was sent and failed with this. A server says of a stream that it has not looked at it by refusing it,
    /// or by a GOAWAY whose last stream is an earlier one (RFC 9113, 8.7): h2 ends only those streams with the server's GOAWAY.
    /// `reused` says whether the connection has served before.
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
        Self::Io(error.into_io().expect("it was just said to be one"))
    }
}

/// Which side ended the stream or the connection, and the reason.
fn describe(error: &h2::Error) -> String {
    let ended_by = if error.is_remote() { "the upstream" } else { "this side" };
    let scope = if error.is_go_away() { "the connection" } else { "the stream" };
    error.reason().map_or_else(
        || "the request could not be sent".to_owned(),
        |reason| format!("{ended_by} ended {scope}: {reason}"),
    )
}
