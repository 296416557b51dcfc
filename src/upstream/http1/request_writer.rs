//! Writes a request: the head, then the body as it arrives.

use std::{
    fmt::Write as _,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, header, request::Parts};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::{Error, head};
use crate::error_chain::BodyError;

/// A request being sent.
pub(super) struct RequestWriter<B> {
    /// Written before `data`: the head, or a chunk size line.
    prefix: BytesMut,
    /// The next part of the body.
    data: Bytes,
    /// Written after `data`: the end of a chunk.
    suffix: &'static [u8],
    /// The rest of the body, if any.
    body: Option<B>,
    framing: Framing,
    /// Nothing has been written to the connection.
    is_unsent: bool,
    /// Everything has been written and flushed.
    is_done: bool,
}

/// How the body is framed.
#[derive(Clone, Copy)]
enum Framing {
    /// The number of bytes left.
    Length(u64),
    Chunked,
}

impl<B> RequestWriter<B> {
    /// A writer without a request.
    pub(super) fn idle() -> Self {
        let (prefix, data) = Default::default();
        Self { prefix, data, suffix: b"", body: None, framing: Framing::Length(0), is_unsent: true, is_done: true }
    }

    /// Whether the request has been sent completely.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether it holds no memory.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.prefix.capacity() == 0 && self.data.is_empty() && self.body.is_none()
    }

    /// Whether no byte has been written.
    pub(super) fn is_unsent(&self) -> bool {
        self.is_unsent
    }
}

impl<B> RequestWriter<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// Prepares the request with `head` and `body`. The framing follows the head; if the head declares none, a body that is not empty is
    /// sent in chunks.
    pub(super) fn new(head: &Parts, body: B) -> Self {
        let is_empty = body.is_end_stream();
        let declared = framing(&head.headers);
        let (framing, chunked) = match declared {
            Some(framing) => (framing, None),
            None if is_empty => (Framing::Length(0), None),
            None => (Framing::Chunked, Some("transfer-encoding: chunked\r\n")),
        };
        let prefix = head::write(head, chunked);
        // An empty body may still owe announced bytes or its last chunk.
        let body = Some(body).filter(|_| !matches!(framing, Framing::Length(0)));
        Self { prefix, data: Bytes::new(), suffix: b"", body, framing, is_unsent: true, is_done: false }
    }

    /// Sends as much as possible to `io`. Ready when everything has been sent and flushed.
    pub(super) fn poll(&mut self, io: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        loop {
            // Polled first, so that a head and a short body are written together.
            let next_data = self.poll_next_data(cx)?;
            if self.prefix.is_empty() && self.data.is_empty() && self.suffix.is_empty() {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(Error::Io)?;
                ready!(next_data);
                self.is_done = true;
                return Poll::Ready(Ok(()));
            }
            let slices = [&self.prefix, &*self.data, self.suffix].map(IoSlice::new);
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices)).map_err(Error::Io)?;
            if written == 0 {
                return Poll::Ready(Err(Error::Io(io::ErrorKind::WriteZero.into())));
            }
            self.is_unsent = false;
            self.advance(written);
        }
    }

    /// Polls for the next part of the body if one is needed. Ready when there is data, or the body has ended.
    fn poll_next_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.data.is_empty()
            && self.suffix.is_empty()
            && let Some(body) = &mut self.body
        {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.push_data(data)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(Error::Body(error.into()))),
                None => {
                    self.body = None;
                    match self.framing {
                        Framing::Length(0) => {}
                        Framing::Length(_) => return Poll::Ready(Err(Error::Length)),
                        Framing::Chunked => self.prefix.extend_from_slice(b"0\r\n\r\n"),
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn push_data(&mut self, data: Bytes) -> Result<(), Error> {
        match &mut self.framing {
            Framing::Length(remaining) => {
                *remaining = remaining.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                if *remaining == 0 {
                    self.body = None;
                }
            }
            Framing::Chunked => {
                write!(self.prefix, "{:x}\r\n", data.len()).expect("writing to memory does not fail");
                self.suffix = b"\r\n";
            }
        }
        self.data = data;
        Ok(())
    }

    /// Drops the first `written` bytes of the pending data.
    fn advance(&mut self, mut written: usize) {
        let prefix_bytes = written.min(self.prefix.len());
        self.prefix.advance(prefix_bytes);
        written -= prefix_bytes;
        let data_bytes = written.min(self.data.len());
        self.data.advance(data_bytes);
        self.suffix = &self.suffix[written - data_bytes..];
        if self.prefix.is_empty() {
            // A connection that waits for its response does not keep the memory of the sent head.
            self.prefix = BytesMut::new();
        }
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
    }
}

/// The framing that the head declares. The layers above ensure that it declares at most one, and the right one.
fn framing(headers: &HeaderMap) -> Option<Framing> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(Framing::Chunked);
    }
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok().map(Framing::Length)
}
