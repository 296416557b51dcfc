//! What may be called: the methods and the request targets that are forwarded, and the address that they are forwarded to.
//!
//! The authority is the configured one, whatever the caller sends; path and query go on byte for byte (RFC 9110, 7.7).
//! Nothing is ever joined or concatenated, since `//host/x` and its kind turn joined URLs into another host's. A path whose
//! meaning servers could disagree about is refused ([`path`](crate::message::path)), and so is one that names a token endpoint ([`AuthEndpoints`]).
//!
//! Deliberately absent: a check for fragments, which the HTTP parser drops before a request comes here, and which
//! [`framing`](crate::message::framing) refuses before that.

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

/// The methods that are forwarded. `TRACE` would show the injected credentials to the caller, `CONNECT` asks for a tunnel,
/// and the vendor has no others.
pub const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What the proxy does with a request that it does not reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestAction {
    /// It goes to the upstream.
    Forward,
    /// It asks this proxy for its methods.
    Options,
    /// It requests a token, and expects a response of this shape.
    TokenRequest(ResponseShape),
    /// It has a webhook verified.
    WebhookVerification,
}

/// Classifies a request by its method and its target. Accepts what has one of the [`ALLOWED_METHODS`], a target in origin-form
/// (RFC 9112, 3.2.1) and a path that means one thing only, and names none of `endpoints`. An `OPTIONS` that may go a limited
/// way has that counted down in its `Max-Forwards`.
///
/// # Errors
///
/// [`Code::MethodNotAllowed`], [`Code::BadRequest`] or [`Code::RouteDenied`].
pub fn classify<B>(endpoints: &AuthEndpoints, request: &mut Request<B>) -> Result<RequestAction, Error> {
    let (method, target) = (request.method(), request.uri());
    if !is_allowed(method) {
        return Err(Error::new(Code::MethodNotAllowed, "This method is never forwarded; see the Allow header."));
    }
    let is_options = *method == Method::OPTIONS;
    let path = target.path();
    // An absolute URL has an authority, too.
    let is_relative = target.authority().is_none();
    if is_options && is_relative && path == "*" {
        return Ok(RequestAction::Options);
    }
    if !is_relative || !path.starts_with('/') || path[1..].starts_with(['/', '\\']) {
        return Err(Error::new(
            Code::BadRequest,
            "The request target must be a path that starts with one slash, with an optional query; send no absolute URL.",
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
            "The proxy alone calls the token endpoints; only a POST is answered here, with a placeholder for a token.",
        )),
        Some(AuthEndpoint::WebhookVerification) if *method == Method::POST => Ok(RequestAction::WebhookVerification),
        Some(AuthEndpoint::WebhookVerification) => {
            Err(Error::new(Code::RouteDenied, "Webhooks are verified by POST; this path is never forwarded."))
        }
        Some(AuthEndpoint::Revocation) => {
            Err(Error::new(Code::RouteDenied, "Tokens are the proxy's own to revoke; this call is never forwarded."))
        }
    }
}

/// Finds the operation of `catalogue` that the request names, and records it. A request that is not in the catalogue is forwarded
/// too.
pub fn with_operation<B>(catalogue: &'static Catalogue, exchange: Exchange<B>) -> Exchange<B> {
    let (method, path) = (exchange.request.method(), exchange.request.uri().path());
    let operation = catalogue.find(method, path);
    exchange.record.set_operation(operation);
    if operation.is_other() {
        exchange.record.set_known_prefix(catalogue.known_prefix(path));
    }
    exchange
}

/// The upstream's address for the caller's `target`: the fixed authority, with the target's own path and query.
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

/// Whether an `OPTIONS` with these fields may go no further than here (RFC 9110, 7.6.2). One that may has one hop less from
/// here on. A `Max-Forwards` that is no number means nothing, and stays as it is.
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
