//! Undoing the content codings of the vendor's responses (RFC 9110, 8.4), within a limit.
//!
//! A response may hold a token, so whatever is inflated goes into memory that is overwritten when it is dropped, and nowhere
//! else: an inflater that is given all of its input and all of the room for its output at once keeps no window of its own.
//!
//! Deliberately absent: brotli and zstd. The vendor is not known to send either, and a decoder is a lot of code to expose.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status, bufread::GzDecoder};
use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

/// The most codings of one body that are undone, one inside another. Servers and gateways apply one, or by mistake two.
const MAX_CODINGS: usize = 4;

/// The most gzip members in a row that are read (RFC 1952, 2.2). Encoders write one, or a few when they append.
const MAX_MEMBERS: usize = 16;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What follows the compressed data of a gzip member: the checksum and the length of the plain data.
const GZIP_TRAILER: usize = 8;

/// A body without its content codings, or what could be inflated of it.
pub struct Decoded<'a> {
    bytes: Bytes<'a>,
    intact: bool,
}

enum Bytes<'a> {
    AsSent(&'a [u8]),
    Inflated(Zeroizing<Vec<u8>>),
}

impl<'a> Decoded<'a> {
    fn as_sent(bytes: &'a [u8]) -> Self {
        Self { bytes: Bytes::AsSent(bytes), intact: true }
    }

    /// The bytes. Of compressed data that ends early or is damaged, what comes before that.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::AsSent(bytes) => bytes,
            Bytes::Inflated(bytes) => bytes,
        }
    }

    /// Whether nothing contradicts the bytes: the compressed data was in its format, and had no checksum of other data. Data
    /// that ends early is intact as far as it goes.
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    /// The same without one more coding.
    fn inflated(&self, coding: Coding, limit: usize) -> Result<Self, CodingError> {
        let inflated = coding.inflate(self.bytes(), limit)?;
        Ok(Self { bytes: Bytes::Inflated(inflated.bytes), intact: self.intact && inflated.intact })
    }
}

/// The size only: the bytes may hold a token.
impl fmt::Debug for Decoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoded").field("bytes", &self.bytes().len()).field("intact", &self.intact).finish()
    }
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// It is larger than the limit, before or after inflating.
    #[error("the body is too large")]
    TooLarge,
    /// The header fields name a coding that is not known, or that the body is not in.
    #[error("the content coding cannot be undone")]
    NotDecodable,
}

/// `body` without the content codings that `headers` name, each of them `identity`, `gzip`, `x-gzip` or `deflate` (in the zlib
/// format or raw). `limit` is the largest size, before and after inflating.
///
/// # Errors
///
/// When the body is too large, in another coding, or not in the coding that is named.
pub fn decode<'a>(headers: &HeaderMap, body: &'a [u8], limit: usize) -> Result<Decoded<'a>, CodingError> {
    if body.len() > limit {
        return Err(CodingError::TooLarge);
    }
    let codings = declared(headers)?;
    // They are named in the order in which they were applied.
    codings.into_iter().rev().try_fold(Decoded::as_sent(body), |decoded, coding| decoded.inflated(coding, limit))
}

/// The first result of `read` for what `body` may stand for: the body without the codings that `headers` name; then as it was
/// sent, since servers name codings that they have not applied; each of them also without gzip and zlib that it visibly begins
/// with, since gateways apply codings that they do not name. `Ok(None)` when all of that was tried without a result.
///
/// # Errors
///
/// When `read` had no result, and something could not be tried.
pub fn find<T>(
    headers: &HeaderMap,
    body: &[u8],
    limit: usize,
    mut read: impl FnMut(&Decoded<'_>) -> Option<T>,
) -> Result<Option<T>, CodingError> {
    let decoded = decode(headers, body, limit);
    let mut obstacle = decoded.as_ref().err().copied();
    let is_as_sent = matches!(&decoded, Ok(Decoded { bytes: Bytes::AsSent(_), .. }));
    let as_sent = (!is_as_sent && body.len() <= limit).then(|| Decoded::as_sent(body));
    for mut reading in decoded.ok().into_iter().chain(as_sent) {
        for _ in 0..=MAX_CODINGS {
            if let Some(found) = read(&reading) {
                return Ok(Some(found));
            }
            let Some(coding) = visible(reading.bytes()) else { break };
            match reading.inflated(coding, limit) {
                Ok(inflated) => reading = inflated,
                Err(error) => {
                    obstacle = obstacle.filter(|known| *known == CodingError::TooLarge).or(Some(error));
                    break;
                }
            }
        }
    }
    obstacle.map_or(Ok(None), Err)
}

/// A content coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

/// The codings that `headers` name, but for `identity`. Fields are one list, however many there are; their names are compared
/// without case, and empty elements do not count (RFC 9110, 5.6.1 and 8.4.1).
fn declared(headers: &HeaderMap) -> Result<Vec<Coding>, CodingError> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let names = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut codings = Vec::new();
    for name in names {
        codings.push(match name.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Coding::Gzip,
            b"deflate" => Coding::Deflate,
            _ => return Err(CodingError::NotDecodable),
        });
    }
    if codings.len() > MAX_CODINGS { Err(CodingError::NotDecodable) } else { Ok(codings) }
}

/// The coding that `bytes` begin like. No text begins like gzip, and none of the vendor's begins like zlib.
fn visible(bytes: &[u8]) -> Option<Coding> {
    if bytes.starts_with(&GZIP_MAGIC) {
        return Some(Coding::Gzip);
    }
    is_zlib(bytes).then_some(Coding::Deflate)
}

/// Whether `bytes` begin with a header of RFC 1950, 2.2, for data without a preset dictionary.
fn is_zlib(bytes: &[u8]) -> bool {
    let [method, flags, ..] = bytes else { return false };
    let is_checked = u16::from_be_bytes([*method, *flags]) % 31 == 0;
    is_checked && method & 0x0f == 8 && method >> 4 <= 7 && flags & 0x20 == 0
}

struct Inflated {
    bytes: Zeroizing<Vec<u8>>,
    intact: bool,
}

impl Coding {
    fn inflate(self, body: &[u8], limit: usize) -> Result<Inflated, CodingError> {
        match self {
            Self::Gzip => gunzip(body, limit),
            Self::Deflate => {
                // RFC 9110, 8.4.1.2, means the zlib format; some servers leave its frame out.
                let framed = is_zlib(body).then(|| stream(body, true, limit)).transpose()?;
                match framed {
                    Some((bytes, End::Damaged)) => Ok(match stream(body, false, limit) {
                        Ok((raw, End::Whole)) => Inflated { bytes: raw, intact: true },
                        _ => Inflated { bytes, intact: false },
                    }),
                    Some((bytes, _)) => Ok(Inflated { bytes, intact: true }),
                    None => {
                        stream(body, false, limit).map(|(bytes, end)| Inflated { bytes, intact: end != End::Damaged })
                    }
                }
            }
        }
    }
}

/// The plain data of every gzip member in a row that `body` begins with. Other bytes after them, such as padding, do not count.
fn gunzip(body: &[u8], limit: usize) -> Result<Inflated, CodingError> {
    let mut bytes = room(limit);
    let (mut intact, mut rest) = (true, body);
    for member in 0..MAX_MEMBERS {
        // Reads the header, and leaves the reader at what follows it.
        let header = GzDecoder::new(rest);
        if header.header().is_none() {
            if member == 0 {
                return Err(CodingError::NotDecodable);
            }
            break;
        }
        let (start, data) = (bytes.len(), header.into_inner());
        let (used, end) = inflate_into(&mut bytes, data, false, limit)?;
        let End::Whole = end else {
            intact &= end == End::Early;
            break;
        };
        let trailer = &data[used..];
        let mut sum = Crc::new();
        sum.update(&bytes[start..]);
        let expected = [sum.sum().to_le_bytes(), sum.amount().to_le_bytes()].concat();
        intact &= trailer.iter().zip(&expected).all(|(found, expected)| found == expected);
        rest = trailer.get(GZIP_TRAILER..).unwrap_or_default();
    }
    Ok(Inflated { bytes, intact })
}

/// The plain data of a deflate stream, with the frame of zlib or raw, and how it ended.
fn stream(body: &[u8], zlib: bool, limit: usize) -> Result<(Zeroizing<Vec<u8>>, End), CodingError> {
    let mut bytes = room(limit);
    let (_, end) = inflate_into(&mut bytes, body, zlib, limit)?;
    Ok((bytes, end))
}

/// How compressed data ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Early,
    Damaged,
}

/// Room for all that may be inflated, so that it is never moved, which would leave a copy behind; and for one byte more, which shows
/// that there is more.
fn room(limit: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(limit + 1))
}

/// Appends the plain data of `data` to `bytes`, a vector with `room` for it; says how much of `data` was used, and how it ended.
fn inflate_into(bytes: &mut Vec<u8>, data: &[u8], zlib: bool, limit: usize) -> Result<(usize, End), CodingError> {
    let mut inflater = Decompress::new(zlib);
    // `Finish` at the first call says that this is all: the inflater writes to the output alone, and keeps nothing.
    let outcome = inflater.decompress_vec(data, bytes, FlushDecompress::Finish);
    if bytes.len() > limit {
        return Err(CodingError::TooLarge);
    }
    let end = match outcome {
        Ok(Status::StreamEnd) => End::Whole,
        Ok(Status::Ok | Status::BufError) => End::Early,
        Err(_) => End::Damaged,
    };
    Ok((usize::try_from(inflater.total_in()).unwrap_or(data.len()), end))
}

#[cfg(test)]
pub(crate) mod encoded;
#[cfg(test)]
mod tests;
