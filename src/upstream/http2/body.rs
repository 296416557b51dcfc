//! The body of an answer, as it comes out of its stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Response, header};
use http_body::SizeHint;

use super::Error;

/// The body of an answer. Dropped before its end, its stream is reset.
pub(in crate::upstream) struct RecvBody {
    stream: RecvStream,
    /// How much is left of it, if that was said. h2 sees to it that it is true.
    left: Option<u64>,
}

impl RecvBody {
    /// The body of `answer`, apart from its head.
    pub(super) fn split(answer: Response<RecvStream>) -> Response<Self> {
        let (head, stream) = answer.into_parts();
        let told = || head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let left = if stream.is_end_stream() { Some(0) } else { told() };
        Response::from_parts(head, Self { stream, left })
    }

    /// The next part; `None` at the end.
    pub(in crate::upstream) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        Poll::Ready(match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Only what has been passed on makes room for more. It fails when the stream has ended, and nothing more comes.
                let _ended = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(data))
            }
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Some(Err(Error::Reset)),
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    /// Whether nothing more comes.
    pub(in crate::upstream) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// How much is left.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
