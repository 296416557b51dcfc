//! Header fields: nothing that belongs to one side, or that could pass for a credential of ours, gets to the other; everything
//! else does, as it was.

use std::{collections::BTreeSet, sync::Arc};

use finicity_proxy::proxy::{
    Exchange, Record,
    headers::{HeaderRules, family, strip_request, strip_response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::message::Message;

/// A name that is injected, spelt as an operator might.
const OWN: HeaderName = HeaderName::from_static("x-own_key");

/// What is between two neighbours only (RFC 9110, 7.6.1), besides what `Connection` names.
const HOP_BY_HOP: &str =
    "connection http2-settings keep-alive proxy-connection te trailer trailers transfer-encoding upgrade";

/// What an answer must not bring to a caller.
const ANSWERS: &str = "app-key app-token authorization x-finicity-proxy-error x-finicity-proxy-executed x-own-key";
const ANSWERS_PREFIXES: [&str; 2] = ["finicity-app", "proxy"];

/// What must hold for the header fields in `input`, which begins with a method, sent to the vendor or to a caller.
pub fn headers(input: &[u8]) {
    let message = Message::read(input);
    let method = Method::from_bytes(message.first).unwrap_or(Method::POST);
    let own = HeaderRules::new(&[OWN], &[]);

    // The families are the program's; that every spelling of a name has the same one is what is looked at here.
    let is_of_the_caller =
        |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| family(&name).is_some());
    let stays_behind = |name: &str| name == "x-own-key" || name == "content-length" || is_of_the_caller(name);
    let request = |headers: &HeaderMap| {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers.clone();
        let mut exchange = Exchange { request, record: Arc::new(Record::new(method.clone(), None)) };
        strip_request(&own, &mut exchange).expect("every map can be stripped");
        std::mem::take(exchange.request.headers_mut())
    };
    let sent = request(&message.headers);
    compare(&message.headers, &sent, stays_behind);
    request_is_framed(&method, &message.headers, &sent);
    assert_eq!(request(&sent), sent, "what was stripped has nothing left to strip");

    let kept_back = |name: &str| {
        name == "content-length" || is_in(name, HOP_BY_HOP, &[]) || is_in(name, ANSWERS, &ANSWERS_PREFIXES)
    };
    let mut answered = message.headers.clone();
    strip_response(&own, &mut answered);
    compare(&message.headers, &answered, kept_back);
    answer_is_framed(&message.headers, &answered);
    let once = answered.clone();
    strip_response(&own, &mut answered);
    assert_eq!(answered, once, "what was stripped has nothing left to strip");
}

/// Of what was `before`, exactly that is there `after` which does not go, framing aside.
fn compare(before: &HeaderMap, after: &HeaderMap, goes: impl Fn(&str) -> bool) {
    let named = named_by_connection(before);
    let framing = |name: &HeaderName| [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name);
    for name in before.keys().filter(|name| !framing(name)) {
        let goes = goes(&folded(name)) || named.contains(name.as_str());
        let expected: Vec<_> = before.get_all(name).iter().filter(|_| !goes).collect();
        let kept: Vec<_> = after.get_all(name).iter().collect();
        assert_eq!(kept, expected, "{name}");
    }
    for name in after.keys().filter(|name| !framing(name)) {
        assert!(before.contains_key(name), "{name} was added");
    }
}

/// The upstream is told how long the body is as the caller told us, or, of no body, that there is none.
fn request_is_framed(method: &Method, before: &HeaderMap, after: &HeaderMap) {
    let length: Vec<&[u8]> = values(after, &header::CONTENT_LENGTH);
    if before.contains_key(header::TRANSFER_ENCODING) {
        assert_eq!(values(after, &header::TRANSFER_ENCODING), [b"chunked"]);
        assert!(length.is_empty(), "a length beside a coding");
    } else {
        assert!(!after.contains_key(header::TRANSFER_ENCODING));
        let told = values(before, &header::CONTENT_LENGTH);
        let bodyless = told.is_empty() && ["POST", "PUT", "PATCH"].contains(&method.as_str());
        assert_eq!(length, if bodyless { vec![&b"0"[..]] } else { told });
    }
}

fn answer_is_framed(before: &HeaderMap, after: &HeaderMap) {
    assert!(!after.contains_key(header::TRANSFER_ENCODING));
    let told = values(before, &header::CONTENT_LENGTH);
    let is_wrong = before.contains_key(header::TRANSFER_ENCODING);
    assert_eq!(values(after, &header::CONTENT_LENGTH), if is_wrong { vec![] } else { told });
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

/// Servers take one separator for another.
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
