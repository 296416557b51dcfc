//! The syntax of header fields.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The members of the list in all fields called `name` (RFC 9110, 5.6.1), including empty ones.
pub fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}
