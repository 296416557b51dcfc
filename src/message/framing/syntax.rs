//! Checks whether hyper can read a complete head, and locates the fault if not.
//!
//! hyper itself responds to a head that it cannot read: with only a status, and without calling any layer of the proxy. Therefore it gets
//! only heads that it reads ([`check`]). Any other head is replaced ([`substitute`]), so that the service responds.

use std::mem::MaybeUninit;

use http::{HeaderValue, Method, Uri};
use httparse::{Error, Request, Status};
use memchr::{memchr, memchr3};

use super::FramingFault;

/// The minimum of hyper's limit for header fields. Up to this number, [`check`] allocates nothing.
pub const MIN_FIELD_LIMIT: usize = 100;

/// The maximum length of a target that `http` and hyper read, in bytes.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The maximum length of a field name that they read, in bytes. In a head up to this size, no target or name is too long.
pub(super) const MAX_NAME: usize = u16::MAX as usize;

/// The maximum length of an `X-Request-Id` that a substitute keeps, in bytes.
const MAX_REQUEST_ID: usize = 256;

/// A part of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadPart {
    /// The method.
    Method,
    /// The request target.
    Target,
    /// The name in the header field with this number, counted from 1.
    FieldName(usize),
    /// The value in the header field with this number.
    FieldValue(usize),
}

/// Checks that hyper reads `head`, which must end with its empty line. The maximum number of header fields is `max_fields`, or
/// [`MIN_FIELD_LIMIT`] if that is larger.
///
/// # Errors
///
/// The first fault.
pub fn check(head: &[u8], max_fields: usize) -> Result<(), FramingFault> {
    let mut request = Request::new(&mut []);
    let (mut fields, mut more_fields);
    let fields: &mut [MaybeUninit<_>] = if max_fields <= MIN_FIELD_LIMIT {
        fields = [const { MaybeUninit::uninit() }; MIN_FIELD_LIMIT];
        &mut fields
    } else {
        more_fields = vec![MaybeUninit::uninit(); max_fields];
        &mut more_fields
    };
    match request.parse_with_uninit_headers(head, fields) {
        Ok(Status::Complete(_)) => {}
        Err(Error::TooManyHeaders) => return Err(FramingFault::HeadersTooLarge),
        Ok(Status::Partial) | Err(_) => return Err(locate(head)),
    }
    if head.len() > MAX_NAME && request.headers.iter().any(|field| field.name.len() > MAX_NAME) {
        return Err(FramingFault::HeadersTooLarge);
    }
    check_target(request.path.unwrap_or_default())
}

/// Checks that `http` reads `target`, which contains no spaces or control characters.
fn check_target(target: &str) -> Result<(), FramingFault> {
    let bytes = target.as_bytes();
    if bytes.len() > MAX_TARGET {
        return Err(FramingFault::TargetTooLong);
    }
    if bytes.first() != Some(&b'/') {
        return Uri::try_from(target).map(drop).map_err(|_| FramingFault::Target);
    }
    // hyper drops a fragment unread.
    let bytes = &bytes[..memchr(b'#', bytes).unwrap_or(bytes.len())];
    let (path, query) = bytes.split_at(memchr(b'?', bytes).unwrap_or(bytes.len()));
    // The bytes that `http` rejects in a path or in a query. RFC 3986 is stricter.
    let in_query = || memchr3(b'<', b'>', b'"', query).map(|offset| path.len() + offset);
    let invalid = memchr3(b'<', b'>', b'`', path).or_else(in_query);
    invalid.map_or(Ok(()), |offset| Err(invalid_byte(HeadPart::Target, bytes, offset)))
}

fn invalid_byte(part: HeadPart, bytes: &[u8], offset: usize) -> FramingFault {
    FramingFault::InvalidByte { part, byte: bytes[offset], offset }
}

/// The fault in `head`, which httparse has rejected.
fn locate(head: &[u8]) -> FramingFault {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    let fault = locate_in_request_line(request_line);
    fault
        .or_else(|| lines.enumerate().find_map(|(index, line)| locate_in_field(index + 1, line)))
        .unwrap_or(FramingFault::RequestLine)
}

fn locate_in_request_line(line: &[u8]) -> Option<FramingFault> {
    let Some(space) = line.iter().position(|byte| *byte == b' ') else {
        let fault = line.iter().position(|byte| !is_token(*byte));
        return Some(fault.map_or(FramingFault::RequestLine, |offset| invalid_byte(HeadPart::Method, line, offset)));
    };
    let (method, rest) = (&line[..space], &line[space + 1..]);
    if let Some(offset) = method.iter().position(|byte| !is_token(*byte)) {
        return Some(invalid_byte(HeadPart::Method, method, offset));
    }
    let Some(target) = rest.strip_suffix(b" HTTP/1.1").or_else(|| rest.strip_suffix(b" HTTP/1.0")) else {
        let version = rest.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        return Some(if version.starts_with(b"HTTP/") { FramingFault::Version } else { FramingFault::RequestLine });
    };
    if method.is_empty() || target.is_empty() {
        return Some(FramingFault::RequestLine);
    }
    let control = target.iter().position(|byte| *byte <= b' ' || *byte == 0x7f);
    let offset = control.or_else(|| str::from_utf8(target).err().map(|error| error.valid_up_to()))?;
    Some(invalid_byte(HeadPart::Target, target, offset))
}

fn locate_in_field(number: usize, line: &[u8]) -> Option<FramingFault> {
    if line.is_empty() {
        return None;
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let name = &line[..colon.unwrap_or(line.len())];
    if let Some(offset) = name.iter().position(|byte| !is_token(*byte)) {
        return Some(invalid_byte(HeadPart::FieldName(number), line, offset));
    }
    let Some(colon) = colon.filter(|colon| *colon > 0) else { return Some(FramingFault::FieldLine(number)) };
    let is_invalid = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    let offset = colon + 1 + line[colon + 1..].iter().position(is_invalid)?;
    Some(invalid_byte(HeadPart::FieldValue(number), line, offset))
}

/// Whether `byte` is legal in a method or a field name (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A head that hyper reads, as a replacement for `head`. It keeps the method, so that a response to HEAD has no body, and `X-Request-Id`.
/// An incomplete line is ignored.
pub fn substitute(head: &[u8]) -> Vec<u8> {
    let mut words = head.split(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let method = words.next().and_then(|word| Method::from_bytes(word).ok());
    let mut substitute = method.as_ref().map_or("_OTHER", Method::as_str).as_bytes().to_vec();
    substitute.extend_from_slice(b" / HTTP/1.1\r\n");
    if let Some(id) = head.split_inclusive(|byte| *byte == b'\n').find_map(request_id) {
        substitute.extend_from_slice(b"x-request-id: ");
        substitute.extend_from_slice(id);
        substitute.extend_from_slice(b"\r\n");
    }
    substitute.extend_from_slice(b"\r\n");
    substitute
}

/// The value in `line` if it is a complete `X-Request-Id` field that hyper reads.
fn request_id(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (name, value) = line.split_at_checked(b"x-request-id:".len())?;
    let value = value.trim_ascii();
    let is_id = name.eq_ignore_ascii_case(b"x-request-id:") && value.len() <= MAX_REQUEST_ID;
    (is_id && HeaderValue::from_bytes(value).is_ok()).then_some(value)
}

#[cfg(test)]
mod tests;
