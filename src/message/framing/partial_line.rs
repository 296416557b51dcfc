//! The state of an incomplete line of a head. Its size does not depend on the length of the line, because hyper already buffers all
//! bytes of the head.

/// The maximum length of a line with `Content-Length` or `Transfer-Encoding`. Longer ones are faults, so that only this much of an
/// incomplete line has to be kept, in addition to hyper's copy.
pub(super) const MAX_BODY_FIELD: usize = 256;

/// The length of the relevant end of a request line: a space, the version and the line end.
const TAIL: usize = b" HTTP/1.1\r\n".len();

/// The length of a space and a version.
const VERSION: usize = b" HTTP/1.1".len();

/// The start of a line, reduced to what is needed when its end arrives.
#[derive(Debug)]
pub(super) struct PartialLine {
    is_request_line: bool,
    bytes: usize,
    /// The first bytes of a field line.
    start: Vec<u8>,
    /// The number of bytes after the first space.
    after_space: Option<usize>,
    /// They include a `#`.
    has_fragment: bool,
    /// The last bytes, in order.
    tail: [u8; TAIL],
}

impl PartialLine {
    /// An empty line.
    pub(super) fn new(is_request_line: bool) -> Self {
        let (start, after_space) = (Vec::new(), None);
        Self { is_request_line, bytes: 0, start, after_space, has_fragment: false, tail: [0; TAIL] }
    }

    /// Adds the next part of the line.
    pub(super) fn extend(&mut self, part: &[u8]) {
        self.bytes += part.len();
        if self.is_request_line {
            self.extend_target(part);
        } else {
            let remaining = MAX_BODY_FIELD.saturating_sub(self.start.len());
            self.start.extend_from_slice(&part[..part.len().min(remaining)]);
        }
        let new = &part[part.len().saturating_sub(TAIL)..];
        self.tail.rotate_left(new.len());
        self.tail[TAIL - new.len()..].copy_from_slice(new);
    }

    fn extend_target(&mut self, part: &[u8]) {
        let target = match (&mut self.after_space, part.iter().position(|byte| *byte == b' ')) {
            (Some(_), _) => part,
            (None, Some(space)) => &part[space + 1..],
            (None, None) => return,
        };
        *self.after_space.get_or_insert(0) += target.len();
        self.has_fragment |= target.contains(&b'#');
    }

    /// The number of bytes, including the line end.
    pub(super) fn raw_len(&self) -> usize {
        self.bytes
    }

    /// The number of bytes without the line end.
    pub(super) fn len(&self) -> usize {
        self.bytes - self.end_len()
    }

    fn end_len(&self) -> usize {
        match self.tail {
            [.., b'\r', b'\n'] => 2,
            [.., b'\n'] => 1,
            _ => 0,
        }
    }

    /// The last bytes before the line end, padded with zeros at the front.
    fn content_tail(&self) -> &[u8] {
        &self.tail[..TAIL - self.end_len()]
    }

    /// The first bytes of a field line without its line end: all, or [`MAX_BODY_FIELD`] of them.
    pub(super) fn start(&self) -> &[u8] {
        &self.start[..self.start.len().min(self.len())]
    }

    /// Whether a request line ends with `HTTP/1.0`.
    pub(super) fn is_http_10(&self) -> bool {
        self.content_tail().ends_with(b"HTTP/1.0")
    }

    /// The length of the target of a request line.
    pub(super) fn target_len(&self) -> usize {
        let length = self.after_space.unwrap_or(0).saturating_sub(self.end_len());
        let tail = self.content_tail();
        let has_version = length >= VERSION && (tail.ends_with(b" HTTP/1.1") || tail.ends_with(b" HTTP/1.0"));
        if has_version { length - VERSION } else { length }
    }

    /// Whether the target of a request line has a fragment.
    pub(super) fn has_fragment(&self) -> bool {
        self.has_fragment
    }
}
