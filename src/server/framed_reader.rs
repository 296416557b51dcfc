//! The reader in front of hyper. It passes on only messages with unambiguous framing whose heads arrive in time. It buffers each head until
//! it is complete, so that no hyper buffer waits for one, and replaces a head that hyper could not parse, so that the service responds to
//! every request.

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

use super::{evictions::EvictionReason, head_budget::HeadShare, head_buffer::HeadBuffer, slots::SlotState};
use crate::{
    message::framing::{self, FramingError, FramingFault, HeadLimits, MessageFramer, Position},
    stall::StallTimer,
};

/// How much hyper may buffer beyond the limits of a head, so that an oversized head still gets a proper response.
pub(super) const HEAD_SLACK: usize = 32 * 1024;

/// How many bytes of a partial head are read at a time, on the stack.
const READ_SIZE: usize = 4096;

/// The status of a [`FramedReader`], for other parts of the connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ReaderStatus(Arc<StatusFlags>);

#[derive(Debug, Default)]
struct StatusFlags {
    /// The number and the fault of the rejected message. No message is read after it.
    rejected: OnceLock<(u64, FramingFault)>,
    /// See [`ReaderStatus::is_in_head`].
    in_head: AtomicBool,
    /// A message has been read in part, or no further message can follow: hyper may still need the connection.
    in_message: AtomicBool,
}

impl ReaderStatus {
    /// The fault in the message with this number. Numbers start at 1.
    pub(super) fn fault_in(&self, message: u64) -> Option<FramingFault> {
        self.0.rejected.get().filter(|(rejected, _)| *rejected == message).map(|(_, fault)| *fault)
    }

    /// Whether a head has arrived in part. hyper has not seen it.
    pub(super) fn is_in_head(&self) -> bool {
        self.0.in_head.load(Ordering::Relaxed)
    }

    /// Whether only complete messages have been read, and more may follow.
    pub(super) fn is_between_messages(&self) -> bool {
        !self.0.in_message.load(Ordering::Relaxed)
    }
}

/// Parses the framing of a connection's messages, and stops reading at the first malformed one.
#[derive(Debug)]
pub(super) struct FramedReader {
    framer: MessageFramer,
    status: ReaderStatus,
    /// The header timeout, from the start of the connection or the first byte of the head.
    head_timer: StallTimer,
    fault: Option<FramingFault>,
    eof: bool,
    state: Arc<SlotState>,
    /// The share of the unfinished head in the budget of all connections.
    head_share: HeadShare,
    /// When the unfinished head began, in microseconds.
    head_started: u64,
    /// The unfinished head, and earlier bytes that hyper has not read yet.
    buffered: Option<Box<HeadBuffer>>,
    limits: HeadLimits,
    /// An incomplete head was rejected.
    is_head_rejected_early: bool,
    eviction: Option<EvictionReason>,
}

/// The result of parsing the bytes of one read.
struct Consumed {
    /// The end of the bytes that hyper may read. Those after it follow a fault.
    readable: usize,
    /// What hyper reads after them, in place of a rejected head.
    substitute: Option<Vec<u8>>,
    /// The number of bytes of an incomplete head, including earlier reads.
    unfinished: usize,
    /// The bytes end between two messages and complete no head: they are the rest of a body, or blank lines.
    is_blank: bool,
}

impl FramedReader {
    /// A reader at the start of the connection with `state`. A head may take `header_timeout` to arrive; its bytes count in `head_share`.
    pub(super) fn new(
        limits: HeadLimits,
        header_timeout: Duration,
        status: ReaderStatus,
        state: Arc<SlotState>,
        head_share: HeadShare,
    ) -> Self {
        Self {
            framer: MessageFramer::new(limits),
            status,
            head_timer: StallTimer::new(header_timeout),
            fault: None,
            eof: false,
            state,
            head_share,
            head_started: 0,
            buffered: None,
            limits,
            is_head_rejected_early: false,
            eviction: None,
        }
    }

    /// The state shared with the acceptor.
    pub(super) fn state(&self) -> &Arc<SlotState> {
        &self.state
    }

    /// Why the connection is being evicted, if it is.
    pub(super) fn eviction(&self) -> Option<EvictionReason> {
        self.eviction
    }

    /// Evicts the connection for `reason`: nothing more is read. Returns the error for hyper.
    pub(super) fn evict(&mut self, reason: EvictionReason) -> io::Error {
        self.eviction = Some(reason);
        self.head_share.release();
        self.buffered = None;
        io::Error::other("connection evicted for a new one")
    }

    /// Evicts the connection at the connection limit. If there is an unfinished head, call the service: it gets a response first.
    ///
    /// # Errors
    ///
    /// If the connection is idle, so there is nothing to respond to.
    pub(super) fn evict_at_limit(&mut self) -> io::Result<()> {
        if !self.is_in_head() {
            return Err(self.evict(EvictionReason::Idle));
        }
        self.evict_head(EvictionReason::UnfinishedHead);
        Ok(())
    }

    /// Evicts the connection after a response to its unfinished head.
    fn evict_head(&mut self, reason: EvictionReason) {
        self.eviction = Some(reason);
        self.state.set_evicted();
        self.reject_head(FramingFault::HeadEvicted);
    }

    /// Rejects a head that was not complete in time. Returns whether there is one.
    pub(super) fn reject_late_head(&mut self) -> bool {
        let is_in_head = self.is_in_head();
        if is_in_head {
            self.reject_head(FramingFault::HeadTimeout);
        }
        is_in_head
    }

    /// The number of messages that have begun.
    pub(super) fn messages_begun(&self) -> u64 {
        self.framer.heads() + u64::from(self.is_head_rejected_early)
    }

    /// Whether the client has closed its sending direction.
    pub(super) fn has_eof(&self) -> bool {
        self.eof
    }

    /// Whether a head has arrived in part.
    pub(super) fn is_in_head(&self) -> bool {
        self.framer.position() == Position::Head && self.fault.is_none()
    }

    /// Whether only complete messages have been read.
    pub(super) fn is_between_messages(&self) -> bool {
        self.framer.position() == Position::Between
    }

    /// Whether the client may send bytes that will never be read.
    pub(super) fn leaves_bytes_unread(&self) -> bool {
        !self.eof && (self.fault.is_some() || !self.is_between_messages())
    }

    /// Reads from `stream` into `buffer`. A message becomes readable when its head is complete.
    pub(super) fn poll_read(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(buffered) = self.buffered.take_if(|buffered| buffered.has_deliverable()) {
                self.buffered = buffered.deliver(buffer).map(Box::new);
                return Poll::Ready(Ok(()));
            }
            match self.fault {
                None => {}
                Some(FramingFault::Chunk) => return Poll::Ready(Err(malformed_chunk())),
                // hyper responds to the rejected message, then the connection closes.
                Some(_) => return Poll::Pending,
            }
            if self.check_head_eviction() {
                continue;
            }
            if self.buffered.is_some() {
                if self.poll_fill(stream.as_mut(), cx)?.is_pending() {
                    ready!(self.poll_head_timer(cx))?;
                }
            } else {
                let start = buffer.filled().len();
                if stream.as_mut().poll_read(cx, buffer)?.is_pending() {
                    ready!(self.poll_head_timer(cx))?;
                    continue;
                }
                let Consumed { readable, substitute, unfinished, .. } = self.consume(buffer.filled(), start);
                let end = readable - unfinished;
                if unfinished > 0 {
                    self.buffered =
                        Some(Box::new(HeadBuffer::new(&buffer.filled()[end..readable], self.head_capacity())));
                }
                if let Some(substitute) = substitute {
                    self.buffered = Some(deliverable(&substitute));
                }
                buffer.set_filled(end);
                if end > start {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.eof {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads from `stream` while the connection is parked. Ready when a head is complete or the connection has ended. Returns whether there
    /// is something to serve.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(super) fn poll_buffer_head(
        &mut self,
        mut stream: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        loop {
            if self.buffered.as_ref().is_some_and(|buffered| buffered.has_deliverable()) {
                return Poll::Ready(Ok(true));
            }
            if self.eof {
                return Poll::Ready(Ok(false));
            }
            if !self.check_head_eviction() && self.poll_fill(stream.as_mut(), cx)?.is_pending() {
                // The first head shares the timeout of the connection's first request, which the caller watches.
                if self.framer.heads() == 0 {
                    return Poll::Pending;
                }
                ready!(self.poll_head_timer(cx))?;
            }
        }
    }

    /// Rejects the unfinished head if its eviction was requested. Returns whether it was.
    pub(super) fn check_head_eviction(&mut self) -> bool {
        if !self.head_share.is_empty() {
            if self.state.is_head_evicted() {
                self.evict_head(EvictionReason::UnfinishedHeadBytes);
                return true;
            }
            // The head arrived while an earlier request was in flight. That request has received its response since.
            if !self.head_share.is_evictable() && self.state.is_awaiting_request() {
                self.count_head_bytes();
            }
        }
        false
    }

    /// Reads into the buffer.
    fn poll_fill(&mut self, stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; READ_SIZE];
        let mut chunk = ReadBuf::new(&mut chunk);
        ready!(stream.poll_read(cx, &mut chunk))?;
        let mut buffered = self.buffered.take();
        let start = buffered.as_ref().map_or(0, |buffered| buffered.bytes().len());
        let bytes = match &mut buffered {
            Some(buffered) => {
                buffered.push(chunk.filled());
                buffered.bytes()
            }
            None => chunk.filled(),
        };
        let Consumed { readable, substitute, unfinished, is_blank } = self.consume(bytes, start);
        if self.eof || is_blank {
            return Poll::Ready(Ok(()));
        }
        let mut buffered = buffered.unwrap_or_else(|| Box::new(HeadBuffer::new(chunk.filled(), self.head_capacity())));
        buffered.truncate(readable);
        if let Some(substitute) = substitute {
            buffered.push(&substitute);
        }
        buffered.hold_back(unfinished);
        let is_overlong = unfinished > 0 && buffered.is_full();
        self.buffered = Some(buffered);
        if is_overlong {
            self.reject_overlong_head();
        }
        Poll::Ready(Ok(()))
    }

    /// Parses the framing of `bytes[start..]`, which have just arrived; empty means EOF. `bytes[..start]` is the earlier part of the same
    /// head.
    fn consume(&mut self, bytes: &[u8], start: usize) -> Consumed {
        self.eof = bytes.len() == start;
        if !self.eof && self.state.is_eviction_requested() {
            self.state.decline_eviction();
        }
        let heads = self.framer.heads();
        let (mut readable, mut substitute) = (start, None);
        while readable < bytes.len() && self.fault.is_none() {
            let heads = self.framer.heads();
            let (consumed, fault) = match self.framer.consume_to_head_end(&bytes[readable..]) {
                Ok(consumed) => (consumed, None),
                Err(FramingError { offset, fault }) => (offset, Some(fault)),
            };
            readable += consumed;
            self.fault = fault;
            if self.framer.heads() != heads {
                let ended = self.framer.ended_head();
                let head_start = readable - ended.bytes;
                let head = &bytes[head_start..readable];
                let unreadable = ended.check(head, self.limits.headers).err();
                self.fault = fault.or(unreadable);
                if unreadable.is_some() || !ended.is_readable || head.len() > self.head_capacity() {
                    (readable, substitute) = (head_start, Some(framing::substitute(head)));
                }
            }
        }
        if let Some(fault) = self.fault.filter(|fault| *fault != FramingFault::Chunk) {
            let _ = self.status.0.rejected.set((self.framer.heads(), fault));
        }
        let (place, has_head_ended) = (self.framer.position(), self.framer.heads() != heads);
        if !self.head_share.is_empty() && (has_head_ended || place != Position::Head) {
            self.head_share.release();
            self.state.keep_head();
        }
        if self.is_in_head() {
            self.count_head_bytes();
        }
        let is_blank = place == Position::Between && !has_head_ended && self.fault.is_none();
        if is_blank && self.state.is_awaiting_request() {
            self.state.restore_idle();
        }
        self.update_status();
        // Empty lines before a head neither start nor stop the timer.
        if has_head_ended || place == Position::Body {
            self.head_timer.reset();
        }
        let unfinished = if self.fault.is_none() { self.framer.head_bytes() } else { 0 };
        Consumed { readable, substitute, unfinished, is_blank }
    }

    fn update_status(&self) {
        self.status.0.in_head.store(self.is_in_head(), Ordering::Relaxed);
        let more_may_follow = self.fault.is_none() && !self.eof;
        let in_message = self.framer.position() == Position::Body || !more_may_follow;
        self.status.0.in_message.store(in_message, Ordering::Relaxed);
    }

    /// The maximum number of buffered bytes of a head.
    fn head_capacity(&self) -> usize {
        self.limits.target_bytes + self.limits.header_bytes + HEAD_SLACK
    }

    /// Rejects the head in the buffer because it exceeds every limit.
    fn reject_overlong_head(&mut self) {
        let head = self.buffered.as_ref().map_or(&[][..], |buffered| buffered.bytes());
        let is_in_target = memchr::memchr(b'\n', head).is_none();
        self.reject_head(if is_in_target { FramingFault::TargetTooLong } else { FramingFault::HeadersTooLarge });
    }

    /// Replaces the unfinished head in the buffer, so that the service responds to it. Nothing more is read.
    fn reject_head(&mut self, fault: FramingFault) {
        let head = self.buffered.as_ref().map_or(&[][..], |buffered| buffered.bytes());
        self.buffered = Some(deliverable(&framing::substitute(head)));
        self.is_head_rejected_early = true;
        self.fault = Some(fault);
        let _ = self.status.0.rejected.set((self.messages_begun(), fault));
        self.head_share.release();
        self.state.keep_head();
        self.head_timer.reset();
        self.update_status();
    }

    /// Counts the bytes of an unfinished head. A head behind a request in flight cannot be evicted.
    fn count_head_bytes(&mut self) {
        if self.head_share.is_empty() {
            // The first head counts from the start of the connection, as for its timeout.
            self.head_started = if self.framer.heads() == 0 { self.state.accepted_at() } else { SlotState::now() };
        }
        let evictable = self.state.is_awaiting_request().then_some(&self.state);
        if let Some(state) = evictable {
            state.set_in_head(self.head_started);
        }
        self.head_share.set_bytes(self.framer.head_bytes(), self.head_started, evictable);
    }

    /// Ready when a head has timed out and was rejected. The connection itself limits the time between messages.
    ///
    /// # Errors
    ///
    /// If no byte of the first head has arrived.
    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framer.position() == Position::Head || self.framer.heads() == 0 {
            ready!(self.head_timer.poll_elapsed(cx));
            return Poll::Ready(if self.reject_late_head() {
                Ok(())
            } else {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no request arrived in time"))
            });
        }
        Poll::Pending
    }
}

/// A buffer of `bytes`, all deliverable.
fn deliverable(bytes: &[u8]) -> Box<HeadBuffer> {
    let mut buffer = Box::new(HeadBuffer::new(bytes, bytes.len()));
    buffer.hold_back(0);
    buffer
}

fn malformed_chunk() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed chunk in a request body")
}

#[cfg(test)]
mod tests;
