//! Adds to a client's socket what HTTP needs: a write stall timeout, detection of a client that disconnects while its request is in
//! flight ([`ClientWatch`]), a reset after a truncated response, and a lingering close after a response to a request that was not fully
//! read.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};
use tracing::debug;

use super::{
    client_watch::ClientWatch, evictions::EvictionReason, framed_reader::FramedReader, slots::SlotState,
    socket_stream::SocketStream,
};
use crate::stall::StallTimer;

/// How long to read and discard what a client still sends after its last response. Closing with unread bytes would reset the connection,
/// and the reset can overtake the response.
const LINGERING_CLOSE: Duration = Duration::from_secs(5);

/// How long a client that has sent its whole request may keep the closed connection open without sending. It may have pipelined its next
/// request; clients that have received the FIN close their side within a round trip.
const LINGER_IDLE: Duration = Duration::from_millis(250);

/// A connection while hyper serves it. When hyper drops this, [`Reclaim`] gets the [`Downstream`].
#[derive(Debug)]
pub(super) struct DownstreamIo {
    /// `Some` until this is dropped.
    downstream: Option<Downstream>,
    /// The last read is pending, so the reader will see the EOF.
    read_pending: bool,
    /// The last write is pending.
    write_stalled: bool,
    /// Limits the time that a write is pending.
    write_timer: StallTimer,
    client_watch: ClientWatch,
    reclaim: Reclaim,
}

/// A connection that hyper does not serve at the moment: it waits for a head or is about to close.
#[derive(Debug)]
pub(super) struct Downstream {
    socket: SocketStream,
    reader: FramedReader,
}

/// Reclaims the connection from a dropped [`DownstreamIo`]. Before that, it shows whether a write is pending.
#[derive(Clone, Debug, Default)]
pub(super) struct Reclaim(Arc<ReclaimState>);

#[derive(Debug, Default)]
struct ReclaimState {
    stream: Mutex<Option<Downstream>>,
    /// See [`Reclaim::has_pending_write`].
    has_pending_write: AtomicBool,
}

impl Reclaim {
    /// Takes the connection, once its [`DownstreamIo`] has been dropped.
    pub(super) fn take(&self) -> Option<Downstream> {
        self.0.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a write is waiting for the kernel.
    pub(super) fn has_pending_write(&self) -> bool {
        self.0.has_pending_write.load(Relaxed)
    }
}

impl Downstream {
    /// A connection before its first request.
    pub(super) fn new(socket: SocketStream, reader: FramedReader) -> Self {
        Self { socket, reader }
    }

    /// The number of messages that have begun.
    pub(super) fn messages_begun(&self) -> u64 {
        self.reader.messages_begun()
    }

    /// Whether a head has arrived in part.
    pub(super) fn is_in_head(&self) -> bool {
        self.reader.is_in_head()
    }

    /// Waits for a complete head or the end of the connection. Returns whether there is something to serve.
    ///
    /// # Errors
    ///
    /// If the connection is lost, or is idle and [being evicted](Self::eviction).
    ///
    /// # Cancel safety
    ///
    /// Received bytes are kept.
    pub(super) async fn buffer_head(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            let buffered = self.reader.poll_buffer_head(Pin::new(&mut self.socket), cx)?;
            if buffered.is_pending() {
                if self.reader.state().poll_eviction_request(cx).is_ready() {
                    if !self.socket.has_unread() {
                        return Poll::Ready(self.reader.evict_at_limit().map(|()| true));
                    }
                    self.reader.state().decline_eviction();
                }
                // The head may have been evicted since the poll began.
                if self.reader.check_head_eviction() {
                    return Poll::Ready(Ok(true));
                }
            }
            buffered.map(Ok)
        })
        .await
    }

    /// Rejects a head that was not complete in time. Returns whether there is one, which is then to be served.
    pub(super) fn reject_late_head(&mut self) -> bool {
        self.reader.reject_late_head()
    }

    /// The state shared with the acceptor.
    pub(super) fn state(&self) -> &Arc<SlotState> {
        self.reader.state()
    }

    /// Why the connection is being evicted, if it is.
    pub(super) fn eviction(&self) -> Option<EvictionReason> {
        self.reader.eviction()
    }

    /// Closes the connection after its last response: our direction immediately, the client's once the client has closed it or stops sending.
    /// A client that is still sending gets time to finish, or to read the response and stop. Returns whether it was cut short by an eviction.
    pub(super) async fn close(mut self) -> bool {
        self.state().set_closing();
        // It fails if the client has already disconnected.
        let _ = self.socket.shutdown().await;
        if self.reader.has_eof() {
            return false;
        }
        let idle_timeout = if self.reader.leaves_bytes_unread() { LINGERING_CLOSE } else { LINGER_IDLE };
        let read_on = async {
            loop {
                match timeout(idle_timeout, self.discard()).await {
                    Ok(Discarded::Bytes) => {}
                    Ok(Discarded::Evicted) => return true,
                    Ok(Discarded::End) | Err(_) => return false,
                }
            }
        };
        timeout(LINGERING_CLOSE, read_on).await.unwrap_or(false)
    }

    /// Reads and discards some bytes.
    async fn discard(&mut self) -> Discarded {
        poll_fn(|cx| {
            // On the stack, and only during the read: thousands of connections may be closing.
            let mut buffer = [0; 4096];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut self.socket).poll_read(cx, &mut buffer);
            if read.is_pending() && self.reader.state().poll_eviction_request(cx).is_ready() {
                if !self.socket.has_unread() {
                    return Poll::Ready(Discarded::Evicted);
                }
                // Closing now would reset the connection. It becomes the last candidate for eviction.
                self.reader.state().decline_eviction();
                self.reader.state().set_closing();
            }
            Poll::Ready(match ready!(read) {
                Ok(()) if !buffer.filled().is_empty() => Discarded::Bytes,
                _ => Discarded::End,
            })
        })
        .await
    }

    /// Resets the connection after a truncated response. Otherwise a response without a length, as HTTP/1.0 clients get it, would seem
    /// complete.
    pub(super) fn reset(self) {
        if let Err(error) = self.socket.set_zero_linger() {
            debug!(%error, "cannot reset the connection");
        }
    }
}

/// The result of [`Downstream::discard`].
enum Discarded {
    Bytes,
    End,
    Evicted,
}

impl DownstreamIo {
    /// Reads from `stream` through its [`FramedReader`]. A write fails when it has been pending for `write_timeout`.
    pub(super) fn new(stream: Downstream, write_timeout: Duration, reclaim: Reclaim) -> Self {
        Self {
            downstream: Some(stream),
            read_pending: false,
            write_stalled: false,
            write_timer: StallTimer::new(write_timeout),
            client_watch: ClientWatch::default(),
            reclaim,
        }
    }

    fn downstream(&mut self) -> &mut Downstream {
        self.downstream.as_mut().expect("the stream is there until this is dropped")
    }

    /// Returns `written`, the result of writing `bytes` and possibly more, or an error when the client has not read for too long.
    fn limit_stall(
        &mut self,
        mut written: Poll<io::Result<usize>>,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() && self.write_timer.poll_elapsed(cx).is_ready() {
            // The kernel reports a socket as writable only when much of its buffer is free: a third of TCP's megabytes, three quarters of a
            // Unix socket's. A client that has read less has not stalled, so try a write before failing.
            written = Poll::Ready(self.downstream().socket.write_now(bytes).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading the response")
                }
                _ => error,
            }));
        }
        if written.is_ready() {
            self.write_timer.reset();
        }
        let write_stalled = written.is_pending();
        self.reclaim.0.has_pending_write.store(write_stalled, Relaxed);
        if write_stalled != self.write_stalled {
            self.write_stalled = write_stalled;
            let state = self.downstream().state();
            if write_stalled { state.write_stalled() } else { state.write_resumed() }
        }
        if write_stalled {
            let reader = &mut self.downstream().reader;
            if reader.eviction().is_some() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if reader.state().is_evictable() {
                return Poll::Ready(Err(reader.evict(EvictionReason::StalledResponse)));
            }
        }
        written
    }
}

impl AsyncRead for DownstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.client_watch.reset();
        let Downstream { socket, reader } = self.downstream();
        let mut read = reader.poll_read(Pin::new(&mut *socket), cx, buffer);
        if read.is_pending() && reader.state().is_evictable() && reader.eviction().is_none() {
            if socket.has_unread() {
                reader.state().decline_eviction();
            } else {
                reader.evict_at_limit()?;
                read = reader.poll_read(Pin::new(socket), cx, buffer);
            }
        }
        self.read_pending = read.is_pending();
        read
    }
}

impl AsyncWrite for DownstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.downstream().socket).poll_write(cx, bytes);
        self.limit_stall(written, bytes, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.downstream().socket).poll_write_vectored(cx, slices);
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.limit_stall(written, first.map_or(&[], |slice| slice), cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.downstream.as_ref().is_some_and(|downstream| downstream.socket.is_write_vectored())
    }

    /// Flushes, and fails if the client has disconnected while its request is in flight. hyper flushes whenever it is woken. Without this, it
    /// would detect a disconnect by reading ahead, which takes another 8 KiB per request.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { downstream, read_pending, client_watch, .. } = &mut *self;
        let Downstream { socket, reader } = downstream.as_mut().expect("the stream is there until this is dropped");
        // In the middle of a request, the reader sees the EOF.
        if !*read_pending && reader.is_between_messages() && client_watch.poll_gone(socket, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client disconnected")));
        }
        Pin::new(socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.downstream().socket).poll_shutdown(cx)
    }
}

impl Drop for DownstreamIo {
    fn drop(&mut self) {
        *self.reclaim.0.stream.lock().unwrap_or_else(PoisonError::into_inner) = self.downstream.take();
    }
}

#[cfg(test)]
mod tests;
