//! Which header fields pass, in both directions: pure functions on header maps.
//!
//! Upwards, everything goes that belongs to the caller's connection, that could pass for one of our credentials, or that
//! tells the vendor about our network. Downwards, everything goes that belongs to the upstream's connection or is named like
//! what we inject. Names are compared with `_` read as `-`, since many servers take the one for the other.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Error, Exchange, error::X_FINICITY_PROXY_ERROR};

/// Fields of one connection (RFC 9110, 7.6.1), which no proxy forwards.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Credentials of the caller's own, under every name that the vendor reads one from.
const CREDENTIALS: [&str; 4] = ["app-key", "app-token", "authorization", "cookie"];

/// Fields that tell of the caller, its network or its routes; `expect` is answered by this proxy; `host` is set anew.
const FROM_THE_CALLER_ONLY: [&str; 16] = [
    "b3",
    "baggage",
    "expect",
    "forwarded",
    "host",
    "origin",
    "referer",
    "traceparent",
    "tracestate",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Families of fields, by how their names begin.
const PREFIXES: [&str; 3] = ["proxy-", "x-b3-", "x-forwarded-"];

/// The names of the header fields that are injected, which are configuration: nothing of these names passes either way.
#[derive(Clone, Debug, Default)]
pub struct OwnNames(Vec<String>);

impl OwnNames {
    /// Of these names, however they are spelt.
    pub fn new(names: &[HeaderName]) -> Self {
        Self(names.iter().map(|name| dashed(name).into_owned()).collect())
    }

    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }
}

/// Removes from the request what must not reach the upstream.
///
/// # Errors
///
/// Never.
pub fn strip_request<B>(own: &OwnNames, exchange: &mut Exchange<B>) -> Result<(), Error> {
    let request = &mut exchange.request;
    let bodyless = needs_content_length(request.method())
        && !request.headers().contains_key(header::CONTENT_LENGTH)
        && !request.headers().contains_key(header::TRANSFER_ENCODING);
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    // Here already, like `Connection` in `strip`.
    request.headers_mut().remove(header::HOST);
    let mut credentials = false;
    strip(request.headers_mut(), |name| {
        let credential = CREDENTIALS.contains(&name) || name.starts_with("finicity-app-") || own.contains(name);
        credentials |= credential;
        credential || stays_behind(name)
    });
    if credentials {
        exchange.record.set_brought_credentials();
    }
    if chunked {
        // RFC 9112, 6.3: a length beside it is wrong. Requests with both are refused long before.
        request.headers_mut().remove(header::CONTENT_LENGTH);
        // Ours, for our connection: without it the client takes a GET of unknown length for one without a body.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if bodyless {
        // The vendor refuses a POST whose length it is not told; a request without either field has no body.
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(())
}

/// Removes from an answer what must not reach the caller.
pub fn strip_response(own: &OwnNames, headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112, 6.3: with both, the length is wrong; passed on, it would cut the answer short.
        headers.remove(header::CONTENT_LENGTH);
    }
    strip(headers, |name| {
        HOP_BY_HOP.contains(&name)
            || name.starts_with("proxy-")
            || name.starts_with("finicity-app-")
            || ["app-key", "app-token", "authorization"].contains(&name)
            || name == X_FINICITY_PROXY_ERROR.as_str()
            || own.contains(name)
    });
}

fn stays_behind(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
        || FROM_THE_CALLER_ONLY.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Removes the fields that `Connection` names and those that `goes` says.
fn strip(headers: &mut HeaderMap, mut goes: impl FnMut(&str) -> bool) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    // Nearly every message has it, and whatever is found below makes the search begin anew.
    headers.remove(header::CONNECTION);
    let mut is_stripped = |name: &&HeaderName| {
        let read = dashed(name);
        // A second length, for whoever takes `_` for `-`.
        goes(&read) || (read == "content-length" && read != name.as_str())
    };
    while let Some(name) = headers.keys().find(&mut is_stripped).cloned() {
        headers.remove(name);
    }
}

/// The fields that `Connection` names, but for those that its usual values name and that are stripped anyway, and for the
/// length of the message, which is everybody's to know (RFC 9110, 7.6.1).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    list(headers, &header::CONNECTION)
        .filter(|option| !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect()
}

/// The members of the list that the fields called `name` make together (RFC 9110, 5.6.1), empty ones too.
pub(super) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn dashed(name: &HeaderName) -> Cow<'_, str> {
    let name = name.as_str();
    if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

fn needs_content_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::Record;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn forwarded(method: Method, fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.headers_mut() = map(fields);
        let mut exchange = Exchange { request, record: Arc::new(Record::new(method, None)) };
        strip_request(&own(), &mut exchange).unwrap();
        list(exchange.request.headers())
    }

    fn own() -> OwnNames {
        OwnNames::new(&[HeaderName::from_static("x-own_key")])
    }

    fn list(headers: &HeaderMap) -> Vec<(String, String)> {
        headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn d04_d05_d06_c15_what_is_not_the_callers_to_send_is_removed_in_every_spelling() {
        for name in [
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Proxy-Connection",
            "Proxy-Authorization",
            "Authorization",
            "authorization",
            "Finicity-App-Key",
            "Finicity_App_Key",
            "finicity-app_token",
            "App-Key",
            "App_Token",
            "Cookie",
            "Forwarded",
            "X-Forwarded-For",
            "X_Forwarded_Host",
            "X-Real-IP",
            "X-Original-URL",
            "X-Rewrite-URL",
            "Origin",
            "Referer",
            "Expect",
            "Host",
            "traceparent",
            "tracestate",
            "Via",
            "baggage",
            "b3",
            "X-B3-TraceId",
            "X_Own_Key",
            "Content_Length",
            "X-HTTP-Method-Override",
            "X-Method_Override",
        ] {
            assert_eq!(forwarded(Method::GET, &[(name, "evil"), (name, "twice")]), [], "{name}");
        }
    }

    #[test]
    fn b13_d09_everything_else_passes_as_it_is_and_in_order() {
        let fields = [
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("x-external-request-id", "1"),
            ("x-m", "1"),
            ("x-m", "2"),
            ("accept-encoding", "gzip"),
            ("user-agent", "mine/1"),
            ("mfa-session", "s"),
            ("x_custom", "1"),
        ];
        let expected: Vec<_> = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(forwarded(Method::GET, &fields), expected);
        assert_eq!(forwarded(Method::GET, &[]), []);
    }

    #[test]
    fn d01_what_connection_names_is_removed() {
        let fields = [
            ("connection", "close, X-Private ,x-other"),
            ("connection", "x-third"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("x-third", "1"),
            ("x-kept", "1"),
        ];
        assert_eq!(forwarded(Method::GET, &fields), [("x-kept".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a02_d01_the_length_is_told_once_and_connection_cannot_take_it_away() {
        let length = ("content-length", "3");
        for fields in [&[length][..], &[("connection", "content-length, Content-Length"), length]] {
            assert_eq!(forwarded(Method::POST, fields), [("content-length".to_owned(), "3".to_owned())]);
            let mut headers = map(fields);
            strip_response(&own(), &mut headers);
            assert_eq!(list(&headers), [("content-length".to_owned(), "3".to_owned())]);
        }
        let chunked = ("transfer-encoding", "chunked");
        for fields in [[length, chunked], [chunked, length], [("connection", "transfer-encoding"), chunked]] {
            assert_eq!(
                forwarded(Method::POST, &fields),
                [("transfer-encoding".to_owned(), "chunked".to_owned())],
                "{fields:?}"
            );
        }
    }

    #[test]
    fn a_post_without_a_body_says_so() {
        let zero = [("content-length".to_owned(), "0".to_owned())];
        for method in [Method::POST, Method::PUT, Method::PATCH] {
            assert_eq!(forwarded(method.clone(), &[]), zero, "{method}");
            let chunked = [("transfer-encoding".to_owned(), "chunked".to_owned())];
            assert_eq!(forwarded(method, &[("transfer-encoding", "chunked")]), chunked);
        }
        assert_eq!(
            forwarded(Method::POST, &[("content-length", "3")]),
            [("content-length".to_owned(), "3".to_owned())]
        );
        assert_eq!(forwarded(Method::DELETE, &[]), []);
    }

    #[test]
    fn d08_f05_answers_lose_hop_by_hop_fields_and_everything_named_like_ours() {
        let mut headers = map(&[
            ("connection", "x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("authorization", "Bearer t"),
            ("finicity-app-key", "k"),
            ("finicity_app_token", "t"),
            ("app-token", "t"),
            ("x-finicity-proxy-error", "fake"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("location", "/x"),
        ]);
        strip_response(&own(), &mut headers);
        let expected = [("location", "/x"), ("set-cookie", "a=1"), ("set-cookie", "b=2")];
        assert_eq!(list(&headers), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    proptest! {
        #[test]
        fn no_field_that_could_pass_for_ours_is_ever_forwarded(
            fields in prop::collection::vec(("[Aa]uthorization|[Ff]inicity[-_][Aa]pp[-_][A-Za-z]{1,8}|[Aa]pp[-_](key|Token)|x-[a-z]{1,5}", "[ -~]{0,20}"), 0..12),
        ) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.trim())).collect();
            for (name, _) in forwarded(Method::GET, &fields) {
                prop_assert!(name.starts_with("x-"), "{}", name);
            }
        }
    }
}
