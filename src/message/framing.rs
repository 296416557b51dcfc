//! Where each HTTP/1.1 message of a connection starts and ends (RFC 9112, 6), followed on the bytes as they arrive.
//!
//! hyper parses the requests that are forwarded. It is lenient where a second reader might understand a message otherwise: it
//! serves one with both `Transfer-Encoding` and `Content-Length`, one with further transfer codings, and it drops the fragment
//! of a target, all before anybody can look. So the bytes go past a [`MessageFramer`] first, which accepts only messages that have
//! one reading, and knows by that where the next one starts.
//!
//! Deliberately absent: everything that hyper refuses by itself, such as illegal bytes in names and values. What both let
//! through has passed both; where the two disagreed, less would be let through, never more.

mod chunk;
mod head;
mod partial_line;

use std::mem;

use memchr::memchr;

pub use self::chunk::ChunkLine;
use self::head::{Body, Head, Part};

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
pub enum Fault {
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
    /// A chunk of the body is malformed (RFC 9112, 7.1). This comes in the middle of a message, all others at the end of a head.
    Chunk,
}

/// A fault, and how many of the bytes just fed come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The number of bytes up to the end of the head, or of the chunk line, that is at fault; in a chunk line that is longer than
    /// any may be, up to there.
    pub at: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// Where in a message a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the first byte of one.
    Between,
    /// In a head.
    Head,
    /// In a body.
    Body,
}

/// Follows the messages of one connection.
#[derive(Debug)]
pub struct MessageFramer {
    limits: HeadLimits,
    at: At,
    /// The start of a line of a body whose end has not arrived.
    line: Vec<u8>,
    heads: u64,
    /// The bytes of the head that has not ended.
    head_bytes: usize,
    /// The bytes of extensions and trailers in this body.
    extra: usize,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum At {
    Head(Head),
    /// So many bytes of a body that has a length.
    Length(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// The lines after the last chunk.
    Trailer,
}

impl MessageFramer {
    /// At the start of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, at: At::Head(Head::default()), line: Vec::new(), heads: 0, head_bytes: 0, extra: 0 }
    }

    /// How many heads have ended, one at fault included.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Where the connection is.
    pub fn place(&self) -> Place {
        match &self.at {
            At::Head(head) if head.is_empty() => Place::Between,
            At::Head(_) => Place::Head,
            _ => Place::Body,
        }
    }

    /// The bytes of the head that has begun and not ended; 0 outside of one.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Follows `bytes`, which come after those of the last call.
    ///
    /// # Errors
    ///
    /// At the place from which on nothing is to be read any more; this must not be called again then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]).map_err(|(taken, fault)| Stop { at: at + taken, fault })?;
        }
        Ok(())
    }

    /// Takes what comes next in `bytes`: a part of a body, or a line or its start. Says how long it is, with a fault too.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, (usize, Fault)> {
        if let At::Length(left) | At::Chunk(left) = &mut self.at {
            let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= taken as u64;
            if *left == 0 {
                self.at = if matches!(self.at, At::Length(_)) { At::Head(Head::default()) } else { At::ChunkEnd };
            }
            return Ok(taken);
        }
        let end = memchr(b'\n', bytes);
        let part = &bytes[..end.map_or(bytes.len(), |end| end + 1)];
        let at_its_end = |fault| (part.len(), fault);
        let longest = self.longest_line();
        if let At::Head(head) = &mut self.at {
            match head.part(part, longest, &self.limits) {
                Part::Between => self.head_bytes = 0,
                Part::Within => self.head_bytes += part.len(),
                Part::End => self.head_ended().map_err(at_its_end)?,
            }
            return Ok(part.len());
        }
        if end.is_some() && self.line.is_empty() && part.len() <= longest {
            self.line_ended(part).map_err(at_its_end)?;
            return Ok(part.len());
        }
        self.keep(part)?;
        if end.is_some() {
            let line = mem::take(&mut self.line);
            self.line_ended(&line).map_err(at_its_end)?;
        }
        Ok(part.len())
    }

    /// The most bytes of any line, so that what becomes of a longer one does not depend on how it arrives.
    fn longest_line(&self) -> usize {
        self.limits.target_bytes + self.limits.header_bytes + MAX_CHUNK_EXTRA
    }

    /// Keeps the start of a line of a body until its end arrives, up to what any line may be long.
    fn keep(&mut self, part: &[u8]) -> Result<(), (usize, Fault)> {
        let room = self.longest_line() - self.line.len();
        if part.len() <= room {
            self.line.extend_from_slice(part);
            return Ok(());
        }
        Err((room, Fault::Chunk))
    }

    /// Takes the end of a head.
    fn head_ended(&mut self) -> Result<(), Fault> {
        let At::Head(head) = mem::replace(&mut self.at, At::Head(Head::default())) else { return Ok(()) };
        self.heads += 1;
        (self.extra, self.head_bytes) = (0, 0);
        self.at = match head.body()? {
            Body::Length(0) => At::Head(Head::default()),
            Body::Length(length) => At::Length(length),
            Body::Chunked => At::ChunkSize,
        };
        Ok(())
    }

    /// Takes a whole line of a body, its end included.
    fn line_ended(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.at = match &mut self.at {
            At::ChunkSize => {
                let ChunkLine { size, padding, extensions } = ChunkLine::parse(line).ok_or(Fault::Chunk)?;
                self.count_extra(padding + extensions)?;
                if size == 0 { At::Trailer } else { At::Chunk(size) }
            }
            At::ChunkEnd if line == b"\r\n" => At::ChunkSize,
            At::Trailer if line == b"\r\n" => At::Head(Head::default()),
            At::Trailer if line.ends_with(b"\r\n") => return self.count_extra(line.len()),
            _ => return Err(Fault::Chunk),
        };
        Ok(())
    }

    fn count_extra(&mut self, bytes: usize) -> Result<(), Fault> {
        self.extra += bytes;
        if self.extra < MAX_CHUNK_EXTRA { Ok(()) } else { Err(Fault::Chunk) }
    }
}

#[cfg(test)]
mod tests;
