//! Parses an input as a message: a first line, header lines, an empty line and a body.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The parts of an input. Invalid header lines are dropped, because no HTTP parser would let them through.
pub(crate) struct Message<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) headers: HeaderMap,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    pub(crate) fn read(input: &'a [u8]) -> Self {
        let (first, mut rest) = line(input);
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let (field, after) = line(rest);
            rest = after;
            if field.is_empty() {
                break;
            }
            if let Some((name, value)) = header(field) {
                // It fails above the map's limit, which no parser reaches.
                let _ = headers.try_append(name, value);
            }
        }
        Self { first, headers, body: rest }
    }
}

/// The first line, without its line end, and the rest.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let line = &bytes[..end];
    (line.strip_suffix(b"\r").unwrap_or(line), bytes.get(end + 1..).unwrap_or_default())
}

fn header(field: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = field.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&field[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(field[colon + 1..].trim_ascii()).ok()?))
}
