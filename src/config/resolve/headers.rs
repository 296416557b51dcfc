//! `[headers]`: which client headers are forwarded.

use http::HeaderName;

use super::super::reader::Reader;
use crate::proxy::headers::check_forward;

/// The headers to forward although their family is stripped. None of them may be in `injected`, the headers that the proxy adds.
pub(super) fn forward(read: &mut Reader<'_>, injected: &[HeaderName]) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for (number, text) in (1..).zip(read.list("headers.forward")) {
        let Ok(name) = text.parse::<HeaderName>() else {
            let expected = "must be the full name of a header field, such as \"traceparent\"";
            read.problem("headers.forward", format!("name {number} {expected}"));
            continue;
        };
        match check_forward(&name, injected) {
            Ok(()) => names.push(name),
            Err(error) => read.problem("headers.forward", format!("name {number} {error}")),
        }
    }
    names
}
