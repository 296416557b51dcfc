//! A caller's stream, with four properties that HTTP needs and sockets have not: a write that makes no progress ends, a caller that
//! goes away while it is waited for is noticed, a connection whose answer broke off looks broken to the caller, and one whose
//! request was not read to its end is closed without a reset that would take the answer with it.

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

use super::{evictions::Reason, framed_reader::FramedReader, slots::State, socket_stream::SocketStream};
use crate::stall::StallTimer;

/// How long a caller may go on sending what nobody reads, after its answer. With unread bytes left, closing would reset the
/// connection, and the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(5);

/// How long a caller that has sent all of its request may keep a closed connection open without a word. It may have sent the next
/// request already, without waiting for the answer; callers that have seen the end hang up within a round trip.
const QUIET: Duration = Duration::from_millis(250);

/// The stream, while requests are served on it. When hyper lets go of it, it is [`Reclaim`].
#[derive(Debug)]
pub(super) struct DownstreamIo {
    /// There until this is dropped.
    open: Option<Downstream>,
    /// Somebody waits for the next byte, and so for the end too.
    is_awaited: bool,
    /// The caller does not take what we write, at the moment.
    is_stalled: bool,
    /// With a caller that does not take what we write.
    patience: StallTimer,
    returned: Reclaim,
}

/// A stream on which nothing is served any more, to be closed in the way that suits how that ended.
#[derive(Debug)]
pub(super) struct Downstream {
    transport: SocketStream,
    gate: FramedReader,
}

/// Where a stream is found once nothing is served on it any more, and what is to be known of it before.
#[derive(Clone, Debug, Default)]
pub(super) struct Reclaim(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stream: Mutex<Option<Downstream>>,
    /// The caller has not taken all that is to be written.
    writing: AtomicBool,
}

impl Reclaim {
    /// The stream, once.
    pub(super) fn take(&self) -> Option<Downstream> {
        self.0.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the caller has not taken all that is to be written.
    pub(super) fn has_more_to_write(&self) -> bool {
        self.0.writing.load(Relaxed)
    }
}

impl Downstream {
    /// Where nothing has been served yet.
    pub(super) fn new(transport: SocketStream, gate: FramedReader) -> Self {
        Self { transport, gate }
    }

    /// How many messages have begun on it.
    pub(super) fn messages(&self) -> u64 {
        self.gate.messages()
    }

    /// Whether a head has begun to arrive, and has not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.gate.is_in_head()
    }

    /// Waits for a whole head, or for the end of the connection: whether there is something to serve.
    ///
    /// # Errors
    ///
    /// When the connection is lost, when a head takes too long, or when the connection [is to make room](Self::gave_way).
    ///
    /// # Cancel safety
    ///
    /// What has arrived is kept.
    pub(super) async fn collect(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            let collected = self.gate.poll_collect(Pin::new(&mut self.transport), cx)?;
            if collected.is_pending() {
                if self.gate.state().poll_asked(cx).is_ready() {
                    if !self.transport.has_unread() {
                        return Poll::Ready(Err(self.gate.give_way(None)));
                    }
                    self.gate.state().keep();
                }
                // It may have been given up since the poll began.
                self.gate.check_head()?;
            }
            collected.map(Ok)
        })
        .await
    }

    /// What the connection shares with the acceptor.
    pub(super) fn state(&self) -> &Arc<State> {
        self.gate.state()
    }

    /// Why it is to be closed, if it is to make room.
    pub(super) fn gave_way(&self) -> Option<Reason> {
        self.gate.gave_way()
    }

    /// Sends `response`, if the kernel takes it without waiting.
    pub(super) async fn respond(&mut self, response: &[u8]) {
        let _ = timeout(Duration::ZERO, self.transport.write_all(response)).await;
    }

    /// Closes the connection after its last answer: our direction at once, the caller's when it has hung up, or is quiet. One that is
    /// still sending gets some time to finish, or to see the answer and stop. Ends early when it is asked to give way, and says so.
    pub(super) async fn close(mut self) -> bool {
        self.state().closing();
        // It fails when the caller has gone already.
        let _ = self.transport.shutdown().await;
        if self.gate.has_ended() {
            return false;
        }
        let patience = if self.gate.leaves_bytes_unread() { LINGER } else { QUIET };
        let read_on = async {
            loop {
                match timeout(patience, self.skip()).await {
                    Ok(Skipped::Bytes) => {}
                    Ok(Skipped::GaveWay) => return true,
                    Ok(Skipped::End) | Err(_) => return false,
                }
            }
        };
        timeout(LINGER, read_on).await.unwrap_or(false)
    }

    /// Reads something and forgets it.
    async fn skip(&mut self) -> Skipped {
        poll_fn(|cx| {
            // On the stack, and only while it is needed: thousands of connections may be closing.
            let mut unread = [0; 4096];
            let mut unread = ReadBuf::new(&mut unread);
            let read = Pin::new(&mut self.transport).poll_read(cx, &mut unread);
            if read.is_pending() && self.gate.state().poll_asked(cx).is_ready() {
                if !self.transport.has_unread() {
                    return Poll::Ready(Skipped::GaveWay);
                }
                // Closing now would reset the connection; it is the youngest from now on.
                self.gate.state().keep();
                self.gate.state().closing();
            }
            Poll::Ready(match ready!(read) {
                Ok(()) if !unread.filled().is_empty() => Skipped::Bytes,
                _ => Skipped::End,
            })
        })
        .await
    }

    /// Resets the connection, since its last answer broke off: one without a length, as callers that speak HTTP/1.0 get it,
    /// would seem complete otherwise.
    pub(super) fn reset(self) {
        if let Err(error) = self.transport.set_zero_linger() {
            debug!(%error, "the connection cannot be reset");
        }
    }
}

/// What came on a connection that closes.
enum Skipped {
    Bytes,
    End,
    GaveWay,
}

impl DownstreamIo {
    /// Watches `stream`: what is read passes its gate, and a write may make no progress for `write_timeout`.
    pub(super) fn new(stream: Downstream, write_timeout: Duration, returned: Reclaim) -> Self {
        Self {
            open: Some(stream),
            is_awaited: false,
            is_stalled: false,
            patience: StallTimer::new(write_timeout),
            returned,
        }
    }

    fn open(&mut self) -> &mut Downstream {
        self.open.as_mut().expect("the stream is there until this is dropped")
    }

    /// Passes `written` on, unless writing has stalled for too long.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let is_stalled = written.is_pending();
        self.returned.0.writing.store(is_stalled, Relaxed);
        if is_stalled != self.is_stalled {
            self.is_stalled = is_stalled;
            let state = self.open().state();
            if is_stalled { state.write_stalled() } else { state.write_resumed() }
        }
        if is_stalled && self.open().state().gives_way() {
            return Poll::Ready(Err(self.open().gate.give_way(Some(Reason::Stalled))));
        }
        self.patience.bound(written, cx, "the caller takes no more of the answer")
    }
}

impl AsyncRead for DownstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Downstream { transport, gate } = self.open();
        let mut read = gate.poll_read(Pin::new(transport), cx, buffer);
        if read.is_pending() && gate.state().gives_way() {
            if transport.has_unread() {
                gate.state().keep();
            } else {
                read = Poll::Ready(Err(gate.give_way(None)));
            }
        }
        self.is_awaited = read.is_pending();
        read
    }
}

impl AsyncWrite for DownstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.open().transport).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.open().transport).poll_write_vectored(cx, slices);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.transport.is_write_vectored())
    }

    /// Flushes, and fails when the caller has gone while its request is being worked on. hyper flushes whenever it has been woken, and would
    /// else find that out by reading ahead, for which it wants another 8 KiB with every request.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_awaited = self.is_awaited;
        let Downstream { transport, gate } = self.open();
        // In the middle of a request, its end is for the reader to find.
        if !is_awaited && gate.is_between_messages() && transport.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the caller has gone")));
        }
        Pin::new(transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.open().transport).poll_shutdown(cx)
    }
}

impl Drop for DownstreamIo {
    fn drop(&mut self) {
        *self.returned.0.stream.lock().unwrap_or_else(PoisonError::into_inner) = self.open.take();
    }
}

#[cfg(test)]
mod tests;
