//! What a response body needs from its HTTP/1.1 connection.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::SizeHint;

use super::http1;

/// The HTTP/1.1 connection of a response.
pub(super) trait BodySource: Send {
    /// The next part of the body; `None` at its end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, http1::Error>>>;

    /// The size of the rest of the body.
    fn size_hint(&self) -> SizeHint;

    /// Returns the connection to the pool if the body has been read completely, and closes it otherwise.
    fn release(self: Box<Self>);
}
