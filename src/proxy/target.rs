//! What may be called: the methods and the request targets that are forwarded, and the address that they are forwarded to.
//!
//! The authority is the configured one, whatever the caller sends; path and query go on byte for byte (RFC 9110, 7.7).
//! Nothing is ever joined or concatenated, since `//host/x` and its kind turn joined URLs into another host's.

use http::{
    Method, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{Code, Error, Exchange};
use crate::catalogue::Route;

/// The methods that are forwarded. `TRACE` would show the injected credentials to the caller, `CONNECT` asks for a tunnel,
/// and the vendor has no others.
pub const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Lets a request through that has one of the [`ALLOWED_METHODS`] and a target in origin-form (RFC 9112, 3.2.1).
///
/// # Errors
///
/// [`Code::MethodNotAllowed`] or [`Code::BadRequest`].
pub fn check<B>(exchange: &mut Exchange<B>) -> Result<(), Error> {
    let request = &exchange.request;
    if !is_allowed(request.method()) {
        return Err(Error::new(Code::MethodNotAllowed, "This method is never forwarded; see the Allow header."));
    }
    let target = request.uri();
    let path = target.path();
    let origin_form = target.scheme().is_none() && target.authority().is_none() && path.starts_with('/');
    if !origin_form || path.starts_with("//") {
        return Err(Error::new(
            Code::BadRequest,
            "The request target must be a path that starts with one slash, with an optional query; send no absolute URL.",
        ));
    }
    Ok(())
}

/// Finds the operation of the catalogue that the request names, and notes it.
///
/// # Errors
///
/// Never; a request that is not in the catalogue is forwarded too.
pub fn find_route<B>(exchange: &mut Exchange<B>) -> Result<(), Error> {
    let request = &exchange.request;
    exchange.record.set_route(Route::find(request.method(), request.uri().path()));
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::Record;

    fn checked(method: &str, target: &str) -> Result<(), Code> {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        let record = Arc::new(Record::new(request.method().clone(), None));
        check(&mut Exchange { request, record }).map_err(|error| error.code())
    }

    #[test]
    fn paths_are_let_through_and_everything_else_refused() {
        for path in ["/", "/a/b?c=d&e=%2F", "/aggregation/v1/customers?username=&type="] {
            assert_eq!(checked("GET", path), Ok(()), "{path}");
        }
        for target in
            ["http://evil.example/x", "https://u:p@localhost/x", "evil.example:443", "admin", "*", "//evil.example/x"]
        {
            assert_eq!(checked("GET", target), Err(Code::BadRequest), "{target}");
        }
    }

    #[test]
    fn e01_e02_c04_methods_outside_the_list_are_refused() {
        for method in ALLOWED_METHODS.split(", ") {
            assert_eq!(checked(method, "/x"), Ok(()), "{method}");
        }
        for method in ["TRACE", "CONNECT", "get", "FOO", "PRI"] {
            assert_eq!(checked(method, "/x"), Err(Code::MethodNotAllowed), "{method}");
        }
    }

    proptest! {
        #[test]
        fn c08_whatever_the_target_the_authority_is_the_configured_one(target in "[ -~]{0,80}") {
            let authority = Authority::from_static("api.finicity.com");
            if let Ok(uri) = target.parse::<Uri>() {
                let forwarded = upstream_uri(&authority, &uri);
                prop_assert_eq!(forwarded.authority(), Some(&authority));
                prop_assert_eq!(forwarded.scheme(), Some(&Scheme::HTTPS));
                if uri.authority().is_none() && target.starts_with('/') && !target.contains('#') {
                    prop_assert_eq!(forwarded.path_and_query().unwrap().as_str(), target);
                }
            }
        }
    }
}
