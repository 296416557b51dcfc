//! The body of an answer, and the connection that it comes on, whichever protocol that speaks.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::SizeHint;

use super::{body_source::Source, early_response::BackgroundBody, http2};
use crate::error_chain::BodyError;

/// The body of an answer. Its connection is free for another request when it has been taken whole.
pub(crate) struct UpstreamBody(Kind);

enum Kind {
    Http1(Box<dyn Source>),
    BackgroundBody(BackgroundBody),
    Http2 {
        body: http2::RecvBody,
        /// One request more is on the connection as long as this is held.
        _connection: Arc<dyn Any + Send + Sync>,
    },
    /// It has ended, or failed.
    Over,
}

impl UpstreamBody {
    /// What comes from `source`.
    pub(super) fn http1(source: Box<dyn Source>) -> Self {
        let mut body = Self(Kind::Http1(source));
        body.note_end();
        body
    }

    /// What comes from `detached`.
    pub(super) fn detached(detached: BackgroundBody) -> Self {
        Self(Kind::BackgroundBody(detached))
    }

    /// `body`, on `connection`.
    pub(super) fn http2(body: http2::RecvBody, connection: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Kind::Http2 { body, _connection: connection })
    }

    /// The next part; `None` at the end. Trailers are left out: they are a message of the upstream's connection (RFC 9110, 6.5.1), and
    /// nobody asked for them.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let part = match &mut self.0 {
            Kind::Http1(source) => ready!(source.poll_data(cx)).map(|part| part.map_err(Into::into)),
            Kind::BackgroundBody(detached) => ready!(detached.poll_data(cx)).map(|part| part.map_err(Into::into)),
            Kind::Http2 { body, .. } => ready!(body.poll_data(cx)).map(|part| part.map_err(Into::into)),
            Kind::Over => None,
        };
        match &part {
            Some(Ok(_)) => self.note_end(),
            Some(Err(_)) => self.0 = Kind::Over,
            None => self.give_back(),
        }
        Poll::Ready(part)
    }

    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1(_) | Kind::BackgroundBody(_) => false,
            Kind::Http2 { body, .. } => body.is_end_stream(),
            Kind::Over => true,
        }
    }

    /// How much is left.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1(source) => source.size_hint(),
            Kind::BackgroundBody(_) => SizeHint::default(),
            Kind::Http2 { body, .. } => body.size_hint(),
            Kind::Over => SizeHint::with_exact(0),
        }
    }

    /// Lets go of the connection if that is known to have brought everything.
    fn note_end(&mut self) {
        if let Kind::Http1(source) = &self.0
            && source.size_hint().exact() == Some(0)
        {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Kind::Http1(source) = std::mem::replace(&mut self.0, Kind::Over) {
            source.give_back();
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerBody")
    }
}
