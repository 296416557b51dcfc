//! A stream that counts the bytes that it reads, and limits how long a write may make no progress.

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

/// A stream that counts the bytes that it brings: what an upstream has said, after TLS. A TLS alert is no such byte. A write that
/// makes no progress ends: an upload may outlive its answer, and then nobody else watches it.
#[derive(Debug)]
pub(super) struct CountingIo<S> {
    inner: S,
    bytes: BytesRead,
    /// With an upstream that does not take what is written.
    patience: StallTimer,
}

impl<S> CountingIo<S> {
    /// Counts what `inner` brings; a write may make no progress for `write_timeout`.
    pub(super) fn new(inner: S, write_timeout: Duration) -> Self {
        Self { inner, bytes: BytesRead::default(), patience: StallTimer::new(write_timeout) }
    }

    /// How many bytes came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Their number from now on, for whoever does not have the stream.
    pub(super) fn count(&self) -> BytesRead {
        self.bytes.clone()
    }

    /// Passes `written` on, unless writing has stalled for too long, or failed because the other side has closed. An upstream that
    /// answers early and closes makes writing fail while its answer is still there to be read; the error of writing would come
    /// first, and hide it. Reading ends with the same connection, so nothing waits for longer than that.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let closed =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let written = match written {
            Poll::Ready(Err(error)) if closed(&error) => Poll::Pending,
            written => written,
        };
        self.patience.bound(written, cx, "the upstream takes no more of the request")
    }
}

/// How many bytes a connection has brought.
#[derive(Clone, Debug, Default)]
pub(super) struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Only by the stream itself, so nothing is lost between reading and writing.
    fn add(&self, bytes: u64) {
        self.0.store(self.get() + bytes, Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountingIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.bytes.add((buf.filled().len() - before) as u64);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountingIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(flushed, cx)
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
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
