//! A connection over HTTP/1.1, as the body of a response sees it.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::SizeHint;

use super::http1;

/// The connection over HTTP/1.1 that a response comes on.
pub(super) trait BodySource: Send {
    /// The next part of the body; `None` at its end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, http1::Error>>>;

    /// How much is left of it.
    fn size_hint(&self) -> SizeHint;

    /// Returns the connection to the pool if all of the body has been read, and closes it otherwise.
    fn release(self: Box<Self>);
}
