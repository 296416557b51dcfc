//! Finds where each HTTP/1.1 message of a connection starts and ends (RFC 9112, 6), incrementally as bytes arrive.
//!
//! hyper parses the requests that are forwarded, but it is lenient where another parser might read a message differently: it accepts
//! both `Transfer-Encoding` and `Content-Length` in one message, accepts further transfer codings, and drops the fragment of a target.
//! It does so before a service sees the request. Therefore a [`MessageFramer`] reads the bytes first. It accepts only messages that have
//! one interpretation, so it also knows where the next message starts.
//!
//! [`check`] finds what hyper itself would reject in a complete head, such as illegal bytes in names and values, so that the proxy's own
//! layers respond to it. A message must pass both parsers: if they disagree, it is rejected.

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

/// The maximum bytes of padding, extensions and trailers of one body. Legitimate clients send few; attackers use them to exhaust a
/// reader.
const MAX_CHUNK_EXTRA: usize = 16 * 1024;

/// Size limits for the head of a message.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// The bytes of the request target (`limits.target_bytes`).
    pub target_bytes: usize,
    /// The total bytes of all header lines (`limits.header_bytes`).
    pub header_bytes: usize,
    /// The number of header fields (`limits.headers`).
    pub headers: usize,
}

/// Why no further bytes of a connection must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingFault {
    /// The message has both `Content-Length` and `Transfer-Encoding` (RFC 9112, 6.3).
    LengthAndCoding,
    /// `Content-Length` is not one plain decimal number (RFC 9110, 8.6).
    Length,
    /// `Transfer-Encoding` is invalid (RFC 9112, 6.3), or in an HTTP/1.0 message.
    Coding,
    /// The body has a transfer coding in addition to `chunked` (RFC 9112, 6.1).
    UnsupportedCoding,
    /// The target has a fragment (RFC 9112, 3.2).
    Fragment,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The number or size of the header fields exceeds a limit.
    HeadersTooLarge,
    /// The head did not arrive completely within `limits.header_timeout`. Only the connection reports this fault and the next one.
    HeadTimeout,
    /// The incomplete head was evicted to make room for others.
    HeadEvicted,
    /// A part of the head contains a byte that is illegal in it.
    InvalidByte {
        /// The part.
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
    /// The target does not begin with a slash and is not a URI.
    Target,
    /// The header field with this number has no name or no colon.
    FieldLine(usize),
    /// A chunk of the body is malformed (RFC 9112, 7.1). This is the only fault that occurs in a body; all others occur in a head.
    Chunk,
}

/// Properties of a complete head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedHead {
    /// Its size in bytes, without preceding empty lines.
    pub bytes: usize,
    /// Whether hyper can read its framing fields, `Content-Length` and `Transfer-Encoding`. [`check`](Self::check) covers the rest.
    pub is_readable: bool,
    /// Whether each of its lines is known to be readable by hyper.
    is_plain: bool,
}

impl EndedHead {
    /// Like [`check`] for this `head`, but skips parsing if all of its lines were plain.
    ///
    /// # Errors
    ///
    /// The first fault of the head.
    pub fn check(&self, head: &[u8], max_fields: usize) -> Result<(), FramingFault> {
        if self.is_plain && head.len() <= syntax::MAX_NAME { Ok(()) } else { check(head, max_fields) }
    }
}

/// A fault and its offset in the bytes just consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingError {
    /// The number of bytes up to the end of the faulty head or chunk line. For a chunk line that exceeds the maximum length: up to that
    /// length.
    pub offset: usize,
    /// The fault.
    pub fault: FramingFault,
}

/// Position of a connection in its current message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before the first byte of a message.
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
    /// The start of an incomplete line of a body.
    line: Vec<u8>,
    heads: u64,
    /// The bytes received of an incomplete head.
    head_bytes: usize,
    /// The last complete head.
    ended_head: EndedHead,
    /// The bytes of extensions and trailers in this body.
    extra_bytes: usize,
}

/// The part of a message that the next byte belongs to.
#[derive(Debug)]
enum State {
    Head(RequestHead),
    /// The remaining bytes of a body with a `Content-Length`.
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
    /// A framer at the start of a connection.
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

    /// The number of complete heads, including a faulty one.
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

    /// The bytes received of an incomplete head; 0 outside a head.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// The last complete head, even if faulty.
    pub fn ended_head(&self) -> EndedHead {
        self.ended_head
    }

    /// Consumes `bytes`, which follow those of the previous call.
    ///
    /// # Errors
    ///
    /// The first fault and its offset. Do not call this again after an error.
    pub fn consume(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        let mut offset = 0;
        while offset < bytes.len() {
            offset += self
                .consume_to_head_end(&bytes[offset..])
                .map_err(|error| FramingError { offset: offset + error.offset, ..error })?;
        }
        Ok(())
    }

    /// Consumes `bytes` up to the end of the first head that they complete, or all of them. Returns the number consumed.
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

    /// Consumes the next part of `bytes`: a part of a body, a line, or the start of a line. Returns its length, also with a fault.
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

    /// The maximum length of any line. It makes the result for longer lines independent of how reads split them.
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

    /// Completes a head with its last line, of `last_line` bytes, and starts the body.
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

    /// Processes a complete line of a body, including its line end.
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
