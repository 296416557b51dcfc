//! A caller's TCP stream, with two properties that HTTP needs and TCP has not: a write that makes no progress ends, and a
//! connection whose answer broke off looks broken to the caller.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tracing::debug;

/// The stream. When the answer on it broke off, it resets the connection as it is dropped: an answer without a length, as callers
/// that speak HTTP/1.0 get it, would otherwise seem complete.
#[derive(Debug)]
pub(super) struct CallerStream {
    tcp: TcpStream,
    write_timeout: Duration,
    /// Set while the caller does not take what we write.
    stalled: Option<Pin<Box<Sleep>>>,
    broken: Broken,
}

/// Whether the answer on a connection broke off. Shared by the stream and by whoever serves it.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<AtomicBool>);

impl Broken {
    /// Notes that it did.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl CallerStream {
    /// Watches `tcp`; a write may make no progress for `write_timeout`.
    pub(super) fn new(tcp: TcpStream, write_timeout: Duration, broken: Broken) -> Self {
        Self { tcp, write_timeout, stalled: None, broken }
    }

    /// Passes `written` on, unless writing has stalled for too long.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller takes no more of the answer")))
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for CallerStream {
    fn drop(&mut self) {
        if self.broken.0.load(Ordering::Relaxed)
            && let Err(error) = self.tcp.set_zero_linger()
        {
            debug!(%error, "the connection cannot be reset");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair(write_timeout: Duration) -> (CallerStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (CallerStream::new(listener.accept().await.unwrap().0, write_timeout, Broken::default()), caller)
    }

    #[tokio::test]
    async fn a_caller_that_stops_reading_is_given_up() {
        let (mut ours, _caller) = pair(Duration::from_millis(50)).await;
        let error = ours.write_all(&vec![0; 64 * 1024 * 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_whose_answer_broke_off_looks_broken_and_no_other_does() {
        for (broken, expected) in [(false, None), (true, Some(io::ErrorKind::ConnectionReset))] {
            let (mut ours, mut caller) = pair(Duration::from_secs(60)).await;
            ours.write_all(b"half").await.unwrap();
            let mut half = [0; 4];
            caller.read_exact(&mut half).await.unwrap();
            if broken {
                ours.broken.set();
            }
            drop(ours);
            assert_eq!(caller.read_to_end(&mut Vec::new()).await.err().map(|error| error.kind()), expected);
        }
    }
}
