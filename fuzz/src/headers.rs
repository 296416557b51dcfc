//! Header fields: those that belong to one connection, or could pass for one of the proxy's credentials, are stripped; all others are
//! forwarded unchanged.

use std::{collections::BTreeSet, sync::Arc};

use finicity_proxy::proxy::{
    Exchange, Record,
    headers::{HeaderRules, family, strip_request, strip_response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::message::Message;

/// The name of an injected header, as an operator might spell it.
const OWN: HeaderName = HeaderName::from_static("x-own_key");

/// Hop-by-hop fields (RFC 9110, section 7.6.1), in addition to those named in `Connection`.
const HOP_BY_HOP: &str =
    "connection http2-settings keep-alive proxy-connection te trailer trailers transfer-encoding upgrade";

/// Fields stripped from responses.
const RESPONSE_ONLY: &str =
    "app-key app-token authorization x-finicity-proxy-error x-finicity-proxy-executed x-own-key";
const RESPONSE_ONLY_PREFIXES: [&str; 2] = ["finicity-app", "proxy"];

/// Checks the header fields in `input`, which starts with a method, as those of a request and of a response.
pub fn headers(input: &[u8]) {
    let message = Message::read(input);
    let method = Method::from_bytes(message.first).unwrap_or(Method::POST);
    let own = HeaderRules::new(&[OWN], &[]);

    // The program defines the families; checked here is that every spelling of a name has the same one.
    let is_about_the_client =
        |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| family(&name).is_some());
    let is_stripped_from_request =
        |name: &str| name == "x-own-key" || name == "content-length" || is_about_the_client(name);
    let request = |headers: &HeaderMap| {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers.clone();
        let mut exchange = Exchange { request, record: Arc::new(Record::new(method.clone(), None)) };
        strip_request(&own, &mut exchange).expect("every map can be stripped");
        std::mem::take(exchange.request.headers_mut())
    };
    let sent = request(&message.headers);
    compare(&message.headers, &sent, is_stripped_from_request);
    request_is_framed(&method, &message.headers, &sent);
    assert_eq!(request(&sent), sent, "stripping twice changes nothing more");

    let is_stripped_from_response = |name: &str| {
        name == "content-length" || is_in(name, HOP_BY_HOP, &[]) || is_in(name, RESPONSE_ONLY, &RESPONSE_ONLY_PREFIXES)
    };
    let mut stripped = message.headers.clone();
    strip_response(&own, &mut stripped);
    compare(&message.headers, &stripped, is_stripped_from_response);
    response_is_framed(&message.headers, &stripped);
    let once = stripped.clone();
    strip_response(&own, &mut stripped);
    assert_eq!(stripped, once, "stripping twice changes nothing more");
}

/// Checks that exactly the fields for which `removed` holds were removed, and no field was added or changed, except framing fields.
fn compare(before: &HeaderMap, after: &HeaderMap, removed: impl Fn(&str) -> bool) {
    let named = named_by_connection(before);
    let framing = |name: &HeaderName| [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
    for name in before.keys().filter(|name| !framing(name)) {
        let removed = removed(&folded(name)) || named.contains(name.as_str());
        let expected: Vec<_> = before.get_all(name).iter().filter(|_| !removed).collect();
        let kept: Vec<_> = after.get_all(name).iter().collect();
        assert_eq!(kept, expected, "{name}");
    }
    for name in after.keys().filter(|name| !framing(name)) {
        assert!(before.contains_key(name), "{name} was added");
    }
}

/// The forwarded framing is that of the client; a request without a body that should have one gets `Content-Length: 0`.
fn request_is_framed(method: &Method, before: &HeaderMap, after: &HeaderMap) {
    let length: Vec<&[u8]> = values(after, &header::CONTENT_LENGTH);
    if before.contains_key(header::TRANSFER_ENCODING) {
        assert_eq!(values(after, &header::TRANSFER_ENCODING), [b"chunked"]);
        assert!(length.is_empty(), "Content-Length together with Transfer-Encoding");
    } else {
        assert!(!after.contains_key(header::TRANSFER_ENCODING));
        let declared = values(before, &header::CONTENT_LENGTH);
        let bodyless = declared.is_empty() && ["POST", "PUT", "PATCH"].contains(&method.as_str());
        assert_eq!(length, if bodyless { vec![&b"0"[..]] } else { declared });
    }
}

fn response_is_framed(before: &HeaderMap, after: &HeaderMap) {
    assert!(!after.contains_key(header::TRANSFER_ENCODING));
    let declared = values(before, &header::CONTENT_LENGTH);
    let is_wrong = before.contains_key(header::TRANSFER_ENCODING);
    assert_eq!(values(after, &header::CONTENT_LENGTH), if is_wrong { vec![] } else { declared });
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

fn is_in(name: &str, names: &str, prefixes: &[&str]) -> bool {
    names.split(' ').any(|other| other == name)
        || prefixes
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

/// Some servers treat all separators as the same.
fn folded(name: &HeaderName) -> String {
    let words = name.as_str().split(|character: char| !character.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

fn named_by_connection(headers: &HeaderMap) -> BTreeSet<String> {
    let values = headers
        .get_all(header::CONNECTION)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase());
    values.flat_map(|value| value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()).collect()
}
