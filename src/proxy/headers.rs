//! Which header fields pass, in both directions: pure functions on header maps.
//!
//! Upwards, everything goes that belongs to the caller's connection, that could pass for one of our credentials, or that concerns the
//! caller and not the call (`header_families` beside this). Downwards, everything goes that belongs to the upstream's
//! connection or is named like what we inject. Names are compared with every separator read as `-`, since many servers take one for the
//! other.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tracing::{Level, debug, enabled};

use super::{
    error::{Error, X_FINICITY_PROXY_ERROR, X_FINICITY_PROXY_EXECUTED},
    exchange::Exchange,
    header_families::{self, HeaderFamily, KNOWN_NAMES, Match, find, normalized},
};
use crate::message::fields;

/// Fields that most requests have and that are in no family, known without a look at their names.
const COMMON: [HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::USER_AGENT,
];

/// The names that the configuration has a say in.
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    /// The header fields that are injected, as they are compared: nothing of these names passes either way.
    injected: Vec<String>,
    /// Names of families that are forwarded all the same.
    forwarded: Vec<HeaderName>,
}

impl HeaderRules {
    /// Keeps back what is named like `injected`, however it is spelt, and lets `forwarded` through, spelt as it is.
    pub fn new(injected: &[HeaderName], forwarded: &[HeaderName]) -> Self {
        let injected = injected.iter().map(|name| normalized(name.as_str()).into_owned()).collect();
        Self { injected, forwarded: forwarded.to_vec() }
    }

    fn is_injected(&self, name: &str) -> bool {
        self.injected.iter().any(|injected| injected == name)
    }
}

/// Why a name cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForwardable {
    /// The proxy adds a field of this name.
    #[error("is one that the proxy adds itself: what a caller sends under this name is never forwarded")]
    Injected,
    /// The field belongs to one connection or frames a message.
    #[error("belongs to the caller's connection or frames a message, so it cannot be forwarded")]
    Message,
    /// The field changes which call a server sees.
    #[error("can change the method or the target of a call, past the policy")]
    Override,
}

/// Checks that `name` is one that an operator may have forwarded, when fields named `injected` are added.
///
/// # Errors
///
/// Why it is none.
pub fn check_forward(name: &HeaderName, injected: &[HeaderName]) -> Result<(), NotForwardable> {
    let text = normalized(name.as_str());
    if HeaderRules::new(injected, &[]).is_injected(&text) {
        return Err(NotForwardable::Injected);
    }
    match find(&text).map(|found| found.family) {
        Some(HeaderFamily::Injected) => Err(NotForwardable::Injected),
        Some(HeaderFamily::Override) => Err(NotForwardable::Override),
        Some(HeaderFamily::Message) => Err(NotForwardable::Message),
        _ if text.starts_with("content-length") => Err(NotForwardable::Message),
        Some(HeaderFamily::Network | HeaderFamily::Trace | HeaderFamily::Identity | HeaderFamily::Credentials)
        | None => Ok(()),
    }
}

/// The family that keeps fields of this name back, if any does, whatever the configuration says.
pub fn family(name: &HeaderName) -> Option<&'static str> {
    find(&normalized(name.as_str())).map(|found| found.family.as_str())
}

/// Removes from the request what must not reach the upstream.
///
/// # Errors
///
/// Never.
pub fn strip_request<B>(rules: &HeaderRules, exchange: &mut Exchange<B>) -> Result<(), Error> {
    let request = &mut exchange.request;
    let lacks_length = needs_content_length(request.method())
        && !request.headers().contains_key(header::CONTENT_LENGTH)
        && !request.headers().contains_key(header::TRANSFER_ENCODING);
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    // Here already, like `Connection` in `strip`.
    request.headers_mut().remove(header::HOST);
    let mut has_credentials = false;
    strip(request.headers_mut(), |name, text| {
        if rules.is_injected(text) {
            has_credentials = true;
            return true;
        }
        let Some(found) = find(text) else { return false };
        if found.family.can_be_forwarded() && rules.forwarded.contains(name) {
            return false;
        }
        has_credentials |= found.family == HeaderFamily::Injected || found.pattern == "cookie";
        if enabled!(Level::DEBUG) {
            log_stripped(found, text);
        }
        true
    });
    if has_credentials {
        exchange.record.set_sent_credentials();
    }
    if is_chunked {
        // RFC 9112, 6.3: a length beside it is wrong. Requests with both are refused long before.
        request.headers_mut().remove(header::CONTENT_LENGTH);
        // Ours, for our connection: without it the client takes a GET of unknown length for one without a body.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if lacks_length {
        // The vendor refuses a POST whose length it is not told; a request without either field has no body.
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(())
}

/// Removes from a response what must not reach the caller.
pub fn strip_response(rules: &HeaderRules, headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112, 6.3: with both, the length is wrong; passed on, it would cut the response short.
        headers.remove(header::CONTENT_LENGTH);
    }
    strip(headers, |_, text| {
        text == X_FINICITY_PROXY_ERROR.as_str()
            || text == X_FINICITY_PROXY_EXECUTED.as_str()
            || rules.is_injected(text)
            || find(text).is_some_and(|found| match found.family {
                HeaderFamily::Injected => true,
                HeaderFamily::Message => !["expect", "host"].contains(&found.pattern),
                _ => false,
            })
    });
}

/// Says on a webhook that the proxy has verified its signature.
pub(super) const X_FINICITY_PROXY_VERIFIED: HeaderName = HeaderName::from_static("x-finicity-proxy-verified");

/// Removes from a webhook what belongs to the connection that it came on, what could pass for the proxy's word, and what names another
/// method or target: only the body is signed.
pub(super) fn strip_webhook(headers: &mut HeaderMap) {
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    strip(headers, |_, text| {
        text == X_FINICITY_PROXY_VERIFIED.as_str()
            || find(text).is_some_and(|found| matches!(found.family, HeaderFamily::Message | HeaderFamily::Override))
    });
}

/// Removes the fields that `Connection` names and those for which `is_stripped` holds: it is given the name, and the name as it is
/// compared.
fn strip(headers: &mut HeaderMap, mut is_stripped: impl FnMut(&HeaderName, &str) -> bool) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    // Nearly every message has it, and each name that is found below is allocated.
    headers.remove(header::CONNECTION);
    let predicate = |name: &&HeaderName| {
        if COMMON.contains(name) {
            return false;
        }
        let text = normalized(name.as_str());
        // A second length, for a server that takes one separator for the other.
        text == "content-length" || is_stripped(name, &text)
    };
    let stripped: Vec<HeaderName> = headers.keys().filter(predicate).cloned().collect();
    for name in stripped {
        headers.remove(name);
    }
}

/// Logs that a field was not forwarded, once for each name while the process lives: for a well-known one its name, for others the
/// pattern. What a caller wrote is never repeated: it can have any name of a family, and any number of them.
#[cold]
fn log_stripped(found: Match, name: &str) {
    const NAMES: usize = KNOWN_NAMES.len() + header_families::COUNT;
    static REPORTED: [AtomicBool; NAMES] = [const { AtomicBool::new(false) }; NAMES];
    let (number, header) = match KNOWN_NAMES.binary_search(&name) {
        Ok(number) => (number, KNOWN_NAMES[number]),
        Err(_) => (KNOWN_NAMES.len() + found.number, found.pattern),
    };
    if found.family != HeaderFamily::Message && !REPORTED[number].swap(true, Relaxed) {
        let family = found.family.as_str();
        debug!(header, family, "a header field of the caller was not forwarded; headers.forward lets one through");
    }
}

/// The fields that `Connection` names, but for those that its usual values name and that are stripped anyway, and for the
/// length of the message, which is everybody's to know (RFC 9110, 7.6.1).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    fields::list(headers, &header::CONNECTION)
        .filter(|option| !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect()
}

fn needs_content_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests;
