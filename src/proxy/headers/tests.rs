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
    strip_request(&rules(), &mut exchange).unwrap();
    list(exchange.request.headers())
}

fn rules() -> HeaderRules {
    HeaderRules::new(&[HeaderName::from_static("x-own_key")], &[])
}

fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned())).collect()
}

#[test]
fn d04_d05_d06_c15_denied_fields_are_removed_in_any_spelling() {
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
fn b13_d09_other_fields_pass_unchanged_and_in_order() {
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
fn d01_fields_named_by_connection_are_removed() {
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
fn a02_d01_the_length_is_sent_once_whatever_connection_names() {
    let length = ("content-length", "3");
    for fields in [&[length][..], &[("connection", "content-length, Content-Length"), length]] {
        assert_eq!(forwarded(Method::POST, fields), [("content-length".to_owned(), "3".to_owned())]);
        let mut headers = map(fields);
        strip_response(&rules(), &mut headers);
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
fn a_post_without_a_body_has_content_length_0() {
    let zero = [("content-length".to_owned(), "0".to_owned())];
    for method in [Method::POST, Method::PUT, Method::PATCH] {
        assert_eq!(forwarded(method.clone(), &[]), zero, "{method}");
        let chunked = [("transfer-encoding".to_owned(), "chunked".to_owned())];
        assert_eq!(forwarded(method, &[("transfer-encoding", "chunked")]), chunked);
    }
    assert_eq!(forwarded(Method::POST, &[("content-length", "3")]), [("content-length".to_owned(), "3".to_owned())]);
    assert_eq!(forwarded(Method::DELETE, &[]), []);
}

#[test]
fn d08_f05_responses_lose_hop_by_hop_and_injected_names() {
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
        ("x-finicity-proxy-executed", "no"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("location", "/x"),
    ]);
    strip_response(&rules(), &mut headers);
    let expected = [("location", "/x"), ("set-cookie", "a=1"), ("set-cookie", "b=2")];
    assert_eq!(list(&headers), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

/// The fields of `fields` that are forwarded if `headers.forward` lists `forward`.
fn forwarded_with(forward: &[&str], fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let forward: Vec<HeaderName> = forward.iter().map(|name| name.parse().unwrap()).collect();
    let mut request = Request::new(());
    *request.headers_mut() = map(fields);
    let mut exchange = Exchange { request, record: Arc::new(Record::new(Method::GET, None)) };
    let rules = HeaderRules::new(&[HeaderName::from_static("x-own_key")], &forward);
    strip_request(&rules, &mut exchange).unwrap();
    list(exchange.request.headers())
}

#[test]
fn a_configured_name_is_forwarded_in_its_exact_spelling() {
    let fields = [
        ("traceparent", "1"),
        ("tracestate", "2"),
        ("x-api-key", "3"),
        ("x_api_key", "4"),
        ("x-envoy-a", "5"),
        ("x-envoy-b", "6"),
    ];
    assert_eq!(forwarded_with(&[], &fields), []);
    let expected = [("traceparent", "1"), ("x-api-key", "3"), ("x-envoy-b", "6")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut forwarded = forwarded_with(&["TraceParent", "X-Api-Key", "X-Envoy-B"], &fields);
    forwarded.sort_unstable();
    assert_eq!(forwarded, expected);
}

#[test]
fn fields_named_by_connection_are_removed_even_if_configured() {
    let fields = [("connection", "traceparent"), ("traceparent", "1")];
    assert_eq!(forwarded_with(&["traceparent"], &fields), []);
}

#[test]
fn injected_framing_and_override_names_cannot_be_configured() {
    let injected = [HeaderName::from_static("x-own_key"), HeaderName::from_static("finicity-app-token")];
    let check = |name: &str| check_forward(&name.parse().unwrap(), &injected);
    for name in
        ["X-Own-Key", "x.own.key", "Finicity-App-Token", "finicity_app_foo", "Authorization", "App-Key", "app~token"]
    {
        assert_eq!(check(name), Err(NotForwardable::Injected), "{name}");
    }
    for name in [
        "Connection",
        "Host",
        "TE",
        "Transfer_Encoding",
        "Proxy-Authorization",
        "Content-Length",
        "content_length",
        "Expect",
    ] {
        assert_eq!(check(name), Err(NotForwardable::Message), "{name}");
    }
    for name in ["X-HTTP-Method-Override", "X-Original-URL", "x_rewrite_url"] {
        assert_eq!(check(name), Err(NotForwardable::Override), "{name}");
    }
    for name in ["traceparent", "X-Api-Key", "X-Forwarded-For", "Cookie", "X-Original-Host", "X-Customer-Note"] {
        assert_eq!(check(name), Ok(()), "{name}");
    }
}

#[test]
fn no_separator_hides_a_credential_or_a_length() {
    for separator in "!#$%&'*+.^_`|~".chars() {
        for name in ["finicity-app-key", "app-key", "x-own-key", "transfer-encoding", "x-real-ip"] {
            let name = name.replace('-', &separator.to_string());
            assert_eq!(forwarded(Method::GET, &[(&name, "evil")]), [], "{name}");
        }
        let name = format!("content{separator}length");
        assert_eq!(forwarded(Method::GET, &[(&name, "1")]), [], "{name}");
    }
}

proptest! {
    #[test]
    fn no_field_named_like_an_injected_one_is_forwarded(
        fields in prop::collection::vec(("[Aa]uthorization|[Ff]inicity[-_][Aa]pp[-_][A-Za-z]{1,8}|[Aa]pp[-_](key|Token)|x-[a-z]{1,5}", "[ -~]{0,20}"), 0..12),
    ) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.trim())).collect();
        for (name, _) in forwarded(Method::GET, &fields) {
            prop_assert!(name.starts_with("x-"), "{}", name);
        }
    }
}
