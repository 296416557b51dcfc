//! HTTP/1.1 to the upstream: one request and its answer after another on a connection (RFC 9112).
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

use self::{decoder::Decoder, head::Head, request_writer::RequestWriter};
use super::counting_io::CountingIo;
use crate::{error_chain::BodyError, upstream::Disposition};

/// How much is read at a time at first: the whole of most answers. It is read onto the stack and copied, so that an answer
/// takes no more memory than it is long, and a connection that waits for one takes none.
const SHORT_READ: usize = 16 * 1024;

/// How much is read at a time of an answer that fills a short read: some TLS records. Such an answer is read where it stays.
const LONG_READ: usize = 128 * 1024;

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
    /// Whether the caller is at fault.
    pub(super) fn is_of_the_caller(&self) -> bool {
        matches!(self, Self::Body(_) | Self::Length)
    }

    /// Whether the upstream said something that is no HTTP.
    pub(super) fn is_of_the_protocol(&self) -> bool {
        matches!(self, Self::Parse(_) | Self::Invalid(_))
    }
}

/// A connection, and what is under way on it.
pub(super) struct Http1Connection<S, B> {
    io: CountingIo<S>,
    /// What was read and not used.
    incoming: BytesMut,
    /// How much was in vain looked through for the end of a head.
    searched: usize,
    /// How many bytes of informational answers came before the answer.
    skipped: usize,
    /// Whether the answer fills short reads.
    is_long: bool,
    upload: RequestWriter<B>,
    /// Why the request cannot be sent to its end.
    failed: Option<Error>,
    method: Method,
    decoder: Decoder,
    /// What had been heard when the request began.
    heard_before: u64,
    /// The connection can serve once more when this answer has been taken.
    is_kept: bool,
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
            skipped: 0,
            is_long: false,
            upload: RequestWriter::none(),
            failed: None,
            method: Method::GET,
            decoder: Decoder::DONE,
            heard_before: 0,
            is_kept: true,
        }
    }

    /// Begins to send the request with `head` and `body`, which [`poll_answer`](Self::poll_answer) does.
    pub(super) fn begin(&mut self, head: &Parts, body: B) {
        debug_assert!(self.is_reusable(), "a connection does one thing at a time");
        self.heard_before = self.io.bytes();
        self.method = head.method.clone();
        self.is_kept = false;
        self.skipped = 0;
        self.is_long = false;
        self.upload = RequestWriter::of(head, body);
    }

    /// Sends what can be sent, until the head of the answer has come.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let _goes_on = self.poll_upload(cx);
        loop {
            if let Some(head) = self.head()? {
                if self.upload.is_untouched() {
                    // An answer to nothing is no answer (RFC 9112, 9.2).
                    return Poll::Ready(Err(Error::Invalid("it came before its request")));
                }
                let Head { response, decoder, is_kept } = head;
                (self.decoder, self.is_kept) = (decoder, is_kept);
                self.let_go();
                return Poll::Ready(Ok(response));
            }
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Err(error));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Error::Incomplete));
            }
        }
    }

    /// The head of the answer, if all of it has come.
    fn head(&mut self) -> Result<Option<Head>, Error> {
        while let Some(end) = head::end(&self.incoming, self.searched).filter(|end| *end <= head::MAX_BYTES) {
            // A copy, so that what is kept of the head does not keep the rest of what was read.
            let head = Bytes::copy_from_slice(&self.incoming[..end]);
            self.incoming.advance(end);
            self.searched = 0;
            if let Some(head) = head::parse(&head, &self.method)? {
                return Ok(Some(head));
            }
            // Without a limit, whoever reads as long as they come would not get around to looking at the time.
            self.skipped += end;
            if self.skipped > head::MAX_BYTES {
                return Err(Error::Invalid("too much comes before it"));
            }
        }
        self.searched = self.incoming.len();
        if self.incoming.len() >= head::MAX_BYTES { Err(Error::Invalid("its head is too large")) } else { Ok(None) }
    }

    /// Sends what can be sent. Ready when the request has been sent, or cannot be: whoever needs more of the answer than has come is
    /// told that then.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_uploading() {
            self.failed = ready!(self.upload.poll(&mut self.io, cx)).err();
        }
        Poll::Ready(())
    }

    /// Whether not all of the request has been sent, and the rest may be.
    pub(super) fn is_uploading(&self) -> bool {
        !self.upload.is_done() && self.failed.is_none()
    }

    /// The next part of the answer's body; `None` at its end. What is needed for that, and not more, is sent of the request.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            let decoded = self.decoder.decode(&mut self.incoming);
            self.let_go();
            match decoded {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(decoder::Part::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(decoder::Part::End) => return Poll::Ready(None),
                Ok(decoder::Part::More) => {}
            }
            let _goes_on = self.poll_upload(cx);
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.decoder.ends_with_connection() => self.decoder = Decoder::DONE,
                Ok(0) => return Poll::Ready(Some(Err(Error::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Whether the answer has been taken to its end.
    pub(super) fn is_answered(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether nothing more of the answer is to be read.
    pub(super) fn is_answer_here(&self) -> bool {
        self.decoder.size_hint().exact().is_some_and(|left| left <= self.incoming.len() as u64)
    }

    /// How much of the answer's body is left.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Whether the connection can serve the next request: both sides have said everything and want to go on.
    pub(super) fn is_reusable(&self) -> bool {
        self.is_kept && self.is_answered() && self.upload.is_done() && self.incoming.is_empty()
    }

    /// Waits until something happens on a connection on which nothing is under way: it ends, in good order or not, or the upstream says
    /// what nobody asked for. Ready with whether it was in good order.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut unasked = [0];
        let mut unasked = ReadBuf::new(&mut unasked);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut unasked));
        Poll::Ready(read.is_ok() && unasked.filled().is_empty())
    }

    /// What is known to have become of the request that failed with `error`. `reused` says whether the connection has served before:
    /// only then, and when it closed without a word, it is known to have been on its way out already.
    pub(super) fn disposition(&self, error: &Error, reused: bool) -> Option<Disposition> {
        let silent = self.io.bytes() == self.heard_before;
        match error.is_of_the_caller() {
            true => None,
            false if self.upload.is_untouched() => Some(Disposition::NotSent { reused }),
            false => (reused && silent).then_some(Disposition::NoResponse),
        }
    }

    /// After the answer, lets go of the memory that it was read into: taken from its start, that stays allocated as a whole.
    fn let_go(&mut self) {
        if self.is_answered() && self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
    }

    /// Reads once. The number of bytes, 0 at the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        if !self.is_long {
            let mut short = [const { MaybeUninit::uninit() }; SHORT_READ];
            let mut short = ReadBuf::uninit(&mut short);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut short)).map_err(Error::Io)?;
            self.incoming.extend_from_slice(short.filled());
            self.is_long = short.remaining() == 0;
            return Poll::Ready(Ok(short.filled().len()));
        }
        self.incoming.reserve(LONG_READ);
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.incoming));
        let read = read.map_err(Error::Io)?;
        self.is_long = read >= SHORT_READ;
        Poll::Ready(Ok(read))
    }
}

#[cfg(test)]
mod tests;
