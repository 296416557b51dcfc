//! A connection over HTTP/1.1, as the body of a response sees it.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::SizeHint;

use super::http1;

/// A connection over HTTP/1.1 that an answer comes on.
pub(super) trait Source: Send {
    /// The next part of the body; `None` at its end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, http1::Error>>>;

    /// How much is left of it.
    fn size_hint(&self) -> SizeHint;

    /// Back to the pool, if everything has been taken, and closed otherwise.
    fn give_back(self: Box<Self>);
}
