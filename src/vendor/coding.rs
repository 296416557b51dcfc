//! Decodes the content codings of the vendor's responses (RFC 9110, 8.4), within a size limit.
//!
//! A response may hold a token, so inflated data exists only in memory that is overwritten on drop. The inflater keeps no window of its
//! own, because it gets all input and the complete output buffer in one call.
//!
//! Deliberately absent: brotli and zstd. The vendor is not known to send either, and each decoder adds attack surface.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status, bufread::GzDecoder};
use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

/// The maximum number of nested codings of one body. Servers and gateways apply one, or two by mistake.
const MAX_CODINGS: usize = 4;

/// The maximum number of consecutive gzip members (RFC 1952, 2.2). Encoders write one, or a few when they append.
const MAX_MEMBERS: usize = 16;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The size of a gzip member's trailer: the checksum and the length of the plain data.
const GZIP_TRAILER: usize = 8;

/// A body without its content codings, or the part of it that could be inflated.
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

    /// The bytes. If the compressed data is truncated or corrupt: those before the defect.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::AsSent(bytes) => bytes,
            Bytes::Inflated(bytes) => bytes,
        }
    }

    /// Whether the compressed data was well-formed and its checksum, as far as present, matched. Truncated data can be intact.
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    /// The same body with one more coding removed.
    fn inflated(&self, coding: Coding, limit: usize) -> Result<Self, CodingError> {
        let inflated = coding.inflate(self.bytes(), limit)?;
        Ok(Self { bytes: Bytes::Inflated(inflated.bytes), intact: self.intact && inflated.intact })
    }
}

/// Shows only the size, because the bytes may hold a token.
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
    /// The header fields name an unsupported coding, or one that does not match the body.
    #[error("the content coding is not supported or does not match the body")]
    NotDecodable,
}

/// `body` without the content codings that `headers` name. Supports `identity`, `gzip`, `x-gzip` and `deflate` (zlib format or raw).
/// `limit` is the maximum size in bytes, before and after inflating.
///
/// # Errors
///
/// When the body is too large, a coding is not supported, or the body does not match its codings.
pub fn decode<'a>(headers: &HeaderMap, body: &'a [u8], limit: usize) -> Result<Decoded<'a>, CodingError> {
    if body.len() > limit {
        return Err(CodingError::TooLarge);
    }
    let codings = declared(headers)?;
    // Codings are listed in the order in which they were applied.
    codings.into_iter().rev().try_fold(Decoded::as_sent(body), |decoded, coding| decoded.inflated(coding, limit))
}

/// The first result of `read` for any interpretation of `body`. Tries the body without the codings that `headers` name, then the body as
/// sent, because some servers name codings that they have not applied. From each of them, it also removes gzip and zlib codings
/// recognised by their first bytes, because some gateways apply codings that they do not name. `Ok(None)` if all interpretations were
/// tried without a result.
///
/// # Errors
///
/// When `read` had no result, and an interpretation could not be tried.
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

/// A supported content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

/// The codings that `headers` name, except `identity`. All fields form one list. Names match case-insensitively, and empty elements are
/// ignored (RFC 9110, 5.6.1 and 8.4.1).
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

/// The coding that the first bytes of `bytes` indicate. No text begins like gzip, and no text from the vendor begins like zlib.
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
                // RFC 9110, 8.4.1.2, specifies the zlib format; some servers send raw deflate.
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

/// The plain data of all consecutive gzip members at the start of `body`. Other bytes after them, such as padding, are ignored.
fn gunzip(body: &[u8], limit: usize) -> Result<Inflated, CodingError> {
    let mut bytes = room(limit);
    let (mut intact, mut rest) = (true, body);
    for member in 0..MAX_MEMBERS {
        // Reads the header, and leaves the reader at the compressed data.
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

/// The plain data of a deflate stream, in zlib format or raw, and how it ended.
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

/// A buffer with capacity for all inflated data: growing would move it and leave a copy in memory. It has one byte more than the limit, to
/// detect that the limit is exceeded.
fn room(limit: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(limit + 1))
}

/// Appends the plain data of `data` to `bytes`, which comes from [`room`]. Returns how many bytes of `data` were used, and how it ended.
fn inflate_into(bytes: &mut Vec<u8>, data: &[u8], zlib: bool, limit: usize) -> Result<(usize, End), CodingError> {
    let mut inflater = Decompress::new(zlib);
    // `Finish` on the first call means that this is all input: the inflater writes directly to the output and buffers nothing.
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
