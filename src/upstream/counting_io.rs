//! A stream that counts the bytes read and limits write stalls.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stall::StallTimer;

/// A stream that counts the decrypted bytes read from the upstream; TLS alerts do not count. A write that makes no progress fails, because an
/// upload can outlive its response, and then no other timeout applies to it.
#[derive(Debug)]
pub(super) struct CountingIo<S> {
    inner: S,
    bytes_read: BytesRead,
    /// Limits how long a write may make no progress.
    stall_timer: StallTimer,
}

impl<S> CountingIo<S> {
    /// Wraps `inner`. A write may make no progress for at most `write_timeout`.
    pub(super) fn new(inner: S, write_timeout: Duration) -> Self {
        Self { inner, bytes_read: BytesRead::default(), stall_timer: StallTimer::new(write_timeout) }
    }

    /// The number of bytes read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// A shared handle to the counter.
    pub(super) fn counter(&self) -> BytesRead {
        self.bytes_read.clone()
    }

    /// Returns `written`, with two exceptions: a stall becomes an error, and an error because the peer has closed becomes `Pending`. An upstream
    /// that responds early and closes makes writes fail while its response is still to be read; the write error would hide that
    /// response. A read sees the closed connection too, so a write that stays pending does not delay anything.
    fn check_write<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let is_closed =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let written = match written {
            Poll::Ready(Err(error)) if is_closed(&error) => Poll::Pending,
            written => written,
        };
        self.stall_timer.guard(written, cx, "the upstream stopped reading the request")
    }
}

/// The number of bytes read from a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Called only by the stream itself, so load and store need not be one atomic operation.
    fn add(&self, count: u64) {
        self.0.store(self.get() + count, Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountingIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.bytes_read.add((buf.filled().len() - before) as u64);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountingIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check_write(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.check_write(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.check_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
