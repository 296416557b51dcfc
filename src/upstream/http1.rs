//! HTTP/1.1 to the upstream: one request and its response after another on a connection (RFC 9112).
//!
//! It is done here, with httparse, and not by hyper, whose connections are tasks of their own with queues to and from them: handing each
//! request over and back, and keeping the memory for that, cost more than all layers of this proxy (ADR 0002). Here a connection
//! is a value. Whoever has a request under way owns its connection and drives it; dropping it closes the connection, so nothing goes
//! on that nobody waits for. What became of a request that failed is known from what was written and read for it.
//!
//! Stricter than RFC 9112 asks for: an answer with a transfer coding besides `chunked`, or with lengths that differ, is refused.
//! Deliberately absent: pipelining, upgrades, trailers, and informational answers, which are skipped.

mod decoder;
mod head;
mod request_writer;

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Response, request::Parts};
use http_body::{Body, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{decoder::Decoder, head::ResponseHead, request_writer::RequestWriter};
use super::counting_io::CountingIo;
use crate::{error_chain::BodyError, upstream::Disposition};

/// How much is read at a time at first: the whole of most answers. It is read onto the stack and copied, so that an answer
/// takes no more memory than it is long, and a connection that waits for one takes none.
const SMALL_READ: usize = 16 * 1024;

/// How much is read at a time of an answer that fills a short read: some TLS records. Such an answer is read where it stays.
const LARGE_READ: usize = 128 * 1024;

/// Why a request brought no answer, or not all of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The caller's body failed.
    #[error("the request's body broke off")]
    Body(#[source] BodyError),
    /// The caller's body is longer or shorter than it was said to be.
    #[error("the request's body does not have the length that was told")]
    Length,
    /// The answer cannot be parsed.
    #[error("the answer is not valid HTTP")]
    Parse(#[source] httparse::Error),
    /// The answer can be parsed, and must not be believed.
    #[error("the answer is not valid HTTP: {0}")]
    Invalid(&'static str),
    /// The connection was closed in the middle of the answer, or before it.
    #[error("the connection was closed before the answer was complete")]
    Incomplete,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl Error {
    /// Whether the request's body is at fault, which comes from downstream.
    pub(super) fn is_downstream(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Length)
    }

    /// Whether the upstream broke the HTTP protocol.
    pub(super) fn is_protocol(&self) -> bool {
        matches!(self, Self::Parse(_) | Self::Invalid(_))
    }
}

/// A connection, and the request in flight on it.
pub(super) struct Http1Connection<S, B> {
    io: CountingIo<S>,
    /// Bytes read and not yet consumed.
    incoming: BytesMut,
    /// How many bytes of `incoming` have been searched for the end of a head, without finding it.
    searched: usize,
    /// The number of bytes of informational responses before the response.
    skipped_bytes: usize,
    /// Whether the response fills small reads.
    is_large: bool,
    request_writer: RequestWriter<B>,
    /// Why the rest of the request cannot be sent.
    send_error: Option<Error>,
    method: Method,
    decoder: Decoder,
    /// The number of bytes read when the request began.
    bytes_read_before: u64,
    /// The connection can be reused once all of this response has been read.
    keep_alive: bool,
    /// How long the server keeps the connection open while it is idle, as the last response with `Keep-Alive` says.
    keep_alive_timeout: Option<Duration>,
}

impl<S, B> Http1Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// On `stream`, where nothing was said yet. A write may make no progress for `write_timeout`.
    pub(super) fn new(stream: S, write_timeout: Duration) -> Self {
        Self {
            io: CountingIo::new(stream, write_timeout),
            incoming: BytesMut::new(),
            searched: 0,
            skipped_bytes: 0,
            is_large: false,
            request_writer: RequestWriter::idle(),
            send_error: None,
            method: Method::GET,
            decoder: Decoder::DONE,
            bytes_read_before: 0,
            keep_alive: true,
            keep_alive_timeout: None,
        }
    }

    /// Begins to send the request with `head` and `body`, which [`poll_response`](Self::poll_response) does.
    pub(super) fn begin(&mut self, head: &Parts, body: B) {
        debug_assert!(self.is_reusable(), "a connection does one thing at a time");
        self.bytes_read_before = self.io.bytes_read();
        self.method = head.method.clone();
        self.keep_alive = false;
        self.skipped_bytes = 0;
        self.is_large = false;
        self.request_writer = RequestWriter::new(head, body);
    }

    /// Sends what can be sent, until the head of the response has come.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let _ = self.poll_upload(cx);
        loop {
            if let Some(head) = self.parse_head()? {
                if self.request_writer.is_unsent() {
                    // An answer to nothing is no answer (RFC 9112, 9.2).
                    return Poll::Ready(Err(Error::Invalid("it came before its request")));
                }
                let ResponseHead { response, decoder, keep_alive, keep_alive_timeout } = head;
                (self.decoder, self.keep_alive) = (decoder, keep_alive);
                self.keep_alive_timeout = keep_alive_timeout.or(self.keep_alive_timeout);
                self.release_buffer();
                return Poll::Ready(Ok(response));
            }
            if let Some(error) = self.send_error.take() {
                return Poll::Ready(Err(error));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Error::Incomplete));
            }
        }
    }

    /// The head of the response, if all of it has come.
    fn parse_head(&mut self) -> Result<Option<ResponseHead>, Error> {
        while let Some(end) = head::end(&self.incoming, self.searched).filter(|end| *end <= head::MAX_BYTES) {
            // A copy, so that what is kept of the head does not keep the rest of what was read.
            let head = Bytes::copy_from_slice(&self.incoming[..end]);
            self.incoming.advance(end);
            self.searched = 0;
            if let Some(head) = head::parse(&head, &self.method)? {
                return Ok(Some(head));
            }
            // Without a limit, whoever reads as long as they come would not get around to looking at the time.
            self.skipped_bytes += end;
            if self.skipped_bytes > head::MAX_BYTES {
                return Err(Error::Invalid("too much comes before it"));
            }
        }
        self.searched = self.incoming.len();
        if self.incoming.len() >= head::MAX_BYTES { Err(Error::Invalid("its head is too large")) } else { Ok(None) }
    }

    /// Sends what can be sent. Ready when the request is fully sent or has failed. A failure is kept in `send_error`, and returned by
    /// the next read that needs more bytes.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_uploading() {
            self.send_error = ready!(self.request_writer.poll(&mut self.io, cx)).err();
        }
        Poll::Ready(())
    }

    /// Whether a part of the request is still to be sent, and sending has not failed.
    pub(super) fn is_uploading(&self) -> bool {
        !self.request_writer.is_done() && self.send_error.is_none()
    }

    /// The next part of the response's body; `None` at its end. Sends of the request only what is needed for that.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            let decoded = self.decoder.decode(&mut self.incoming);
            self.release_buffer();
            match decoded {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(decoder::Decoded::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(decoder::Decoded::End) => return Poll::Ready(None),
                Ok(decoder::Decoded::NeedMore) => {}
            }
            let _ = self.poll_upload(cx);
            if let Some(error) = self.send_error.take() {
                return Poll::Ready(Some(Err(error)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.decoder.is_close_delimited() => self.decoder = Decoder::DONE,
                Ok(0) => return Poll::Ready(Some(Err(Error::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Whether all of the response has been read.
    pub(super) fn is_response_complete(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether the rest of the response is in `incoming`.
    pub(super) fn is_response_buffered(&self) -> bool {
        self.decoder.size_hint().exact().is_some_and(|left| left <= self.incoming.len() as u64)
    }

    /// How much of the response's body is left.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Whether the connection can serve the next request: both messages are complete, and both sides keep it alive.
    pub(super) fn is_reusable(&self) -> bool {
        self.keep_alive && self.is_response_complete() && self.request_writer.is_done() && self.incoming.is_empty()
    }

    /// How long the server keeps the connection open while it is idle, if it says so.
    pub(super) fn keep_alive_timeout(&self) -> Option<Duration> {
        self.keep_alive_timeout
    }

    /// Polls an idle connection: `Ready(true)` at a clean end, `Ready(false)` on an error or unsolicited bytes.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut unsolicited = [0];
        let mut unsolicited = ReadBuf::new(&mut unsolicited);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut unsolicited));
        Poll::Ready(read.is_ok() && unsolicited.filled().is_empty())
    }

    /// What is known to have become of the request that failed with `error`. `reused` says whether the connection has served before:
    /// only then, and when it closed without a word, it is known to have been on its way out already.
    pub(super) fn disposition(&self, error: &Error, reused: bool) -> Option<Disposition> {
        let is_silent = self.io.bytes_read() == self.bytes_read_before;
        match error.is_downstream() {
            true => None,
            false if self.request_writer.is_unsent() => Some(Disposition::NotSent { reused }),
            false => (reused && is_silent).then_some(Disposition::NoResponse),
        }
    }

    /// After the response, frees the memory that it was read into, which would stay allocated as a whole.
    fn release_buffer(&mut self) {
        if self.is_response_complete() && self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
    }

    /// Reads once. The number of bytes, 0 at the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        if !self.is_large {
            let mut buffer = [const { MaybeUninit::uninit() }; SMALL_READ];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)).map_err(Error::Io)?;
            self.incoming.extend_from_slice(buffer.filled());
            self.is_large = buffer.remaining() == 0;
            return Poll::Ready(Ok(buffer.filled().len()));
        }
        self.incoming.reserve(LARGE_READ);
        let count = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.incoming));
        let count = count.map_err(Error::Io)?;
        self.is_large = count >= SMALL_READ;
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests;
