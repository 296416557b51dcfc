//! The body of a response, read from its stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Response, header};
use http_body::SizeHint;

use super::Error;

/// The body of a response. Dropping it before its end resets the stream.
pub(in crate::upstream) struct RecvBody {
    stream: RecvStream,
    /// The size of the rest, if `Content-Length` is present. h2 verifies `Content-Length`.
    remaining: Option<u64>,
}

impl RecvBody {
    /// Converts the body of `response`.
    pub(super) fn from_response(response: Response<RecvStream>) -> Response<Self> {
        let (head, stream) = response.into_parts();
        let content_length = || head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let remaining = if stream.is_end_stream() { Some(0) } else { content_length() };
        Response::from_parts(head, Self { stream, remaining })
    }

    /// The next part; `None` at the end.
    pub(in crate::upstream) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        Poll::Ready(match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Only data that was passed on frees capacity. This fails if the stream has ended, when it no longer matters.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(data.len() as u64));
                Some(Ok(data))
            }
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Some(Err(Error::Reset)),
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    /// Whether the body has ended.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// The size of the rest of the body.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
