use std::convert::Infallible;

use bytes::Bytes;
use fastrand::Rng;
use http::Response;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const TOKEN_PATHS: [&str; 4] =
    ["/oauth/token", "/aggregation/v2/partners/authentication", "/own/grant", "/oauth/revoke"];

fn endpoints() -> AuthEndpoints {
    AuthEndpoints::new(Some("/own/grant"), Some("/oauth/revoke"))
}

fn classified(method: &str, target: &str) -> Result<RequestAction, Code> {
    let mut request = Request::builder().method(method).uri(target).body(()).unwrap();
    classify(&endpoints(), &mut request).map_err(|error| error.code())
}

#[test]
fn c10_unambiguous_paths_are_forwarded() {
    for path in [
        "/",
        "/a/b?c=d&e=%2F",
        "/aggregation/v1/customers?username=&type=",
        "/a//b/?x=/../y#",
        "/x?%00%zz%2e%2e/..",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%255cb",
        "/a%252e%252eb",
        "/a\\b",
        "/caf%C3%A9",
        "/é?é",
        "/a;b=c/d,e/(f)'g'*h!i~j$k&l=m:n@o",
        "/oauth/tokens",
        "/oauth/token/x",
        "/?/oauth/token",
    ] {
        assert_eq!(classified("GET", path), Ok(RequestAction::Forward), "{path}");
    }
}

#[test]
fn c01_c02_c03_c05_c07_targets_other_than_a_path_are_rejected() {
    for target in [
        "http://evil.example/x",
        "https://u:p@localhost/x",
        "http://localhost",
        "evil.example:443",
        "u:p@localhost:1",
        "admin",
        "*",
        "//evil.example/x",
        "/\\evil.example/x",
        "///x",
        "//",
    ] {
        assert_eq!(classified("GET", target), Err(Code::BadRequest), "{target}");
    }
    // hyper rejects these before they reach this layer.
    for target in ["@evil.example/", ".evil.example/x", ":8443/x", "?x", "/a b", "/a\tb", "/<x>", ""] {
        assert!(target.parse::<Uri>().is_err(), "{target}");
    }
}

#[test]
fn c09_c13_ambiguous_paths_are_rejected() {
    for path in ["/a/../b", "/a/%2e%2E/b", "/./a", "/a/..;x/b", "/a%zz", "/a%00b", "/a%0d%0aX:y", "/%c0%af", "/a;b%2fc"]
    {
        assert_eq!(classified("GET", path), Err(Code::BadRequest), "{path}");
    }
}

#[test]
fn e01_e02_c04_methods_outside_the_list_are_rejected() {
    for method in ALLOWED_METHODS.split(", ") {
        assert_eq!(classified(method, "/x"), Ok(RequestAction::Forward), "{method}");
    }
    for method in ["TRACE", "CONNECT", "get", "FOO", "PRI"] {
        for target in ["/x", "*", "/oauth/token", "evil.example:443"] {
            assert_eq!(classified(method, target), Err(Code::MethodNotAllowed), "{method} {target}");
        }
    }
}

#[test]
fn c16_token_endpoints_accept_post_and_revocation_nothing() {
    for (path, action) in [
        ("/oauth/token?x", Ok(RequestAction::TokenRequest(ResponseShape::OAuth2))),
        ("/aggregation/v2/partners/authentication/", Ok(RequestAction::TokenRequest(ResponseShape::Partner))),
        ("/own/%67rant", Ok(RequestAction::TokenRequest(ResponseShape::Configured))),
        ("/oauth/REVOKE", Err(Code::RouteDenied)),
    ] {
        assert_eq!(classified("POST", path), action, "{path}");
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert_eq!(classified(method, path), Err(Code::RouteDenied), "{method} {path}");
        }
    }
}

/// The action for a request with these values of `Max-Forwards`, and the values after it.
fn hops(method: &str, target: &str, values: &[&str]) -> (Result<RequestAction, Code>, Vec<String>) {
    let mut request = Request::builder().method(method).uri(target).body(()).unwrap();
    for value in values {
        request.headers_mut().append(header::MAX_FORWARDS, value.parse().unwrap());
    }
    let action = classify(&endpoints(), &mut request).map_err(|error| error.code());
    let left = request.headers().get_all(header::MAX_FORWARDS).iter().map(|value| value.to_str().unwrap().to_owned());
    (action, left.collect())
}

#[test]
fn e03_max_forwards_limits_the_hops_of_options() {
    for (values, left) in [
        (&["5"][..], Some(&["4"][..])),
        (&["1"], Some(&["0"])),
        (&["010"], Some(&["9"])),
        (&["0"], None),
        (&["00"], None),
        (&[], Some(&[])),
        (&[""], Some(&[""])),
        (&["+5"], Some(&["+5"])),
        (&["-1"], Some(&["-1"])),
        (&["many"], Some(&["many"])),
        (&["99999999999999999999"], Some(&["99999999999999999999"])),
        (&["0", "0"], Some(&["0", "0"])),
    ] {
        let (action, after) = hops("OPTIONS", "/x", values);
        match left {
            None => assert_eq!(action, Ok(RequestAction::Options), "{values:?}"),
            Some(left) => assert_eq!(
                (action, after),
                (Ok(RequestAction::Forward), left.iter().map(|v| (*v).to_owned()).collect()),
                "{values:?}"
            ),
        }
        assert_eq!(hops("OPTIONS", "*", values).0, Ok(RequestAction::Options), "{values:?}");
        assert_eq!(hops("OPTIONS", "/../x", values).0, Err(Code::BadRequest), "{values:?}");
        assert_eq!(hops("OPTIONS", "/oauth/token", values).0, Err(Code::RouteDenied), "{values:?}");
    }
    assert_eq!(hops("GET", "/x", &["0"]), (Ok(RequestAction::Forward), vec!["0".to_owned()]));
}

/// The pieces of random targets. No `#`, because hyper drops fragments.
const PIECES: [&str; 40] = [
    "/",
    "//",
    "/",
    "\\",
    ".",
    "..",
    "%2e",
    "%252e",
    "%2f",
    "%5C",
    "%255c",
    "?",
    "&",
    "=",
    ";",
    "%3b",
    ":",
    "@",
    "%",
    "%z",
    "%00",
    "%0a",
    "%ff",
    "%C3%A9",
    "é",
    "http:",
    "https://",
    "evil.example",
    ":443",
    "*",
    "localhost",
    "oauth",
    "token",
    "a",
    "B",
    "1",
    "+",
    "~",
    "[::1]",
    "|",
];

/// A random target of up to ten pieces, mostly a path.
fn random_target(random: &mut Rng) -> String {
    let mut target = if random.u8(..8) > 0 { "/" } else { "" }.to_owned();
    for _ in 0..random.usize(1..=10) {
        target.push_str(PIECES[random.usize(..PIECES.len())]);
    }
    target
}

/// The URI that `request` is forwarded to; `None` if it is not forwarded.
fn forwarded(endpoints: &AuthEndpoints, request: &mut Request<impl Sized>) -> Option<Uri> {
    let authority = Authority::from_static("api.finicity.com");
    let action = classify(endpoints, request).ok()?;
    (action == RequestAction::Forward).then(|| upstream_uri(&authority, request.uri()))
}

#[test]
fn c08_any_target_keeps_the_configured_authority() {
    let (mut random, endpoints) = (Rng::with_seed(8), endpoints());
    let mut count = 0;
    for _ in 0..150_000 {
        let target = random_target(&mut random);
        let Ok(uri) = Uri::from_maybe_shared(Bytes::from(target.clone())) else { continue };
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        if let Some(uri) = forwarded(&endpoints, &mut request) {
            assert_eq!(uri.scheme(), Some(&Scheme::HTTPS), "{target}");
            assert_eq!(uri.authority().map(Authority::as_str), Some("api.finicity.com"), "{target}");
            assert_eq!(uri.path_and_query().map(PathAndQuery::as_str), Some(target.as_str()));
            count += 1;
        }
    }
    assert!(count > 15_000, "only {count} were forwarded");
}

/// Sends a request for `target` through hyper's parser. Returns the URI that it is forwarded to, if any.
async fn parsed(target: &[u8]) -> Option<String> {
    let (mut client, server) = duplex(4096);
    let service = service_fn(|mut request: Request<Incoming>| async move {
        let uri = forwarded(&endpoints(), &mut request).map_or_else(String::new, |uri| uri.to_string());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(uri))))
    });
    let request = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat();
    client.write_all(&request).await.unwrap();
    let mut response = Vec::new();
    let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let (_, read) = tokio::join!(serving, client.read_to_end(&mut response));
    read.unwrap();
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    (head.starts_with("HTTP/1.1 200") && !body.is_empty()).then(|| body.to_owned())
}

#[tokio::test]
async fn c08_any_target_keeps_the_authority_through_hypers_parser() {
    let mut random = Rng::with_seed(88);
    let mut count = 0;
    for _ in 0..5_000 {
        let mut target = random_target(&mut random).into_bytes();
        // Any byte except `#`, and the bytes that end the target and so would make it another request.
        let byte = random.u8(..);
        if !b"# \r\n".contains(&byte) {
            target.insert(random.usize(..=target.len()), byte);
        }
        if let Some(uri) = parsed(&target).await {
            assert_eq!(uri.as_bytes(), [b"https://api.finicity.com", &target[..]].concat(), "{target:?}");
            count += 1;
        }
    }
    assert!(count > 300, "only {count} were forwarded");
}

/// How servers and gateways may split or rewrite a path before they route it.
const READINGS: [fn(&str) -> String; 10] = [
    |path| percent_decode_str(path).decode_utf8_lossy().into_owned(),
    |path| path.to_lowercase(),
    |path| path.replace('\\', "/"),
    |path| path.replace('+', " "),
    |path| by_segment(path, |segment| segment.split(';').next().unwrap_or_default()),
    |path| by_segment(path, |segment| segment.trim_end_matches(['.', ' '])),
    |path| {
        path.split('/').filter(|segment| !segment.is_empty()).fold(String::new(), |path, segment| path + "/" + segment)
    },
    |path| path.split(['?', '#']).next().unwrap_or_default().to_owned(),
    |path| path.strip_suffix(".json").unwrap_or(path).to_owned(),
    |path| without_dots(path),
];

fn by_segment(path: &str, change: impl Fn(&str) -> &str) -> String {
    path.split('/').map(change).collect::<Vec<_>>().join("/")
}

/// RFC 3986, 5.2.4.
fn without_dots(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
}

/// A random spelling of `path` that some server may read as `path`.
fn disguised(path: &str, random: &mut Rng) -> String {
    const EXTRAS: [&str; 20] = [
        "/", "//", ";", ";x=1", "%3b", "%2f", "%5c", "\\", "/.", "/x/..", "/%2e%2e", "%252f", " ", "%20", "+", ".",
        ".json", "%3fx", "%23", "/;x",
    ];
    let mut spelt = String::new();
    for character in path.chars() {
        if random.u8(..16) == 0 {
            spelt.push_str(EXTRAS[random.usize(..EXTRAS.len())]);
        }
        match random.u8(..12) {
            0 => spelt.extend(character.to_uppercase()),
            1 => spelt += &format!("%{:02x}", u32::from(character)),
            2 => spelt += &format!("%25{:02X}", u32::from(character)),
            3 if character == 'k' => spelt.push('\u{212a}'),
            _ => spelt.push(character),
        }
    }
    if random.u8(..4) == 0 {
        spelt.push_str(EXTRAS[random.usize(..EXTRAS.len())]);
    }
    spelt
}

#[test]
fn c16_no_spelling_of_a_token_endpoint_is_forwarded() {
    let (mut random, endpoints) = (Rng::with_seed(16), endpoints());
    let (mut dangerous, mut forwarded_count) = (0, 0);
    for round in 0..40_000 {
        let path = disguised(TOKEN_PATHS[round % TOKEN_PATHS.len()], &mut random);
        let mut read = path.clone();
        for _ in 0..8 {
            read = READINGS[random.usize(..READINGS.len())](&read);
        }
        let is_dangerous = TOKEN_PATHS.contains(&read.to_lowercase().trim_end_matches('/'));
        let Ok(uri) = Uri::from_maybe_shared(Bytes::from(path.clone())) else { continue };
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        let is_forwarded = forwarded(&endpoints, &mut request).is_some();
        assert!(!(is_dangerous && is_forwarded), "{path} can be read as {read}");
        dangerous += usize::from(is_dangerous);
        forwarded_count += usize::from(is_forwarded);
    }
    assert!(dangerous > 4_000 && forwarded_count > 500, "{dangerous}, {forwarded_count}");
}

/// Long paths that are as slow to parse as possible.
#[test]
fn i13_every_path_is_classified_quickly() {
    let endpoints = AuthEndpoints::new(None, None);
    for part in ["/a%2", "/%25", "/%2525", "/a;b", "/.a", "/\u{e9}", "%c3%a9", "/"] {
        let path = format!("/{}", part.repeat(8192 / part.len()));
        let measure = || {
            let started = std::time::Instant::now();
            let _ = endpoints.find(&path);
            started.elapsed()
        };
        // Some milliseconds in a debug build. The minimum of several runs, because a busy machine preempts some of them.
        let quickest = (0..50).map(|_| measure()).min().unwrap();
        assert!(quickest < std::time::Duration::from_millis(50), "{part}: {quickest:?}");
    }
}
