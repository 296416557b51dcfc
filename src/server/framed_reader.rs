//! What a connection reads passes here: messages that have one reading, whose heads arrive in time. A head is held until it is whole,
//! so that hyper and its buffers wait for none.

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

use super::{evictions::Reason, head_budget::HeadShare, head_buffer::HeadBuffer, slots::State};
use crate::{
    message::framing::{FramingError, FramingFault, HeadLimits, MessageFramer, Position},
    stall::StallTimer,
};

/// What hyper may buffer beyond the limits of a head, so that a head over a limit still gets a proper answer.
pub(super) const HEAD_SLACK: usize = 32 * 1024;

/// How many bytes of a head that arrives in parts are read at once, on the stack.
const CHUNK: usize = 4096;

/// What others may know of a gate.
#[derive(Clone, Debug, Default)]
pub(super) struct ReaderStatus(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The message, by its number, that is the last one read, and why.
    refused: OnceLock<(u64, FramingFault)>,
    /// Whether a part of a head has arrived, and the rest of it not yet.
    in_head: AtomicBool,
    /// Whether something was read of which hyper may not be done: a part of a message, or what is not to be followed by another.
    in_message: AtomicBool,
}

impl ReaderStatus {
    /// What is wrong with the message of this number; the first has the number 1.
    pub(super) fn fault_of(&self, message: u64) -> Option<FramingFault> {
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
pub(super) struct FramedReader {
    follower: MessageFramer,
    view: ReaderStatus,
    /// With a head that is on its way, from the connection's start or the head's first byte.
    patience: StallTimer,
    stopped: Option<FramingFault>,
    ended: bool,
    state: Arc<State>,
    /// The unfinished head among those of all connections.
    share: HeadShare,
    /// When that head began, in microseconds.
    head_since: u64,
    /// What has arrived of it, and of what hyper has not read yet.
    held: Option<Box<HeadBuffer>>,
    /// The most bytes of a head that are held.
    head_capacity: usize,
    /// The head is longer than that, and hyper has it.
    is_overlong: bool,
    gave_way: Option<Reason>,
}

/// What was found in bytes that have arrived.
struct Followed {
    /// How many may be read; the others come after a fault.
    taken: usize,
    /// How many bytes of a head, of these and earlier ones, wait for its end.
    unfinished: usize,
    /// They end between two messages, and no head ended in them: a body did, or they are blank lines.
    is_blank: bool,
}

impl FramedReader {
    /// At the start of the connection with `state`. A head may take `header_timeout` to arrive; its bytes count in `share`.
    pub(super) fn new(
        limits: HeadLimits,
        header_timeout: Duration,
        view: ReaderStatus,
        state: Arc<State>,
        share: HeadShare,
    ) -> Self {
        Self {
            follower: MessageFramer::new(limits),
            view,
            patience: StallTimer::new(header_timeout),
            stopped: None,
            ended: false,
            state,
            share,
            head_since: 0,
            held: None,
            head_capacity: limits.target_bytes + limits.header_bytes + HEAD_SLACK,
            is_overlong: false,
            gave_way: None,
        }
    }

    /// What the connection shares with the acceptor.
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Why nothing more is read, if it is to make room.
    pub(super) fn gave_way(&self) -> Option<Reason> {
        self.gave_way
    }

    /// Reads nothing more, to make room. Where that is for another connection, it depends on the place why.
    pub(super) fn give_way(&mut self, reason: Option<Reason>) -> io::Error {
        let at_limit = if self.follower.position() == Position::Head { Reason::Head } else { Reason::Idle };
        self.gave_way = Some(reason.unwrap_or(at_limit));
        self.share.release();
        self.held = None;
        io::Error::other("the connection gave way to another one")
    }

    /// How many messages have begun.
    pub(super) fn messages(&self) -> u64 {
        self.follower.heads()
    }

    /// Whether the caller has said that it sends nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a head has begun to arrive, and has not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.follower.position() == Position::Head
    }

    /// Whether all that was read are whole messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.follower.position() == Position::Between
    }

    /// Whether the caller may be sending what will never be read.
    pub(super) fn leaves_bytes_unread(&self) -> bool {
        !self.ended && (self.stopped.is_some() || !self.is_between_messages())
    }

    /// Reads from `stream` what may be read: messages from the end of their heads on.
    pub(super) fn poll_read(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(held) = self.held.take_if(|held| held.is_ready()) {
                self.held = held.deliver(buffer).map(Box::new);
                return Poll::Ready(Ok(()));
            }
            match self.stopped {
                None => {}
                Some(FramingFault::Chunk) => return Poll::Ready(Err(malformed_chunk())),
                // The refused message is being answered; then the connection is closed.
                Some(_) => return Poll::Pending,
            }
            self.check_head()?;
            if self.held.is_some() {
                if self.poll_more(stream.as_mut(), cx)?.is_pending() {
                    return self.poll_head_timer(cx);
                }
            } else {
                let start = buffer.filled().len();
                if stream.as_mut().poll_read(cx, buffer)?.is_pending() {
                    return self.poll_head_timer(cx);
                }
                let Followed { taken, unfinished, .. } = self.follow(&buffer.filled()[start..]);
                let (end, held) = (start + taken, if self.is_overlong { 0 } else { unfinished.min(taken) });
                if held > 0 {
                    self.held = Some(Box::new(HeadBuffer::new(&buffer.filled()[end - held..end], self.head_capacity)));
                }
                buffer.set_filled(end - held);
                if taken > held {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads from `stream` while nothing of HTTP is kept for the connection. Ready when a whole head has arrived, or the end of the
    /// connection: whether there is something to serve.
    ///
    /// # Errors
    ///
    /// When the connection is lost, when a head after the first takes too long, or when it is to be given up.
    pub(super) fn poll_collect(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            if self.held.as_ref().is_some_and(|held| held.is_ready()) {
                return Poll::Ready(Ok(true));
            }
            if self.ended {
                return Poll::Ready(Ok(false));
            }
            self.check_head()?;
            if self.poll_more(stream.as_mut(), cx)?.is_pending() {
                // The time for the first head is that for the connection's first request.
                return if self.follower.heads() == 0 {
                    Poll::Pending
                } else {
                    self.poll_head_timer(cx).map_ok(|()| true)
                };
            }
        }
    }

    /// Fails when the unfinished head is to be given up.
    pub(super) fn check_head(&mut self) -> io::Result<()> {
        if !self.share.is_empty() {
            if self.state.is_expelled() {
                return Err(self.give_way(Some(Reason::HeadBytes)));
            }
            // It arrived behind a request that has been answered since.
            if !self.share.is_listed() && self.state.is_awaiting() {
                self.count_head();
            }
        }
        Ok(())
    }

    /// Reads more of what is held, or the start of it.
    fn poll_more(&mut self, stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; CHUNK];
        let mut chunk = ReadBuf::new(&mut chunk);
        ready!(stream.poll_read(cx, &mut chunk))?;
        let Followed { taken, unfinished, is_blank } = self.follow(chunk.filled());
        if self.ended || is_blank {
            self.held = None;
            return Poll::Ready(Ok(()));
        }
        let more = &chunk.filled()[..taken];
        let held = match &mut self.held {
            Some(held) => {
                held.push(more);
                held
            }
            None => self.held.insert(Box::new(HeadBuffer::new(more, self.head_capacity))),
        };
        // hyper refuses what is longer than any head may be.
        self.is_overlong |= unfinished > 0 && held.is_full();
        held.release(if self.is_overlong { 0 } else { unfinished });
        Poll::Ready(Ok(()))
    }

    /// Follows the messages in what has arrived. Nothing is the end.
    fn follow(&mut self, arrived: &[u8]) -> Followed {
        let heads = self.follower.heads();
        let mut taken = arrived.len();
        self.ended = arrived.is_empty();
        if !self.ended && self.state.is_asked() {
            self.state.keep();
        }
        if let Err(FramingError { offset: at, fault }) = self.follower.consume(arrived) {
            self.stopped = Some(fault);
            taken = at;
            if fault != FramingFault::Chunk {
                let _ = self.view.0.refused.set((self.follower.heads(), fault));
            }
        }
        let (place, has_head_ended) = (self.follower.position(), self.follower.heads() != heads);
        if !self.share.is_empty() && (has_head_ended || place != Position::Head) {
            self.share.release();
            self.state.spare();
        }
        self.is_overlong &= !has_head_ended;
        if place == Position::Head && self.stopped.is_none() {
            self.count_head();
        }
        let is_blank = place == Position::Between && !has_head_ended && self.stopped.is_none();
        if is_blank && self.state.is_awaiting() {
            self.state.still_idle();
        }
        self.view.0.in_head.store(place == Position::Head, Ordering::Relaxed);
        let more_may_follow = self.stopped.is_none() && !self.ended;
        let in_message = place == Position::Body || self.is_overlong || !more_may_follow;
        self.view.0.in_message.store(in_message, Ordering::Relaxed);
        // Empty lines before a head begin nothing and end nothing.
        if has_head_ended || place == Position::Body {
            self.patience.restore();
        }
        let unfinished = if self.stopped.is_none() { self.follower.head_bytes() } else { 0 };
        Followed { taken, unfinished, is_blank }
    }

    /// Counts the bytes of an unfinished head. With a request before it in flight, it cannot be given up.
    fn count_head(&mut self) {
        if self.share.is_empty() {
            // The first of a connection began with it, as for its timeout.
            self.head_since = if self.follower.heads() == 0 { self.state.opened() } else { State::now() };
        }
        let awaited = self.state.is_awaiting().then_some(&self.state);
        if let Some(state) = awaited {
            state.in_head(self.head_since);
        }
        self.share.grow(self.follower.head_bytes(), self.head_since, awaited);
    }

    /// Waits, and fails when a head has taken too long. The time between two messages is the connection's to watch.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.follower.position() == Position::Head || self.follower.heads() == 0 {
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
mod tests;
