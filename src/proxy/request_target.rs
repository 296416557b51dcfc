//! The methods and request targets that are forwarded, and the URI that they are forwarded to.
//!
//! The authority is always the configured one. Path and query are forwarded byte for byte (RFC 9110, 7.7). URLs are never joined or
//! concatenated, because a target such as `//host/x` can change the host of a joined URL. A path that servers can interpret differently is
//! rejected ([`path`](crate::message::path)), and so is one that names a token endpoint ([`AuthEndpoints`]).
//!
//! Deliberately absent: a check for fragments. [`framing`](crate::message::framing) rejects them earlier, and hyper's parser would drop them.

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    endpoints::{AuthEndpoint, AuthEndpoints, ResponseShape},
    error::{Code, Error},
    exchange::Exchange,
};
use crate::vendor::catalogue::Catalogue;

/// The methods that are forwarded. `TRACE` would reveal the injected credentials to the caller, `CONNECT` requests a tunnel, and the
/// vendor uses no others.
pub const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What the proxy does with a request that it does not reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestAction {
    /// Forward the request to the upstream.
    Forward,
    /// Respond with the allowed methods.
    Options,
    /// Respond with a placeholder token, in this shape.
    TokenRequest(ResponseShape),
    /// Verify the webhook in the request body.
    WebhookVerification,
}

/// Classifies a request by its method and target. A request is forwarded if it has one of the [`ALLOWED_METHODS`], a target in origin-form
/// (RFC 9112, 3.2.1) and an unambiguous path that names none of `endpoints`. Decrements the `Max-Forwards` of an `OPTIONS` request.
///
/// # Errors
///
/// [`Code::MethodNotAllowed`], [`Code::BadRequest`] or [`Code::RouteDenied`].
pub fn classify<B>(endpoints: &AuthEndpoints, request: &mut Request<B>) -> Result<RequestAction, Error> {
    let (method, target) = (request.method(), request.uri());
    if !is_allowed(method) {
        return Err(Error::new(Code::MethodNotAllowed, "Method not allowed; see the Allow header."));
    }
    let is_options = *method == Method::OPTIONS;
    let path = target.path();
    // Absolute-form and authority-form have an authority.
    let is_relative = target.authority().is_none();
    if is_options && is_relative && path == "*" {
        return Ok(RequestAction::Options);
    }
    if !is_relative || !path.starts_with('/') || path[1..].starts_with(['/', '\\']) {
        return Err(Error::new(
            Code::BadRequest,
            "The request target must be a path that starts with a single slash, with an optional query; absolute URLs are not accepted.",
        ));
    }
    let endpoint = endpoints.find(path).map_err(|ambiguous| Error::new(Code::BadRequest, ambiguous.detail()))?;
    match endpoint {
        None => {
            let is_last_hop = is_options && is_last_hop(request.headers_mut());
            Ok(if is_last_hop { RequestAction::Options } else { RequestAction::Forward })
        }
        Some(AuthEndpoint::Token(shape)) if *method == Method::POST => Ok(RequestAction::TokenRequest(shape)),
        Some(AuthEndpoint::Token(_)) => Err(Error::new(
            Code::RouteDenied,
            "Token endpoints are never forwarded; a POST returns a placeholder token.",
        )),
        Some(AuthEndpoint::WebhookVerification) if *method == Method::POST => Ok(RequestAction::WebhookVerification),
        Some(AuthEndpoint::WebhookVerification) => {
            Err(Error::new(Code::RouteDenied, "Use POST to verify a webhook; this path is never forwarded."))
        }
        Some(AuthEndpoint::Revocation) => {
            Err(Error::new(Code::RouteDenied, "Token revocation is never forwarded; the proxy manages its own tokens."))
        }
    }
}

/// Finds the request's operation in `catalogue`, and records it. A request that is not in the catalogue is forwarded too.
pub fn with_operation<B>(catalogue: &'static Catalogue, exchange: Exchange<B>) -> Exchange<B> {
    let (method, path) = (exchange.request.method(), exchange.request.uri().path());
    let operation = catalogue.find(method, path);
    exchange.record.set_operation(operation);
    if operation.is_other() {
        exchange.record.set_known_prefix(catalogue.known_prefix(path));
    }
    exchange
}

/// The URI to forward to: `https`, the fixed `authority`, and path and query of the caller's `target`.
pub fn upstream_uri(authority: &Authority, target: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(target.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).expect("scheme, authority and path make a URI")
}

fn is_allowed(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS
    )
}

/// Whether `Max-Forwards` is 0, so that an `OPTIONS` request must not be forwarded (RFC 9110, 7.6.2). Otherwise decrements it. A field
/// that is not a single number is ignored and left unchanged.
fn is_last_hop(headers: &mut HeaderMap) -> bool {
    let mut values = headers.get_all(header::MAX_FORWARDS).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(hops) = digits.and_then(|digits| digits.parse::<u64>().ok()) else { return false };
    match hops.checked_sub(1) {
        None => true,
        Some(left) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            false
        }
    }
}

#[cfg(test)]
mod tests;
