//! What the head of a request says about itself, line by line.

use super::{
    Fault, HeadLimits,
    partial_line::{MAX_BODY_FIELD, PartialLine},
};

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

/// What has been seen of a head.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The request line was seen.
    started: bool,
    /// The start of a line whose end has not arrived.
    partial: Option<Box<PartialLine>>,
    is_http_10: bool,
    fields: usize,
    bytes: usize,
    length: Option<u64>,
    coding: Option<Coding>,
    fault: Option<Fault>,
}

/// Where a head is after a part of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Before its first line.
    Between,
    /// Between its first byte and its last.
    Within,
    /// At its end.
    End,
}

/// How a request's body is framed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

/// What `Transfer-Encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Known codings and then `chunked`.
    OthersAndChunked,
    Unclear,
}

impl Head {
    /// Whether nothing of it was seen yet.
    pub(super) fn is_empty(&self) -> bool {
        !self.started && self.partial.is_none()
    }

    /// Takes what comes next, a line or a part of one, of which the end is included if it is there. A line with more than `longest`
    /// bytes is refused.
    pub(super) fn part(&mut self, part: &[u8], longest: usize, limits: &HeadLimits) -> Part {
        let is_end = part.ends_with(b"\n");
        if is_end && self.partial.is_none() && part.len() <= longest {
            return self.line(part, limits);
        }
        let keep = !self.started;
        let partial = self.partial.get_or_insert_with(|| Box::new(PartialLine::new(keep)));
        partial.extend(part);
        if !is_end {
            return Part::Within;
        }
        let partial = self.partial.take().expect("it was there just now");
        self.partial_line(&partial, longest, limits)
    }

    /// Takes a `line` with its end.
    fn line(&mut self, line: &[u8], limits: &HeadLimits) -> Part {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (self.started, line.is_empty()) {
            // Empty lines before a request are to be ignored (RFC 9112, 2.2).
            (false, true) => return Part::Between,
            (true, true) => return Part::End,
            (false, false) => {
                let target = line.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
                let target = target.strip_suffix(b" HTTP/1.1").or(target.strip_suffix(b" HTTP/1.0")).unwrap_or(target);
                self.request_line(line.ends_with(b"HTTP/1.0"), target.len(), target.contains(&b'#'), limits);
            }
            (true, false) => self.field(line, line.len(), limits),
        }
        Part::Within
    }

    /// Takes a line that arrived in parts, as [`line`](Self::line) would have taken all of it.
    fn partial_line(&mut self, line: &PartialLine, longest: usize, limits: &HeadLimits) -> Part {
        match (self.started, line.len()) {
            (false, 0) => return Part::Between,
            (true, 0) => return Part::End,
            _ if line.raw_len() > longest => {
                let fault = if self.started { Fault::HeadersTooLarge } else { Fault::TargetTooLong };
                self.fault.get_or_insert(fault);
                self.started = true;
            }
            (false, _) => self.request_line(line.is_http_10(), line.target_len(), line.has_fragment(), limits),
            (true, length) => self.field(line.start(), length, limits),
        }
        Part::Within
    }

    /// How the body is framed, once the head has ended.
    ///
    /// # Errors
    ///
    /// What was wrong with the head.
    pub(super) fn body(&self) -> Result<Body, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match (self.coding, self.length) {
            (Some(_), Some(_)) => Err(Fault::LengthAndCoding),
            (Some(_), None) if self.is_http_10 => Err(Fault::Coding),
            (Some(Coding::Chunked), None) => Ok(Body::Chunked),
            (Some(Coding::OthersAndChunked), None) => Err(Fault::UnsupportedCoding),
            (Some(Coding::Unclear), None) => Err(Fault::Coding),
            (None, length) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }

    fn request_line(&mut self, is_http_10: bool, target_len: usize, has_fragment: bool, limits: &HeadLimits) {
        self.started = true;
        self.is_http_10 = is_http_10;
        if target_len > limits.target_bytes {
            self.fault.get_or_insert(Fault::TargetTooLong);
        } else if has_fragment {
            self.fault.get_or_insert(Fault::Fragment);
        }
    }

    /// Takes a field line of `length` bytes that begins with `line`: all of it, or at least its first [`MAX_BODY_FIELD`] bytes.
    fn field(&mut self, line: &[u8], length: usize, limits: &HeadLimits) {
        self.fields += 1;
        self.bytes += length + 2;
        if self.fields > limits.headers || self.bytes > limits.header_bytes {
            self.fault.get_or_insert(Fault::HeadersTooLarge);
        }
        let is_too_long = length > MAX_BODY_FIELD;
        let line = &line[..line.len().min(MAX_BODY_FIELD)];
        // Both names are decided by their first letter, nearly always in the negative.
        match line[0] {
            b'c' | b'C' if is_too_long && may_be(line, CONTENT_LENGTH) => self.length(b""),
            b'c' | b'C' => {
                if let Some(value) = value_of(line, CONTENT_LENGTH) {
                    self.length(value);
                }
            }
            b't' | b'T' if is_too_long && may_be(line, TRANSFER_ENCODING) => self.coding = Some(Coding::Unclear),
            b't' | b'T' => {
                if let Some(value) = value_of(line, TRANSFER_ENCODING) {
                    // Two fields are a list (RFC 9110, 5.3), of which the second item is one too many at least.
                    self.coding = Some(if self.coding.is_none() { coding(value) } else { Coding::Unclear });
                }
            }
            _ => {}
        }
    }

    fn length(&mut self, value: &[u8]) {
        let plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value[0] != b'0');
        let length = str::from_utf8(value).ok().filter(|_| plain).and_then(|text| text.parse().ok());
        // A second one is refused even if it is the same: nobody who means well sends it.
        if length.is_none() || self.length.is_some() {
            self.fault.get_or_insert(Fault::Length);
        }
        self.length = length.or(Some(0));
    }
}

/// The value in `line` if its field is called `name`, without the white space around it. hyper refuses white space in or after
/// a name; here it counts as the same name, so that no reader who forgives it sees a field that was not seen here.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    trim(rest).strip_prefix(b":").map(trim)
}

/// Whether a line that begins with `start` may have a field called `name`.
fn may_be(start: &[u8], name: &[u8]) -> bool {
    let Some((begins, rest)) = start.split_at_checked(name.len()) else { return false };
    begins.eq_ignore_ascii_case(name) && matches!(trim(rest), [] | [b':', ..])
}

/// Without the optional white space around it (RFC 9110, 5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut codings: Vec<&[u8]> = value.split(|byte| *byte == b',').map(trim).collect();
    let last = codings.pop().unwrap_or_default();
    let known = |coding: &&[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"].iter().any(|k| coding.eq_ignore_ascii_case(k))
    };
    if last.eq_ignore_ascii_case(b"chunked") && codings.iter().all(known) {
        Coding::OthersAndChunked
    } else {
        Coding::Unclear
    }
}
