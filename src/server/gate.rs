//! What a connection reads passes here: messages that have one reading, whose heads arrive in time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    framing::{Fault, Follower, HeadLimits, Place, Stop},
    patience::Patience,
};

/// What others may know of a gate.
#[derive(Clone, Debug, Default)]
pub(super) struct View(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The message, by its number, that is the last one read, and why.
    refused: OnceLock<(u64, Fault)>,
    /// Whether a part of a head has arrived, and the rest of it not yet.
    in_head: AtomicBool,
    /// Whether something was read of which hyper may not be done: a part of a message, or what is not to be followed by another.
    in_message: AtomicBool,
}

impl View {
    /// What is wrong with the message of this number; the first has the number 1.
    pub(super) fn fault_of(&self, message: u64) -> Option<Fault> {
        self.0.refused.get().filter(|(refused, _)| *refused == message).map(|(_, fault)| *fault)
    }

    /// Whether a request has begun to arrive of which nobody but the gate knows.
    pub(super) fn is_in_head(&self) -> bool {
        self.0.in_head.load(Ordering::Relaxed)
    }

    /// Whether all that was read are whole messages, and more may follow.
    pub(super) fn is_between_messages(&self) -> bool {
        !self.0.in_message.load(Ordering::Relaxed)
    }
}

/// Follows the messages of a connection and stops reading at the first that is at fault.
#[derive(Debug)]
pub(super) struct Gate {
    follower: Follower,
    view: View,
    /// With a head that is on its way, from the connection's start or the head's first byte.
    patience: Patience,
    stopped: Option<Fault>,
    ended: bool,
}

impl Gate {
    /// At the start of a connection. A head may take `header_timeout` to arrive.
    pub(super) fn new(limits: HeadLimits, header_timeout: Duration, view: View) -> Self {
        let follower = Follower::new(limits);
        Self { follower, view, patience: Patience::new(header_timeout), stopped: None, ended: false }
    }

    /// How many messages have begun.
    pub(super) fn messages(&self) -> u64 {
        self.follower.heads()
    }

    /// Whether the caller has said that it sends nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether all that was read are whole messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.follower.place() == Place::Between
    }

    /// Whether the caller may be sending what will never be read.
    pub(super) fn leaves_bytes_unread(&self) -> bool {
        !self.ended && (self.stopped.is_some() || !self.is_between_messages())
    }

    /// Reads from `stream` what may be read.
    pub(super) fn poll_read(
        &mut self,
        stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.stopped {
            None => {}
            Some(Fault::Chunk) => return Poll::Ready(Err(malformed_chunk())),
            // The refused message is being answered; then the connection is closed.
            Some(_) => return Poll::Pending,
        }
        let start = buffer.filled().len();
        let read = stream.poll_read(cx, buffer)?;
        if read.is_pending() {
            return self.poll_head_timer(cx);
        }
        let heads = self.follower.heads();
        let arrived = &buffer.filled()[start..];
        self.ended = arrived.is_empty();
        if let Err(Stop { at, fault }) = self.follower.feed(arrived) {
            self.stopped = Some(fault);
            buffer.set_filled(start + at);
            if fault != Fault::Chunk {
                let _ = self.view.0.refused.set((self.follower.heads(), fault));
            }
        }
        let place = self.follower.place();
        self.view.0.in_head.store(place == Place::Head, Ordering::Relaxed);
        let more_may_follow = self.stopped.is_none() && !self.ended;
        self.view.0.in_message.store(place != Place::Between || !more_may_follow, Ordering::Relaxed);
        // Empty lines before a head begin nothing and end nothing.
        if self.follower.heads() != heads || place == Place::Body {
            self.patience.restore();
        }
        Poll::Ready(Ok(()))
    }

    /// Waits, and fails when a head has taken too long. The time between two messages is the connection's to watch.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.follower.place() == Place::Head || self.follower.heads() == 0 {
            ready!(self.patience.poll_lost(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request took too long")));
        }
        Poll::Pending
    }
}

fn malformed_chunk() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a chunk of a request's body is malformed")
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::{Instant, advance},
    };

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A gate in front of one end of a pipe.
    struct Gated {
        gate: Gate,
        stream: DuplexStream,
    }

    impl AsyncRead for Gated {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            this.gate.poll_read(Pin::new(&mut this.stream), cx, buffer)
        }
    }

    fn gated() -> (Gated, DuplexStream, View) {
        let (ours, theirs) = duplex(1 << 20);
        let view = View::default();
        (Gated { gate: Gate::new(LIMITS, TIMEOUT, view.clone()), stream: ours }, theirs, view)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_after_a_message_that_is_refused() {
        let (mut gated, mut caller, view) = gated();
        let good = b"GET /a HTTP/1.1\r\n\r\n";
        let bad = b"GET /b#c HTTP/1.1\r\n\r\n";
        caller.write_all(&[&good[..], bad, good].concat()).await.unwrap();
        let mut bytes = vec![0; 1000];
        let read = gated.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..read], [&good[..], bad].concat());
        assert_eq!((view.fault_of(1), view.fault_of(2)), (None, Some(Fault::Fragment)));
        assert!(gated.gate.leaves_bytes_unread());
        let more = tokio::time::timeout(Duration::from_secs(3600), gated.read(&mut bytes)).await;
        assert!(more.is_err(), "neither bytes nor an end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_has_begun_to_arrive_is_seen_from_outside() {
        let (mut gated, mut caller, view) = gated();
        let mut bytes = vec![0; 1000];
        for (sent, in_head) in [("\r\n", false), ("GET /a HT", true), ("TP/1.1\r\n\r\n", false), ("P", true)] {
            caller.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(gated.read(&mut bytes).await.unwrap(), sent.len());
            assert_eq!(view.is_in_head(), in_head, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn i01_a_head_has_its_time_however_slowly_it_drips() {
        for before in ["", "GET /a HTTP/1.1\r\n\r\n"] {
            let (mut gated, mut caller, _) = gated();
            let mut bytes = vec![0; 1000];
            caller.write_all(before.as_bytes()).await.unwrap();
            if !before.is_empty() {
                let _ = gated.read(&mut bytes).await.unwrap();
                advance(TIMEOUT * 10).await;
            }
            let started = Instant::now();
            let dripping = tokio::spawn(async move {
                for byte in *b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaa" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if caller.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
            });
            let error = gated.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            // On a kept connection the time starts with the first byte, which comes after a second.
            assert_eq!(started.elapsed().as_secs(), if before.is_empty() { 10 } else { 11 });
            drop(gated);
            dripping.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_malformed_chunk_is_an_error_of_the_connection() {
        let (mut gated, mut caller, _) = gated();
        caller.write_all(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n").await.unwrap();
        let error = gated.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
