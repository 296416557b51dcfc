//! Finds the end of a response body (RFC 9112, sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::SizeHint;
use httparse::Status;

use super::Error;
use crate::message::framing::ChunkLine;

/// The maximum bytes of a chunk size line, of all chunk extensions of a body, and of its trailers, and the maximum number of trailers. Real
/// servers use almost none of these; larger values only serve to exhaust the reader.
const MAX_LINE_BYTES: usize = 4 * 1024;
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 32;

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// The number of bytes of chunk extensions so far.
    extension_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The number of bytes left in the body.
    Length(u64),
    /// A chunk size line comes next.
    ChunkSize,
    /// The number of bytes left in the chunk.
    Chunk(u64),
    /// The CRLF after a chunk's data comes next.
    ChunkEnd,
    /// The trailers come next.
    Trailers,
    /// The body ends with the connection.
    UntilClose,
    /// The body has ended.
    Done,
}

/// The result of decoding a part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A part of the body.
    Data(Bytes),
    /// The body has ended.
    End,
    /// More bytes are needed.
    NeedMore,
}

impl Decoder {
    /// A decoder for an empty body.
    pub(super) const DONE: Self = Self::new(State::Done);

    /// A decoder for a body that ends with its connection.
    pub(super) const UNTIL_CLOSE: Self = Self::new(State::UntilClose);

    /// A decoder for a chunked body.
    pub(super) const CHUNKED: Self = Self::new(State::ChunkSize);

    /// A decoder for a body of `bytes` bytes.
    pub(super) const fn length(bytes: u64) -> Self {
        Self::new(if bytes == 0 { State::Done } else { State::Length(bytes) })
    }

    const fn new(state: State) -> Self {
        Self { state, extension_bytes: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn is_close_delimited(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The size of the rest of the body.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Done => SizeHint::with_exact(0),
            State::Length(remaining) => SizeHint::with_exact(remaining),
            _ => SizeHint::default(),
        }
    }

    /// Decodes and removes the next part from the start of `bytes`.
    ///
    /// # Errors
    ///
    /// If a chunk or the trailers are malformed or too large.
    pub(super) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Decoded, Error> {
        loop {
            if self.is_done() {
                return Ok(Decoded::End);
            }
            if bytes.is_empty() {
                return Ok(Decoded::NeedMore);
            }
            match &mut self.state {
                State::Length(remaining) | State::Chunk(remaining) => {
                    let length = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
                    *remaining -= length as u64;
                    if *remaining == 0 {
                        self.state = if matches!(self.state, State::Length(_)) { State::Done } else { State::ChunkEnd };
                    }
                    return Ok(Decoded::Data(bytes.split_to(length).freeze()));
                }
                State::UntilClose => return Ok(Decoded::Data(bytes.split().freeze())),
                State::ChunkSize => {
                    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(MAX_LINE_BYTES)]) else {
                        return match bytes[0].is_ascii_hexdigit() {
                            true if bytes.len() < MAX_LINE_BYTES => Ok(Decoded::NeedMore),
                            true => Err(Error::Invalid("a chunk size line is too long")),
                            false => Err(MISSING_SIZE),
                        };
                    };
                    let ChunkLine { size, extensions, .. } = ChunkLine::parse(&bytes[..=end]).ok_or(MISSING_SIZE)?;
                    self.extension_bytes += extensions;
                    if self.extension_bytes > MAX_EXTENSION_BYTES {
                        return Err(Error::Invalid("the chunk extensions are too long"));
                    }
                    bytes.advance(end + 1);
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::ChunkEnd if bytes.starts_with(b"\r\n") => {
                    bytes.advance(2);
                    self.state = State::ChunkSize;
                }
                State::ChunkEnd if **bytes == *b"\r" => return Ok(Decoded::NeedMore),
                State::ChunkEnd => return Err(Error::Invalid("a chunk is longer than its size")),
                State::Trailers => {
                    let Some(end) = trailers_end(bytes)? else { return Ok(Decoded::NeedMore) };
                    bytes.advance(end);
                    self.state = State::Done;
                }
                State::Done => {}
            }
        }
    }
}

const MISSING_SIZE: Error = Error::Invalid("a chunk has no valid size");

/// The end of the trailers at the start of `bytes`, which are dropped. `None` if it has not arrived.
fn trailers_end(bytes: &[u8]) -> Result<Option<usize>, Error> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(bytes, &mut fields).map_err(Error::Parse)? {
        Status::Complete((end, _)) if end < MAX_TRAILER_BYTES => {
            // As in chunk size lines, a line must end with CRLF.
            let mut line_feeds = memchr::memchr_iter(b'\n', &bytes[..end]);
            let have_crlf = line_feeds.all(|at| at > 0 && bytes[at - 1] == b'\r');
            if have_crlf { Ok(Some(end)) } else { Err(Error::Invalid("a trailer line does not end with CRLF")) }
        }
        Status::Partial if bytes.len() < MAX_TRAILER_BYTES => Ok(None),
        _ => Err(Error::Invalid("the trailers are too long")),
    }
}
