//! Whether hyper can read a head that has arrived in full, and where it is wrong if not.
//!
//! hyper responds by itself to what it cannot read: with no more than a status, and no layer of the proxy sees it. So it gets only heads
//! that it reads ([`check`]), and a head of ours in place of any other one ([`substitute`]), for which the service responds.

use std::mem::MaybeUninit;

use http::{HeaderValue, Method, Uri};
use httparse::{Error, Request, Status};
use memchr::{memchr, memchr3};

use super::FramingFault;

/// The number of header fields up to which nothing is allocated; the limit that hyper has at the least.
pub const MIN_FIELD_LIMIT: usize = 100;

/// The most bytes of a target that `http` and hyper read.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The most bytes of a field name that they read. A head that is no longer has no target or name that is too long.
pub(super) const MAX_NAME: usize = u16::MAX as usize;

/// The most bytes of a request's own id that a substitute takes over.
const MAX_REQUEST_ID: usize = 256;

/// A part of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadPart {
    /// The method.
    Method,
    /// The request target.
    Target,
    /// The name in the header field with this number, which begins at 1.
    FieldName(usize),
    /// The value in the header field with this number.
    FieldValue(usize),
}

/// Checks that hyper reads `head`, which ends with its empty line, when it may have `max_fields` fields, or [`MIN_FIELD_LIMIT`] where
/// those are more.
///
/// # Errors
///
/// What is wrong with it.
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

/// Checks that `http` reads `target`, in which there are neither spaces nor control characters.
fn check_target(target: &str) -> Result<(), FramingFault> {
    let bytes = target.as_bytes();
    if bytes.len() > MAX_TARGET {
        return Err(FramingFault::TargetTooLong);
    }
    if bytes.first() != Some(&b'/') {
        return Uri::try_from(target).map(drop).map_err(|_| FramingFault::Target);
    }
    // hyper drops a fragment, whatever it is.
    let bytes = &bytes[..memchr(b'#', bytes).unwrap_or(bytes.len())];
    let (path, query) = bytes.split_at(memchr(b'?', bytes).unwrap_or(bytes.len()));
    // What `http` reads neither in a path nor in a query. RFC 3986 allows less.
    let in_query = || memchr3(b'<', b'>', b'"', query).map(|offset| path.len() + offset);
    let invalid = memchr3(b'<', b'>', b'`', path).or_else(in_query);
    invalid.map_or(Ok(()), |offset| Err(invalid_byte(HeadPart::Target, bytes, offset)))
}

fn invalid_byte(part: HeadPart, bytes: &[u8], offset: usize) -> FramingFault {
    FramingFault::InvalidByte { part, byte: bytes[offset], offset }
}

/// What is wrong with `head`, which httparse does not read.
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

/// Whether a method or a field name may have `byte` (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A head that hyper reads, in place of `head`: with its method, so that a response to HEAD has no body, and its `X-Request-Id`. A line
/// that has no end yet may be half of one, and is left out.
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

/// The value of `X-Request-Id` in `line`, if it is that field and hyper can read it.
fn request_id(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (name, value) = line.split_at_checked(b"x-request-id:".len())?;
    let value = value.trim_ascii();
    let is_id = name.eq_ignore_ascii_case(b"x-request-id:") && value.len() <= MAX_REQUEST_ID;
    (is_id && HeaderValue::from_bytes(value).is_ok()).then_some(value)
}

#[cfg(test)]
mod tests;
