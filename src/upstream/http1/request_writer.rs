//! The sending of a request: its head, and its body as it comes.

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

/// A request that is being sent, or has been.
pub(super) struct RequestWriter<B> {
    /// What comes before the next part of the body: the head, or the line of a chunk.
    before: BytesMut,
    /// The next part of the body.
    part: Bytes,
    /// What comes after it: the end of a chunk.
    after: &'static [u8],
    /// The rest of the body; `None` when there is none.
    body: Option<B>,
    framing: Framing,
    /// Nothing was handed to the connection.
    is_untouched: bool,
    /// The connection has taken everything, and passed it on.
    is_done: bool,
}

/// How the body is framed.
#[derive(Clone, Copy)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked,
}

impl<B> RequestWriter<B> {
    /// Nothing to send.
    pub(super) fn none() -> Self {
        let (before, part) = Default::default();
        Self { before, part, after: b"", body: None, framing: Framing::Length(0), is_untouched: true, is_done: true }
    }

    /// Whether everything was sent.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether it takes no memory.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.before.capacity() == 0 && self.part.is_empty() && self.body.is_none()
    }

    /// Whether certainly nothing was sent.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_untouched
    }
}

impl<B> RequestWriter<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// All of the request with `head` and `body`, which is framed as the head says; where that says nothing, by chunks, unless there is
    /// no body.
    pub(super) fn of(head: &Parts, body: B) -> Self {
        let ended = body.is_end_stream();
        let said = framing(&head.headers);
        let (framing, chunked) = match said {
            Some(framing) => (framing, None),
            None if ended => (Framing::Length(0), None),
            None => (Framing::Chunked, Some("transfer-encoding: chunked\r\n")),
        };
        let before = head::write(head, chunked);
        // One that has ended may owe bytes, or its last chunk.
        let body = Some(body).filter(|_| !matches!(framing, Framing::Length(0)));
        Self { before, part: Bytes::new(), after: b"", body, framing, is_untouched: true, is_done: false }
    }

    /// Sends what can be sent to `io`. Ready when everything was.
    pub(super) fn poll(&mut self, io: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        loop {
            // So that a head and a short body go together.
            let more = self.poll_next_part(cx)?;
            if self.before.is_empty() && self.part.is_empty() && self.after.is_empty() {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(Error::Io)?;
                ready!(more);
                self.is_done = true;
                return Poll::Ready(Ok(()));
            }
            let slices = [&self.before, &*self.part, self.after].map(IoSlice::new);
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices)).map_err(Error::Io)?;
            if written == 0 {
                return Poll::Ready(Err(Error::Io(io::ErrorKind::WriteZero.into())));
            }
            self.is_untouched = false;
            self.advance(written);
        }
    }

    /// Asks for the next part of the body, if one is needed. Ready when there is one, or no more.
    fn poll_next_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.part.is_empty()
            && self.after.is_empty()
            && let Some(body) = &mut self.body
        {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.add(data)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(Error::Body(error.into()))),
                None => {
                    self.body = None;
                    match self.framing {
                        Framing::Length(0) => {}
                        Framing::Length(_) => return Poll::Ready(Err(Error::Length)),
                        Framing::Chunked => self.before.extend_from_slice(b"0\r\n\r\n"),
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn add(&mut self, data: Bytes) -> Result<(), Error> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                if *left == 0 {
                    self.body = None;
                }
            }
            Framing::Chunked => {
                write!(self.before, "{:x}\r\n", data.len()).expect("memory can be written to");
                self.after = b"\r\n";
            }
        }
        self.part = data;
        Ok(())
    }

    /// Drops the first `written` bytes of what is to be sent.
    fn advance(&mut self, mut written: usize) {
        let before = written.min(self.before.len());
        self.before.advance(before);
        written -= before;
        let part = written.min(self.part.len());
        self.part.advance(part);
        self.after = &self.after[written - part..];
        if self.before.is_empty() {
            // A connection that waits for its answer needs no memory for what it has sent.
            self.before = BytesMut::new();
        }
        if self.part.is_empty() {
            self.part = Bytes::new();
        }
    }
}

/// What the head says of the body. The layers above see to it that it says one thing at the most, and one that is true.
fn framing(headers: &HeaderMap) -> Option<Framing> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(Framing::Chunked);
    }
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok().map(Framing::Length)
}
