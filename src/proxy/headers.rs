//! Strips header fields from requests, responses and webhooks: pure functions on header maps.
//!
//! Requests lose fields that belong to the caller's connection, that could be mistaken for the proxy's credentials, or that concern the
//! caller and not the call (`header_families`). Responses lose fields that belong to the upstream's connection, or that have the name of an
//! injected field. Names are compared with every separator read as `-`, because many servers treat separators alike.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tracing::{Level, debug, enabled};

use super::{
    error::{Error, X_FINICITY_PROXY_ERROR, X_FINICITY_PROXY_EXECUTED},
    exchange::Exchange,
    header_families::{self, HeaderFamily, KNOWN_NAMES, Match, find, normalized},
};
use crate::message::fields;

/// Common request fields that are in no family, to skip the search by name.
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

/// The configured additions to, and exceptions from, the families.
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    /// The normalized names of the injected header fields, which are stripped in both directions.
    injected: Vec<String>,
    /// Fields that are forwarded although they belong to a family.
    forwarded: Vec<HeaderName>,
}

impl HeaderRules {
    /// Strips the names `injected` in any spelling, and forwards the names `forwarded` in exactly this spelling.
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
    #[error("is one that the proxy adds itself; a caller's value is never forwarded")]
    Injected,
    /// The field is connection-specific or frames a message.
    #[error("belongs to the caller's connection or frames a message; it cannot be forwarded")]
    Message,
    /// The field overrides the method or target of the call.
    #[error("can change the method or target of a call and so bypass the policy")]
    Override,
}

/// Checks that an operator may list `name` in `headers.forward`, if fields named `injected` are added.
///
/// # Errors
///
/// Why `name` cannot be forwarded.
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

/// The family that strips fields of this name by default, if there is one.
pub fn family(name: &HeaderName) -> Option<&'static str> {
    find(&normalized(name.as_str())).map(|found| found.family.as_str())
}

/// Removes from the request the fields that must not reach the upstream.
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
    // Removed before the search, like `Connection` in `strip`.
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
        // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length. `malformed` rejects requests with both; this is a second check.
        request.headers_mut().remove(header::CONTENT_LENGTH);
        // For the upstream connection: without the field, the client takes a GET of unknown length for one without a body.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if lacks_length {
        // A request without either field has no body. The vendor rejects a POST without Content-Length.
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(())
}

/// Removes from a response the fields that must not reach the caller.
pub fn strip_response(rules: &HeaderRules, headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112, 6.3: Transfer-Encoding overrides Content-Length. A wrong length, if forwarded, would truncate the response.
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

/// Marks a webhook as verified by the proxy.
pub(super) const X_FINICITY_PROXY_VERIFIED: HeaderName = HeaderName::from_static("x-finicity-proxy-verified");

/// Removes from a webhook the fields that belong to the vendor's connection, that could be mistaken for the proxy's, or that override method
/// or target. Only the body is signed, so these could be forged.
pub(super) fn strip_webhook(headers: &mut HeaderMap) {
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    strip(headers, |_, text| {
        text == X_FINICITY_PROXY_VERIFIED.as_str()
            || find(text).is_some_and(|found| matches!(found.family, HeaderFamily::Message | HeaderFamily::Override))
    });
}

/// Removes the fields that `Connection` names, and those for which `is_stripped` returns true. It gets the name and the normalized name.
fn strip(headers: &mut HeaderMap, mut is_stripped: impl FnMut(&HeaderName, &str) -> bool) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    // Nearly every message has this field, and each name that is collected below is allocated.
    headers.remove(header::CONNECTION);
    let predicate = |name: &&HeaderName| {
        if COMMON.contains(name) {
            return false;
        }
        let text = normalized(name.as_str());
        // Another spelling, which a server that treats separators alike takes for a second length. `COMMON` has the real field.
        text == "content-length" || is_stripped(name, &text)
    };
    let stripped: Vec<HeaderName> = headers.keys().filter(predicate).cloned().collect();
    for name in stripped {
        headers.remove(name);
    }
}

/// Logs that a field was not forwarded, once per name in the lifetime of the process. Logs a well-known name, or else the pattern, and never
/// the caller's spelling: callers can send any number of names of a family.
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
        debug!(header, family, "caller's header field not forwarded; add its name to headers.forward to forward it");
    }
}

/// The fields that `Connection` names. Skips its usual values, which name no field or one that is stripped anyway, and `Content-Length`,
/// which must not be a connection option because every recipient needs it (RFC 9110, 7.6.1).
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
