//! Reads the head of a request line by line, for the framing of its body and for faults.

use super::{
    FramingFault, HeadLimits,
    partial_line::{MAX_BODY_FIELD, PartialLine},
    plain_line::{is_plain_field, plain_target_len},
    syntax::MIN_FIELD_LIMIT,
};

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

/// The largest `Content-Length` that hyper reads: it reserves the two larger values.
const MAX_LENGTH: u64 = u64::MAX - 2;

/// The part of a head that was read so far.
#[derive(Debug, Default)]
pub(super) struct RequestHead {
    /// The request line was read.
    started: bool,
    /// The start of an incomplete line.
    partial: Option<Box<PartialLine>>,
    is_http_10: bool,
    fields: usize,
    bytes: usize,
    length: Option<u64>,
    coding: Option<TransferCoding>,
    fault: Option<FramingFault>,
    /// See [`has_readable_framing`](RequestHead::has_readable_framing).
    is_unreadable: bool,
    /// A line was not [plain](super::plain_line), or arrived in parts.
    is_unusual: bool,
}

/// The position in a head after a part of it was consumed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadProgress {
    /// Before its first line.
    Between,
    /// After its first byte and before its end.
    Within,
    /// At its end.
    End,
}

/// The framing of a request's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    Length(u64),
    Chunked,
}

/// The value of `Transfer-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferCoding {
    Chunked,
    /// Known codings and then `chunked`.
    ChunkedLast,
    Invalid,
}

impl RequestHead {
    /// Whether nothing was read yet.
    pub(super) fn is_empty(&self) -> bool {
        !self.started && self.partial.is_none()
    }

    /// Consumes the next line, or a part of it, including its line end if that has arrived. A line longer than `max_line_bytes` is a fault.
    pub(super) fn consume(&mut self, part: &[u8], max_line_bytes: usize, limits: &HeadLimits) -> HeadProgress {
        let is_end = part.ends_with(b"\n");
        if is_end && self.partial.is_none() && part.len() <= max_line_bytes {
            return self.add_line(part, limits);
        }
        let is_request_line = !self.started;
        let partial = self.partial.get_or_insert_with(|| Box::new(PartialLine::new(is_request_line)));
        partial.extend(part);
        if !is_end {
            return HeadProgress::Within;
        }
        let partial = self.partial.take().expect("`partial` was inserted above");
        self.add_partial_line(&partial, max_line_bytes, limits)
    }

    /// Adds a complete `line`, including its line end.
    fn add_line(&mut self, line: &[u8], limits: &HeadLimits) -> HeadProgress {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (line, has_crlf) = line.strip_suffix(b"\r").map_or((line, false), |line| (line, true));
        if self.started {
            self.is_unusual |= !has_crlf || !line.is_empty() && !is_plain_field(line);
        } else if has_crlf && let Some(target_len) = plain_target_len(line) {
            self.add_request_line(false, target_len, false, limits);
            return HeadProgress::Within;
        } else {
            self.is_unusual = !line.is_empty();
        }
        match (self.started, line.is_empty()) {
            // Empty lines before a request are ignored (RFC 9112, 2.2).
            (false, true) => return HeadProgress::Between,
            (true, true) => return HeadProgress::End,
            (false, false) => {
                let target = line.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
                let target = target.strip_suffix(b" HTTP/1.1").or(target.strip_suffix(b" HTTP/1.0")).unwrap_or(target);
                self.add_request_line(line.ends_with(b"HTTP/1.0"), target.len(), target.contains(&b'#'), limits);
            }
            (true, false) => self.add_field(line, line.len(), limits),
        }
        HeadProgress::Within
    }

    /// Adds a line that arrived in parts, with the same result as [`add_line`](Self::add_line) for the whole line.
    fn add_partial_line(&mut self, line: &PartialLine, max_line_bytes: usize, limits: &HeadLimits) -> HeadProgress {
        self.is_unusual = true;
        match (self.started, line.len()) {
            (false, 0) => return HeadProgress::Between,
            (true, 0) => return HeadProgress::End,
            _ if line.raw_len() > max_line_bytes => {
                let fault = if self.started { FramingFault::HeadersTooLarge } else { FramingFault::TargetTooLong };
                self.fault.get_or_insert(fault);
                // The framing fields of such a line were not read.
                self.is_unreadable = true;
                self.started = true;
            }
            (false, _) => self.add_request_line(line.is_http_10(), line.target_len(), line.has_fragment(), limits),
            (true, length) => self.add_field(line.start(), length, limits),
        }
        HeadProgress::Within
    }

    /// The framing of the body, once the head is complete.
    ///
    /// # Errors
    ///
    /// The first fault of the head.
    pub(super) fn body_framing(&self) -> Result<BodyFraming, FramingFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match (self.coding, self.length) {
            (Some(_), Some(_)) => Err(FramingFault::LengthAndCoding),
            (Some(_), None) if self.is_http_10 => Err(FramingFault::Coding),
            (Some(TransferCoding::Chunked), None) => Ok(BodyFraming::Chunked),
            (Some(TransferCoding::ChunkedLast), None) => Err(FramingFault::UnsupportedCoding),
            (Some(TransferCoding::Invalid), None) => Err(FramingFault::Coding),
            (None, length) => Ok(BodyFraming::Length(length.unwrap_or(0))),
        }
    }

    /// Whether hyper can read `Content-Length` and `Transfer-Encoding`, regardless of other faults.
    pub(super) fn has_readable_framing(&self) -> bool {
        let has_coding_error = match self.coding {
            None => false,
            Some(TransferCoding::Invalid) => true,
            Some(_) => self.is_http_10,
        };
        !self.is_unreadable && !has_coding_error
    }

    /// Whether each line is known to be readable by hyper.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_unusual && self.fields <= MIN_FIELD_LIMIT
    }

    fn add_request_line(&mut self, is_http_10: bool, target_len: usize, has_fragment: bool, limits: &HeadLimits) {
        self.started = true;
        self.is_http_10 = is_http_10;
        if target_len > limits.target_bytes {
            self.fault.get_or_insert(FramingFault::TargetTooLong);
        } else if has_fragment {
            self.fault.get_or_insert(FramingFault::Fragment);
        }
    }

    /// Adds a field line of `length` bytes. `line` holds all of it, or at least its first [`MAX_BODY_FIELD`] bytes.
    fn add_field(&mut self, line: &[u8], length: usize, limits: &HeadLimits) {
        self.fields += 1;
        self.bytes += length + 2;
        if self.fields > limits.headers || self.bytes > limits.header_bytes {
            self.fault.get_or_insert(FramingFault::HeadersTooLarge);
        }
        let is_too_long = length > MAX_BODY_FIELD;
        let line = &line[..line.len().min(MAX_BODY_FIELD)];
        // The first letter rules out both names for nearly every field.
        match line[0] {
            b'c' | b'C' if is_too_long && may_be_named(line, CONTENT_LENGTH) => self.set_length(b""),
            b'c' | b'C' => {
                if let Some(value) = field_value(line, CONTENT_LENGTH) {
                    self.set_length(value);
                }
            }
            b't' | b'T' if is_too_long && may_be_named(line, TRANSFER_ENCODING) => {
                self.coding = Some(TransferCoding::Invalid);
            }
            b't' | b'T' => {
                if let Some(value) = field_value(line, TRANSFER_ENCODING) {
                    // Two fields form one list of several codings (RFC 9110, 5.3), and only a single `chunked` is supported.
                    self.coding =
                        Some(if self.coding.is_none() { parse_coding(value) } else { TransferCoding::Invalid });
                }
            }
            _ => {}
        }
    }

    fn set_length(&mut self, value: &[u8]) {
        let is_plain_number =
            !value.is_empty() && value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value[0] != b'0');
        let length = str::from_utf8(value).ok().filter(|_| is_plain_number).and_then(|text| text.parse().ok());
        let length = length.filter(|length| *length <= MAX_LENGTH);
        // A second field is a fault even with the same value: no legitimate client sends one.
        if length.is_none() || self.length.is_some() {
            self.fault.get_or_insert(FramingFault::Length);
            self.is_unreadable = true;
        }
        self.length = length.or(Some(0));
    }
}

/// The value in `line`, without surrounding white space, if its field is called `name`. hyper rejects white space after a name. It is
/// ignored here, so that a more lenient parser cannot see a framing field that was missed here.
fn field_value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    trim(rest).strip_prefix(b":").map(trim)
}

/// Whether a line that begins with `start` may have a field called `name`.
fn may_be_named(start: &[u8], name: &[u8]) -> bool {
    let Some((begin, rest)) = start.split_at_checked(name.len()) else { return false };
    begin.eq_ignore_ascii_case(name) && matches!(trim(rest), [] | [b':', ..])
}

/// `bytes` without surrounding optional white space (RFC 9110, 5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn parse_coding(value: &[u8]) -> TransferCoding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return TransferCoding::Chunked;
    }
    let mut codings: Vec<&[u8]> = value.split(|byte| *byte == b',').map(trim).collect();
    let last = codings.pop().unwrap_or_default();
    let is_known = |coding: &&[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"].iter().any(|k| coding.eq_ignore_ascii_case(k))
    };
    if last.eq_ignore_ascii_case(b"chunked") && codings.iter().all(is_known) {
        TransferCoding::ChunkedLast
    } else {
        TransferCoding::Invalid
    }
}
