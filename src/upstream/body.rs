//! The body of a response, with the connection that carries it.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::SizeHint;

use super::{body_source::BodySource, early_response::BackgroundBody, http2};
use crate::error_chain::BodyError;

/// The body of a response. Once it has been read, its connection is free for another request.
pub(crate) struct UpstreamBody(State);

enum State {
    Http1(Box<dyn BodySource>),
    Background(BackgroundBody),
    Http2 {
        body: http2::RecvBody,
        /// While held, the request counts as active on the connection.
        _request_guard: Arc<dyn Any + Send + Sync>,
    },
    /// The body is complete or has failed.
    Done,
}

impl UpstreamBody {
    /// A body read from `source`.
    pub(super) fn http1(source: Box<dyn BodySource>) -> Self {
        let mut body = Self(State::Http1(source));
        body.release_if_complete();
        body
    }

    /// A body read by a background task.
    pub(super) fn background(background: BackgroundBody) -> Self {
        Self(State::Background(background))
    }

    /// `body`, received on `connection`.
    pub(super) fn http2(body: http2::RecvBody, connection: Arc<dyn Any + Send + Sync>) -> Self {
        Self(State::Http2 { body, _request_guard: connection })
    }

    /// The next part; `None` at the end. Trailers are dropped: an intermediary may discard them (RFC 9110, section 6.5.1), and the proxy
    /// does not ask for them (`TE: trailers`).
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let part = match &mut self.0 {
            State::Http1(source) => ready!(source.poll_data(cx)).map(|part| part.map_err(Into::into)),
            State::Background(background) => ready!(background.poll_data(cx)).map(|part| part.map_err(Into::into)),
            State::Http2 { body, .. } => ready!(body.poll_data(cx)).map(|part| part.map_err(Into::into)),
            State::Done => None,
        };
        match &part {
            Some(Ok(_)) => self.release_if_complete(),
            Some(Err(_)) => self.0 = State::Done,
            None => self.release(),
        }
        Poll::Ready(part)
    }

    /// Whether the body has ended.
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Http1(_) | State::Background(_) => false,
            State::Http2 { body, .. } => body.is_end_stream(),
            State::Done => true,
        }
    }

    /// The size of the rest of the body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Http1(source) => source.size_hint(),
            State::Background(_) => SizeHint::default(),
            State::Http2 { body, .. } => body.size_hint(),
            State::Done => SizeHint::with_exact(0),
        }
    }

    /// Releases the connection if the whole body has been read.
    fn release_if_complete(&mut self) {
        if let State::Http1(source) = &self.0
            && source.size_hint().exact() == Some(0)
        {
            self.release();
        }
    }

    fn release(&mut self) {
        if let State::Http1(source) = std::mem::replace(&mut self.0, State::Done) {
            source.release();
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamBody")
    }
}
