//! Request targets: every forwarded request goes to the configured authority, with the client's path and query unchanged.

use std::sync::{Arc, LazyLock};

use finicity_proxy::{
    policy::{Mode, Policy, Rule},
    proxy::{
        AuthEndpoints, Exchange, Record,
        request_target::{RequestAction, classify, upstream_uri, with_operation},
    },
    vendor::catalogue::{Catalogue, Operation},
};
use http::{
    Method, Request, Uri,
    uri::{Authority, Scheme},
};

const AUTHORITY: &str = "api.finicity.com";

/// Checks a request with the target `input`.
pub fn target(input: &[u8]) {
    // hyper parses a target like this, except that it would drop a fragment; targets with a fragment are rejected before.
    let Ok(uri) = Uri::try_from(input) else { return };
    if input.contains(&b'#') {
        return;
    }
    for method in [Method::GET, Method::POST, Method::DELETE] {
        checked(method, &uri, input);
    }
}

fn checked(method: Method, uri: &Uri, input: &[u8]) {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    let mut exchange = Exchange { request, record: Arc::new(Record::new(method, None)) };

    let endpoints = AuthEndpoints::new(None, None);
    let passes = classify(&endpoints, &mut exchange.request).is_ok_and(|action| action == RequestAction::Forward);
    assert!(!passes || is_origin_form(input), "{uri} passes");
    let exchange = with_operation(Catalogue::us(), exchange);
    assert_eq!(exchange.request.uri(), uri, "a check changes nothing");
    if passes {
        assert!(!OWN_ENDPOINTS.contains(&forgiving(uri.path()).as_str()), "{uri} is the proxy's own endpoint");
        is_sent_to_the_authority(uri, input);
        rules_hold(exchange.record.operation(), &exchange.request);
    }
}

/// Policies: everything except one subtree, and nothing except one kind of path.
static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    let rules = |text: &str| -> Vec<Rule> { vec![text.parse().expect("the rule is valid")] };
    let (deny, allow) = (rules("* /connect/**"), rules("GET /aggregation/{version}/customers"));
    [
        Policy::new(Catalogue::us(), &[], &deny, false, Mode::Enforce),
        Policy::new(Catalogue::us(), &allow, &[], false, Mode::Enforce),
    ]
});

/// A request that a policy allows is still allowed as a forgiving server would interpret its path.
fn rules_hold(operation: Operation, request: &Request<()>) {
    let (method, path) = (request.method(), request.uri().path());
    let read = forgiving(path);
    let segments: Vec<&str> = read.split('/').collect();
    let [deny, allow] = POLICIES.each_ref().map(|policy| policy.check(method, path, operation).is_ok());
    assert!(!deny || segments[0] != "connect", "{path} is denied");
    let is_allowed = *method == Method::GET && matches!(segments[..], ["aggregation", _, "customers"]);
    assert!(!allow || is_allowed, "{path} is not allowed");
}

/// Origin form (RFC 9112, section 3.2.1), except paths that start with an empty segment: joined to a URL, that would be an authority.
fn is_origin_form(input: &[u8]) -> bool {
    input.starts_with(b"/") && !input.starts_with(b"//")
}

/// The endpoints that issue tokens, and the one that verifies webhooks.
const OWN_ENDPOINTS: [&str; 3] =
    ["oauth/token", "aggregation/v2/partners/authentication", "finicity-proxy/webhooks/verify"];

/// The path as interpreted by a server that decodes twice, treats a backslash as a slash, resolves dot segments, drops parameters and
/// empty segments, and ignores case.
fn forgiving(path: &str) -> String {
    let decoded = (0..2).fold(path.as_bytes().to_vec(), |path, _| decode(&path));
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/").to_lowercase();
    let mut segments = Vec::new();
    for segment in text.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/")
}

fn decode(path: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (mut decoded, mut rest) = (Vec::new(), path);
    while let [first, after @ ..] = rest {
        match after {
            [high, low, after @ ..] if *first == b'%' && digit(high).is_some() && digit(low).is_some() => {
                let value = digit(high).unwrap_or(0) * 16 + digit(low).unwrap_or(0);
                decoded.push(u8::try_from(value).expect("two hexadecimal digits are a byte"));
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

fn is_sent_to_the_authority(uri: &Uri, input: &[u8]) {
    let authority = Authority::from_static(AUTHORITY);
    let forwarded = upstream_uri(&authority, uri);
    assert_eq!(forwarded.scheme(), Some(&Scheme::HTTPS));
    assert_eq!(forwarded.authority(), Some(&authority));
    let path = forwarded.path_and_query().expect("a forwarded target has a path").as_str();
    assert_eq!(path.as_bytes(), input, "path and query are forwarded unchanged");
    // A lenient URL parser, like that of browsers, finds the same host.
    let read = url::Url::parse(&forwarded.to_string()).expect("a forwarded address is a URL");
    assert_eq!((read.scheme(), read.host_str(), read.port()), ("https", Some(AUTHORITY), None));
    assert_eq!((read.username(), read.password()), ("", None));
}
