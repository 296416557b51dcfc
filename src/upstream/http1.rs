//! HTTP/1.1 to the upstream: one request at a time on a connection (RFC 9112).
//!
//! This uses httparse and not hyper. hyper's connections are tasks with queues; passing each request through them, and the
//! memory for them, cost more than all layers of this proxy (ADR 0002). Here a connection is a value. The owner of a request in flight
//! owns and drives the connection; dropping it closes the connection, so no work continues without an owner. What was written and
//! read for a request that failed shows whether the upstream can have processed it.
//!
//! Stricter than RFC 9112: a response with a transfer coding other than `chunked`, or with differing lengths, is rejected. Deliberately
//! absent: pipelining, upgrades and trailers. Informational responses are skipped.

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

/// The size of the first reads, enough for most responses. They go to the stack and are copied, so that a response takes only the memory
/// of its own length, and a connection that waits for one takes none.
const SMALL_READ: usize = 16 * 1024;

/// The read size once a response has filled a small read: some TLS records. These reads go directly into the final buffer.
const LARGE_READ: usize = 128 * 1024;

/// Why a request has no response, or an incomplete one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client's body failed.
    #[error("reading the request body failed")]
    Body(#[source] BodyError),
    /// The client's body is longer or shorter than its `Content-Length`.
    #[error("the request body does not match Content-Length")]
    Length,
    /// The response cannot be parsed.
    #[error("the response is not valid HTTP")]
    Parse(#[source] httparse::Error),
    /// The response can be parsed, but violates the protocol or a limit.
    #[error("the response is not valid HTTP: {0}")]
    Invalid(&'static str),
    /// The connection closed before or during the response.
    #[error("the connection closed before the response was complete")]
    Incomplete,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl Error {
    /// Whether the error is in the request body, which comes from downstream.
    pub(super) fn is_downstream(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Length)
    }

    /// Whether the upstream violated the HTTP protocol.
    pub(super) fn is_protocol(&self) -> bool {
        matches!(self, Self::Parse(_) | Self::Invalid(_))
    }
}

/// A connection, and the request in flight on it.
pub(super) struct Http1Connection<S, B> {
    io: CountingIo<S>,
    /// Bytes read and not yet consumed.
    incoming: BytesMut,
    /// How many bytes of `incoming` are known not to contain the end of a head.
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
    /// The connection can be reused once this response has been read.
    keep_alive: bool,
    /// How long the server keeps an idle connection open, from the last response with `Keep-Alive`.
    keep_alive_timeout: Option<Duration>,
}

impl<S, B> Http1Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// A connection on a new `stream`. A write may make no progress for at most `write_timeout`.
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

    /// Starts a request; [`poll_response`](Self::poll_response) sends it.
    pub(super) fn begin(&mut self, head: &Parts, body: B) {
        debug_assert!(self.is_reusable(), "the connection is not ready for a request");
        self.bytes_read_before = self.io.bytes_read();
        self.method = head.method.clone();
        self.keep_alive = false;
        self.skipped_bytes = 0;
        self.is_large = false;
        self.request_writer = RequestWriter::new(head, body);
    }

    /// Sends the request and waits for the head of the response.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let _ = self.poll_upload(cx);
        loop {
            if let Some(head) = self.parse_head()? {
                if self.request_writer.is_unsent() {
                    // A response without a request (RFC 9112, section 9.2).
                    return Poll::Ready(Err(Error::Invalid("received before the request was sent")));
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

    /// The head of the response, if it is complete.
    fn parse_head(&mut self) -> Result<Option<ResponseHead>, Error> {
        while let Some(end) = head::end(&self.incoming, self.searched).filter(|end| *end <= head::MAX_BYTES) {
            // A copy, so that header values do not keep the whole read buffer alive.
            let head = Bytes::copy_from_slice(&self.incoming[..end]);
            self.incoming.advance(end);
            self.searched = 0;
            if let Some(head) = head::parse(&head, &self.method)? {
                return Ok(Some(head));
            }
            // Without a limit, endless informational responses would keep this loop from returning to the caller's timeouts.
            self.skipped_bytes += end;
            if self.skipped_bytes > head::MAX_BYTES {
                return Err(Error::Invalid("too many bytes of informational responses"));
            }
        }
        self.searched = self.incoming.len();
        if self.incoming.len() >= head::MAX_BYTES { Err(Error::Invalid("the head is too large")) } else { Ok(None) }
    }

    /// Sends as much of the request as possible. Ready when it is fully sent or has failed. A failure is kept in `send_error` and returned
    /// by the next read that needs more bytes.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_uploading() {
            self.send_error = ready!(self.request_writer.poll(&mut self.io, cx)).err();
        }
        Poll::Ready(())
    }

    /// Whether the request is not fully sent and sending has not failed.
    pub(super) fn is_uploading(&self) -> bool {
        !self.request_writer.is_done() && self.send_error.is_none()
    }

    /// The next part of the response body; `None` at the end. Continues to send the request while it waits for bytes.
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

    /// Whether the response has been read completely.
    pub(super) fn is_response_complete(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether the rest of the response is in `incoming`.
    pub(super) fn is_response_buffered(&self) -> bool {
        self.decoder.size_hint().exact().is_some_and(|left| left <= self.incoming.len() as u64)
    }

    /// The size of the rest of the response body.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Whether the connection can serve the next request: both messages are complete, and both sides keep it open.
    pub(super) fn is_reusable(&self) -> bool {
        self.keep_alive && self.is_response_complete() && self.request_writer.is_done() && self.incoming.is_empty()
    }

    /// How long the server keeps an idle connection open, if announced.
    pub(super) fn keep_alive_timeout(&self) -> Option<Duration> {
        self.keep_alive_timeout
    }

    /// Polls an idle connection: `Ready(true)` at a clean EOF, `Ready(false)` on an error or unsolicited bytes.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut unsolicited = [0];
        let mut unsolicited = ReadBuf::new(&mut unsolicited);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut unsolicited));
        Poll::Ready(read.is_ok() && unsolicited.filled().is_empty())
    }

    /// The disposition of the request that failed with `error`, if known. `reused`: the connection has served a request before. Only a reused
    /// connection that closes without a byte is known to have been closing already.
    pub(super) fn disposition(&self, error: &Error, reused: bool) -> Option<Disposition> {
        let is_silent = self.io.bytes_read() == self.bytes_read_before;
        match error.is_downstream() {
            true => None,
            false if self.request_writer.is_unsent() => Some(Disposition::NotSent { reused }),
            false => (reused && is_silent).then_some(Disposition::NoResponse),
        }
    }

    /// Frees the read buffer after the response; it would otherwise stay allocated in full.
    fn release_buffer(&mut self) {
        if self.is_response_complete() && self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
    }

    /// Reads once. Returns the number of bytes, 0 at EOF.
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
