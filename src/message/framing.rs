//! Where each HTTP/1.1 message of a connection starts and ends (RFC 9112, 6), followed on the bytes as they arrive.
//!
//! hyper parses the requests that are forwarded. It is lenient where a second reader might understand a message otherwise: it
//! serves one with both `Transfer-Encoding` and `Content-Length`, one with further transfer codings, and it drops the fragment
//! of a target, all before anybody can look. So the bytes go past a [`MessageFramer`] first, which accepts only messages that have
//! one reading, and knows by that where the next one starts.
//!
//! What hyper would refuse by itself, such as illegal bytes in names and values, is found by [`check`] in a head that has ended, so that
//! the proxy's own layers respond to it. What both let through has passed both; where the two disagreed, less would be let through,
//! never more.

mod chunk;
mod head;
mod partial_line;
mod plain_line;
mod syntax;

use std::mem;

use memchr::memchr;

use self::head::{BodyFraming, HeadProgress, RequestHead};
pub use self::{
    chunk::ChunkLine,
    syntax::{HeadPart, MIN_FIELD_LIMIT, check, substitute},
};

/// The most bytes of all extensions and trailers of one body. Nobody uses them but to exhaust a reader.
const MAX_CHUNK_EXTRA: usize = 16 * 1024;

/// How large the head of a message may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// The bytes of the request target (`limits.target_bytes`).
    pub target_bytes: usize,
    /// The bytes of all header lines together (`limits.header_bytes`).
    pub header_bytes: usize,
    /// The number of header fields (`limits.headers`).
    pub headers: usize,
}

/// Why no further byte of a connection is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingFault {
    /// The message has both `Content-Length` and `Transfer-Encoding` (RFC 9112, 6.3).
    LengthAndCoding,
    /// `Content-Length` is not one plain decimal number (RFC 9110, 8.6).
    Length,
    /// `Transfer-Encoding` is not understood (RFC 9112, 6.3), or the message is older than it.
    Coding,
    /// The body has a transfer coding besides `chunked` (RFC 9112, 6.1).
    UnsupportedCoding,
    /// The target has a fragment (RFC 9112, 3.2).
    Fragment,
    /// The target is longer than the limit.
    TargetTooLong,
    /// There are more header fields, or larger ones, than the limit.
    HeadersTooLarge,
    /// The head did not arrive in full within `limits.header_timeout`. Only a connection knows this and the next one.
    HeadTimeout,
    /// The head had not arrived in full when its place was needed for others.
    HeadEvicted,
    /// There is a byte in the head that its part must not have.
    InvalidByte {
        /// Where.
        part: HeadPart,
        /// The byte.
        byte: u8,
        /// Its offset in the method, in the target, or in the line of the header field.
        offset: usize,
    },
    /// The first line is not a method, a target and a version, with one space between them.
    RequestLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// The target begins with no slash, and is no URI.
    Target,
    /// The header field with this number has no name or no colon.
    FieldLine(usize),
    /// A chunk of the body is malformed (RFC 9112, 7.1). This comes in the middle of a message, all others in a head or at its end.
    Chunk,
}

/// What is known of a head that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedHead {
    /// Its bytes, without empty lines before it.
    pub bytes: usize,
    /// Whether hyper reads what it says of the length and the coding of the body. [`check`](Self::check) is about everything else in it.
    pub is_readable: bool,
    /// Whether each of its lines is known to be one that hyper reads.
    is_plain: bool,
}

impl EndedHead {
    /// Does what [`check`] does for this `head`, without parsing it where each of its lines was seen to be an ordinary one.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, head: &[u8], max_fields: usize) -> Result<(), FramingFault> {
        if self.is_plain && head.len() <= syntax::MAX_NAME { Ok(()) } else { check(head, max_fields) }
    }
}

/// A fault, and how many of the bytes just consumed come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingError {
    /// The number of bytes up to the end of the head, or of the chunk line, that is at fault; in a chunk line that is longer than
    /// any may be, up to there.
    pub offset: usize,
    /// What is wrong.
    pub fault: FramingFault,
}

/// Position of a connection in its current message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before the first byte of one.
    Between,
    /// In a head.
    Head,
    /// In a body.
    Body,
}

/// Finds the boundaries of the messages of one connection, incrementally.
#[derive(Debug)]
pub struct MessageFramer {
    limits: HeadLimits,
    state: State,
    /// The start of a line of a body whose end has not arrived.
    line: Vec<u8>,
    heads: u64,
    /// The bytes of the head that has not ended.
    head_bytes: usize,
    /// The last head that has.
    ended_head: EndedHead,
    /// The bytes of extensions and trailers in this body.
    extra_bytes: usize,
}

/// The part of a message that the next byte belongs to.
#[derive(Debug)]
enum State {
    Head(RequestHead),
    /// The remaining bytes of a body with a length.
    Length(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// The remaining bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// The lines after the last chunk.
    Trailer,
}

impl MessageFramer {
    /// At the start of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::Head(RequestHead::default()),
            line: Vec::new(),
            heads: 0,
            head_bytes: 0,
            ended_head: EndedHead { bytes: 0, is_readable: true, is_plain: false },
            extra_bytes: 0,
        }
    }

    /// How many heads have ended, one at fault included.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// The position in the current message.
    pub fn position(&self) -> Position {
        match &self.state {
            State::Head(head) if head.is_empty() => Position::Between,
            State::Head(_) => Position::Head,
            _ => Position::Body,
        }
    }

    /// The bytes of the head that has begun and not ended; 0 outside of one.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// The last head that has ended, at fault or not.
    pub fn ended_head(&self) -> EndedHead {
        self.ended_head
    }

    /// Consumes `bytes`, which come after those of the previous call.
    ///
    /// # Errors
    ///
    /// The first fault and its offset. After an error, this must not be called again.
    pub fn consume(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        let mut offset = 0;
        while offset < bytes.len() {
            offset += self
                .consume_to_head_end(&bytes[offset..])
                .map_err(|error| FramingError { offset: offset + error.offset, ..error })?;
        }
        Ok(())
    }

    /// Consumes `bytes` up to the end of the first head that ends in them, or all of them. Returns how many.
    ///
    /// # Errors
    ///
    /// As for [`consume`](Self::consume).
    pub fn consume_to_head_end(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let (mut offset, heads) = (0, self.heads);
        while offset < bytes.len() && self.heads == heads {
            offset += self
                .consume_next(&bytes[offset..])
                .map_err(|(consumed, fault)| FramingError { offset: offset + consumed, fault })?;
        }
        Ok(offset)
    }

    /// Consumes the next part of `bytes`: a part of a body, or a line or its start. Returns its length, also with a fault.
    fn consume_next(&mut self, bytes: &[u8]) -> Result<usize, (usize, FramingFault)> {
        if let State::Length(left) | State::Chunk(left) = &mut self.state {
            let consumed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= consumed as u64;
            if *left == 0 {
                self.state = if matches!(self.state, State::Length(_)) {
                    State::Head(RequestHead::default())
                } else {
                    State::ChunkEnd
                };
            }
            return Ok(consumed);
        }
        let end = memchr(b'\n', bytes);
        let part = &bytes[..end.map_or(bytes.len(), |end| end + 1)];
        let at_end = |fault| (part.len(), fault);
        let max_line_bytes = self.max_line_bytes();
        if let State::Head(head) = &mut self.state {
            match head.consume(part, max_line_bytes, &self.limits) {
                HeadProgress::Between => self.head_bytes = 0,
                HeadProgress::Within => self.head_bytes += part.len(),
                HeadProgress::End => self.end_head(part.len()).map_err(at_end)?,
            }
            return Ok(part.len());
        }
        if end.is_some() && self.line.is_empty() && part.len() <= max_line_bytes {
            self.end_line(part).map_err(at_end)?;
            return Ok(part.len());
        }
        self.buffer_line(part)?;
        if end.is_some() {
            let line = mem::take(&mut self.line);
            self.end_line(&line).map_err(at_end)?;
        }
        Ok(part.len())
    }

    /// The maximum length of any line, so that the result for a longer one does not depend on how it is split.
    fn max_line_bytes(&self) -> usize {
        self.limits.target_bytes + self.limits.header_bytes + MAX_CHUNK_EXTRA
    }

    /// Buffers the start of a line of a body until its end arrives, up to the maximum length of any line.
    fn buffer_line(&mut self, part: &[u8]) -> Result<(), (usize, FramingFault)> {
        let remaining = self.max_line_bytes() - self.line.len();
        if part.len() <= remaining {
            self.line.extend_from_slice(part);
            return Ok(());
        }
        Err((remaining, FramingFault::Chunk))
    }

    /// Ends a head with a line of `last_line` bytes, and starts its body.
    fn end_head(&mut self, last_line: usize) -> Result<(), FramingFault> {
        let State::Head(head) = mem::replace(&mut self.state, State::Head(RequestHead::default())) else {
            return Ok(());
        };
        self.heads += 1;
        self.ended_head = EndedHead {
            bytes: self.head_bytes + last_line,
            is_readable: head.has_readable_framing(),
            is_plain: head.is_plain(),
        };
        (self.extra_bytes, self.head_bytes) = (0, 0);
        self.state = match head.body_framing()? {
            BodyFraming::Length(0) => State::Head(RequestHead::default()),
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::ChunkSize,
        };
        Ok(())
    }

    /// Processes a whole line of a body, its end included.
    fn end_line(&mut self, line: &[u8]) -> Result<(), FramingFault> {
        self.state = match &mut self.state {
            State::ChunkSize => {
                let ChunkLine { size, padding, extensions } = ChunkLine::parse(line).ok_or(FramingFault::Chunk)?;
                self.count_extra_bytes(padding + extensions)?;
                if size == 0 { State::Trailer } else { State::Chunk(size) }
            }
            State::ChunkEnd if line == b"\r\n" => State::ChunkSize,
            State::Trailer if line == b"\r\n" => State::Head(RequestHead::default()),
            State::Trailer if line.ends_with(b"\r\n") => return self.count_extra_bytes(line.len()),
            _ => return Err(FramingFault::Chunk),
        };
        Ok(())
    }

    fn count_extra_bytes(&mut self, bytes: usize) -> Result<(), FramingFault> {
        self.extra_bytes += bytes;
        if self.extra_bytes < MAX_CHUNK_EXTRA { Ok(()) } else { Err(FramingFault::Chunk) }
    }
}

#[cfg(test)]
mod tests;
