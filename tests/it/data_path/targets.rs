//! Request targets: the upstream receives the bytes of the client or nothing, and never a client's token request.

use fastrand::Rng;

use crate::support::{
    client::{Client, Response},
    process::{Process, Proxy, serve_command},
    upstream::{ClosedPort, ReceivedRequest, Reply, Upstream, token, token_response},
};

const OAUTH_PATH: &str = "/oauth/token";
const PARTNER_PATH: &str = "/aggregation/v2/partners/authentication";
const OWN_PATH: &str = "/own/grant";
const REVOCATION_PATH: &str = "/oauth/revoke";

const BEARER_PLACEHOLDER: &str = r#"{"access_token":"finicity-proxy-placeholder","token_type":"Bearer","expires_in":"#;
const PARTNER_PLACEHOLDER: &str = r#"{"token":"finicity-proxy-placeholder"}"#;

/// Distinguishes a client's request from the proxy's own.
const MARK: &str = "X-Caller: 1";

/// Issues a token in the shape of each token endpoint.
fn vendor() -> Upstream {
    Upstream::start_raw(|request| match request.target() {
        OAUTH_PATH | OWN_PATH => Reply::json(&token_response(1, 3600)),
        PARTNER_PATH => Reply::json(&format!(r#"{{"token":"{}"}}"#, token(1))),
        _ => Reply::json("{}"),
    })
}

/// Starts the program with a custom token path and a revocation path.
fn start(upstream: &Upstream) -> Proxy {
    let variables = [("FINICITY__AUTH__TOKEN_PATH", OWN_PATH), ("FINICITY__AUTH__REVOCATION_PATH", REVOCATION_PATH)];
    Proxy::start_with(upstream, &variables)
}

/// Sends a request with a small body on a new connection. Returns `None` if it is closed without a response.
fn send(proxy: &Proxy, method: &str, target: &[u8], lines: &[&str]) -> Option<Response> {
    let mut client = proxy.connect();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let rest = format!(" HTTP/1.1\r\nHost: localhost\r\n{MARK}\r\nContent-Length: 2\r\n{lines}\r\n{{}}");
    client.send([method.as_bytes(), b" ", target, rest.as_bytes()].concat());
    client.read_response(method == "HEAD").ok()
}

/// The requests of clients so far.
fn client_requests(upstream: &Upstream) -> Vec<ReceivedRequest> {
    upstream.received().into_iter().filter(|request| !request.headers("x-caller").is_empty()).collect()
}

/// Spellings of `path` that some servers treat as `path`.
#[expect(clippy::too_many_lines, reason = "a table")]
fn spellings(path: &str) -> Vec<String> {
    const ENDS: [&str; 27] = [
        "",
        "/",
        "//",
        "?",
        "?x=1",
        ";",
        ";x=1",
        ".",
        "%20",
        "+",
        "%3Bx",
        "%3f",
        "%23x",
        ".json",
        "%2f",
        "%5c",
        "\\",
        "/;x",
        "%00",
        "%0a",
        "%0d%0aX:y",
        "/.",
        "/./",
        "%2F%2e",
        "/x/..",
        "/x/%2e%2E",
        "/x/..;/",
    ];
    const SEPARATORS: [&str; 14] =
        ["//", "/./", "\\", "%2f", "%2F", "%5c", "%5C", "%252f", "%255c", "/;x/", ";x/", "/%2e/", "/x/../", "/%20/"];
    const STARTS: [&str; 12] = [
        "/",
        "/.",
        "/..",
        "/x/..",
        "/x/%2e%2e",
        "/x/.%2E",
        "/x/%252e%252e",
        "/;x",
        "/%2e",
        "/x\\..",
        "/%2f",
        "http://localhost",
    ];
    let (parent, name) = path.rsplit_once('/').unwrap();
    let (first, rest) = (path.as_bytes()[1], &path[2..]);
    let encoded: String = path.bytes().skip(1).map(|byte| format!("%{byte:02x}")).collect();
    let mut spellings = vec![
        format!("/{encoded}"),
        format!("%2f{encoded}"),
        format!("/{}", encoded.replace('%', "%25")),
        format!("/%{first:02X}{rest}"),
        format!("/%25{first:02x}{rest}"),
        format!("/%2525{first:02x}{rest}"),
        format!("/%25252525{first:02x}{rest}"),
        path.to_uppercase(),
        path.replace('t', "T"),
        path.replace('k', "\u{212a}"),
        path.replace('a', "\u{ff41}").replace('t', "%EF%BD%94"),
        path.replace('/', "/%E2%80%8B"),
    ];
    spellings.extend(ENDS.map(|end| format!("{path}{end}")));
    spellings.extend(SEPARATORS.map(|separator| format!("{parent}{separator}{name}")));
    spellings.extend(STARTS.map(|start| format!("{start}{path}")));
    spellings
}

#[test]
fn c16_a_token_endpoint_is_never_reached_in_any_spelling() {
    let upstream = vendor();
    let proxy = start(&upstream);
    for path in [OAUTH_PATH, PARTNER_PATH, OWN_PATH, REVOCATION_PATH] {
        for target in spellings(path) {
            for method in ["POST", "PUT", "GET"] {
                let Some(response) = send(&proxy, method, target.as_bytes(), &[]) else { continue };
                let is_placeholder = response.status == 200 && response.text().contains("finicity-proxy-placeholder");
                let as_expected = match response.status {
                    200 => is_placeholder && method == "POST" && path != REVOCATION_PATH,
                    status => [400, 403].contains(&status),
                };
                assert!(as_expected, "{method} {target}: {response:?}");
            }
        }
    }
    assert_eq!(client_requests(&upstream).len(), 0);
    assert_eq!(upstream.received().len(), 1, "the proxy's own token request");
}

#[test]
fn c16_a_post_gets_a_placeholder_and_other_methods_get_403() {
    let upstream = vendor();
    let proxy = start(&upstream);
    let mut client = proxy.connect();
    let body = br#"{"partnerId":"1","partnerSecret":"2"}"#;
    let length = format!("Content-Length: {}", body.len());
    for path in [OAUTH_PATH, OWN_PATH] {
        let response = client.call("POST", path, &[&length], body);
        assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")), "{response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let seconds = response.text().strip_prefix(BEARER_PLACEHOLDER).unwrap().strip_suffix('}').unwrap().to_owned();
        assert!((1..=3570).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
    }
    let response = client.call("POST", PARTNER_PATH, &["Transfer-Encoding: chunked"], b"2\r\n{}\r\n0\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, PARTNER_PLACEHOLDER));
    for (method, path) in [
        ("PUT", PARTNER_PATH),
        ("GET", OAUTH_PATH),
        ("HEAD", OAUTH_PATH),
        ("DELETE", OWN_PATH),
        ("OPTIONS", OAUTH_PATH),
        ("POST", REVOCATION_PATH),
        ("GET", REVOCATION_PATH),
    ] {
        let response = client.call(method, path, &[], b"");
        assert_eq!(
            (response.status, response.header("x-finicity-proxy-error")),
            (403, Some("route_denied")),
            "{method}"
        );
        if method != "HEAD" {
            response.assert_problem(403, "route_denied");
        }
    }
    assert_eq!(client.get("/aggregation/v1/customers").status, 200, "the connection is still usable");
    assert_eq!(upstream.received().len(), 2);
    let line = proxy.process.wait_for_line(|line| line.contains(PARTNER_PATH) && line.contains(r#""POST""#));
    assert!(line.contains(r#""http.response.status_code":200"#) && !line.contains("upstream.first_byte_ms"), "{line}");
    let metrics = proxy.ops().get("/metrics").text();
    assert!(metrics.contains(r#"errors_total{code="route_denied"} 7"#), "{metrics}");
}

#[test]
fn c16_an_xml_client_of_partner_authentication_gets_xml() {
    const XML: &str = "<access><token>finicity-proxy-placeholder</token></access>";
    const CREDENTIALS: &str = "<credentials><partnerId>1</partnerId><partnerSecret>2</partnerSecret></credentials>";
    let with_prolog = format!("\u{feff}<?xml version=\"1.0\"?>\n{CREDENTIALS}");
    let upstream = vendor();
    let proxy = start(&upstream);
    let mut client = proxy.connect();
    let json = r#"{"partnerId":"1","partnerSecret":"2"}"#;
    let xml = Some("application/xml");
    let text_xml = Some("text/xml");
    let is_json = Some("application/json");
    for (fields, body, expected) in [
        // By the format of the request body.
        (&["Content-Type: application/xml"][..], CREDENTIALS, xml),
        (&["content-type: Text/XML; charset=UTF-8", "Accept: */*"], CREDENTIALS, xml),
        (&["Content-Type: application/vnd.finicity+xml"], CREDENTIALS, xml),
        (&["Content-Type: application/x-www-form-urlencoded", "Accept: */*"], CREDENTIALS, xml),
        (&[], &format!(" \r\n{CREDENTIALS}"), xml),
        (&[], &with_prolog, xml),
        (&["Content-Type: application/xml"], "", xml),
        // By `Accept`, which takes precedence.
        (&["Content-Type: application/json", "Accept: application/xml"], json, xml),
        (&["Accept: text/xml"], json, text_xml),
        (&["Accept: application/xml, application/json;q=0.9"], json, xml),
        (&["Accept: application/json;q=0.5, application/xml;q=0.8, */*;q=0.1"], json, xml),
        (&["Accept: application/xml", "Accept: application/json;q=0.1"], json, xml),
        (&["Content-Type: application/xml", "Accept: application/json"], CREDENTIALS, is_json),
        (&["Content-Type: application/xml", "Accept: application/json, application/xml;q=0.9"], CREDENTIALS, is_json),
        (&["Accept: application/xml;q=0, application/json"], CREDENTIALS, is_json),
        // Both are equally acceptable: as the request body.
        (&["Accept: application/json, application/xml"], json, is_json),
        (&["Accept: application/json, application/xml"], CREDENTIALS, xml),
        (&["Content-Type: application/json", "Accept: application/*"], json, is_json),
        // JSON in all other cases.
        (&["Content-Type: application/json", "Accept: application/json"], json, is_json),
        (&["Content-Type: application/json"], json, is_json),
        (&["Accept: text/html, */*;q=0.8"], json, is_json),
        (&[], "", is_json),
    ] {
        let length = format!("Content-Length: {}", body.len());
        let lines: Vec<&str> = fields.iter().copied().chain([length.as_str()]).collect();
        let response = client.call("POST", PARTNER_PATH, &lines, body.as_bytes());
        let text = if expected == is_json { PARTNER_PLACEHOLDER } else { XML };
        assert_eq!((response.status, response.header("content-type")), (200, expected), "{fields:?} {body}");
        assert_eq!(
            (response.text().as_str(), response.header("cache-control")),
            (text, Some("no-store")),
            "{fields:?} {body}"
        );
    }
    // OAuth 2.0 has no XML.
    let response = client.call("POST", OAUTH_PATH, &["Accept: application/xml", "Content-Length: 0"], b"");
    assert!(response.text().starts_with(BEARER_PLACEHOLDER), "{response:?}");
    assert_eq!(upstream.received().len(), 1, "the proxy's own token request");
}

#[test]
fn c16_each_token_endpoint_has_a_placeholder_of_its_shape() {
    let upstream = vendor();
    let mut command = serve_command(&upstream, &[("FINICITY__AUTH__TOKEN_PATH", PARTNER_PATH)]);
    command.env("FINICITY__AUTH__SCHEME", "partner").env("FINICITY__AUTH__REVOCATION_PATH", OWN_PATH);
    command.env_remove("FINICITY_CLIENT_ID").env_remove("FINICITY_CLIENT_SECRET");
    command.env("FINICITY_PARTNER_ID", "id").env("FINICITY_PARTNER_SECRET", "secret");
    let process = Process::start(command);
    process.wait_for_log("token obtained");
    let listening = process.wait_for_log("listening");
    let address = listening["proxy"].as_str().unwrap().split(", ").next().unwrap().parse().unwrap();
    let mut client = Client::connect(address);
    let response = client.call("POST", PARTNER_PATH, &["Content-Length: 2"], b"{}");
    assert_eq!((response.status, response.text().as_str()), (200, PARTNER_PLACEHOLDER));
    // The endpoint of the other scheme keeps its own shape.
    let response = client.call("POST", OAUTH_PATH, &["Content-Length: 2"], b"{}");
    assert!(response.text().starts_with(BEARER_PLACEHOLDER), "{response:?}");
}

#[test]
fn c16_a_token_request_without_a_token_gets_the_usual_error() {
    let (upstream, dead) = (vendor(), ClosedPort::new());
    let url = dead.url();
    let proxy = Proxy::launch(&upstream, &[("FINICITY__UPSTREAM__URL", &url), ("FINICITY__AUTH__TOKEN_WAIT", "100ms")]);
    let response = send(&proxy, "POST", OAUTH_PATH.as_bytes(), &[]).unwrap();
    response.assert_problem(503, "token_unavailable");
    assert!(response.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);

    let upstream = Upstream::start_raw(|_| Reply::status(401, "Unauthorized", "{}"));
    let proxy = Proxy::launch(&upstream, &[]);
    proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
    let response = send(&proxy, "POST", PARTNER_PATH.as_bytes(), &[]).unwrap();
    response.assert_problem(503, "credentials_rejected");
    assert!(response.header("retry-after").is_some());
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn c16_a_token_request_body_is_discarded_and_not_logged() {
    let upstream = vendor();
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__LOG__LEVEL", "trace")]);
    let mut client = proxy.connect();
    for round in 0..3 {
        // Head and body in two writes, as many clients send them: the response must not close the connection between them.
        client.send(format!(
            "POST {OAUTH_PATH}?client_id=old-canary HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\nAuthorization: Basic old-canary\r\n\r\n"
        ));
        client.send(b"client_secret=old-canary&padding=padding");
        assert_eq!(client.read_response(false).unwrap().status, 200, "{round}");
        let expecting = "Content-Length: 10\r\nExpect: 100-continue\r\n";
        client.send(format!("POST {OAUTH_PATH} HTTP/1.1\r\nHost: localhost\r\n{expecting}\r\n"));
        assert_eq!(client.read_response(false).unwrap().status, 100);
        client.send(b"old-canary");
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    proxy.process.wait_for_lines(6, |line| line.contains(r#""message":"request""#));
    let output = proxy.process.output();
    assert!(output.contains(r#""level":"TRACE""#) && !output.contains("old-canary"), "{output}");
    assert_eq!(upstream.received().len(), 1);

    // At most 64 KiB are read; the rest is not waited for.
    let mut client = proxy.connect();
    client.send(format!("POST {OAUTH_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"));
    client.send(vec![b'x'; 64 * 1024 + 1]);
    assert_eq!(client.read_response(false).unwrap().status, 200);
    client.assert_closed();
}

/// The targets in docs/faults.md, and similar ones.
const NASTY: [&str; 58] = [
    "http://evil.example/x",
    "http://u:p@localhost/x",
    "https://evil.example:443/x?y",
    "HTTP://localhost/x",
    "evil.example:443",
    "localhost",
    "admin",
    "*",
    "//evil.example/x",
    "///x",
    "/\\evil.example/x",
    "\\\\evil.example/x",
    "@evil.example/",
    ".evil.example/",
    ":8443/x",
    "?x",
    "/@evil.example/",
    "/.evil.example/x",
    "/:8443/x",
    "/x@evil.example:443/y",
    "/http://evil.example/x",
    "/allowed/../secret",
    "/allowed/%2e%2e/secret",
    "/allowed/.%2E/secret",
    "/./secret",
    "/allowed/..;x/secret",
    "/allowed%2f..%2fsecret",
    "/allowed\\..\\secret",
    "/allowed/%252e%252e/secret",
    "/..",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a%5Cb",
    "/a%255cb",
    "/a%252e%252eb",
    "/%2f%2fevil.example",
    "/%5c%5cevil.example",
    "/a\tb",
    "/\u{e9}",
    "/caf%C3%A9",
    "/a%zz",
    "/a%",
    "/a%00b",
    "/a%0d%0aX:y",
    "/a%ffb",
    "/a%c0%afb",
    "/a\\b",
    "/a//b///c/",
    "/a;b=c;d/e",
    "/a|b{c}\"d\"[e]^f`g",
    "/x?",
    "/x??a=b?c",
    "/x?a=%zz&b=%00&c=../..&d=//e&f=\\",
    "/x?\u{e9}",
    "/x?a b",
    "/UPPER/lower?A=a",
    "/a+b%20c%2B",
];

#[test]
fn c08_the_upstream_sees_the_same_bytes_or_nothing() {
    const PIECES: [&str; 24] = [
        "/",
        "/",
        "//",
        "\\",
        ".",
        "..",
        "%2e",
        "%2F",
        "%5c",
        "%25",
        "?",
        "=",
        ";",
        ":",
        "@",
        "%",
        "%00",
        "\u{e9}",
        "%C3%A9",
        "evil.example",
        "x",
        "Y",
        "+",
        "*",
    ];
    let upstream = vendor();
    let proxy = start(&upstream);
    let mut random = Rng::with_seed(8);
    let generated = (0..300).map(|_| {
        (0..random.usize(1..9)).fold("/x".to_owned(), |target, _| target + PIECES[random.usize(..PIECES.len())])
    });
    let targets: Vec<String> = NASTY.iter().map(|target| (*target).to_owned()).chain(generated).collect();
    let mut forwarded = 0;
    for target in &targets {
        let response = send(&proxy, "GET", target.as_bytes(), &[]);
        let seen = client_requests(&upstream).split_off(forwarded);
        match (response.map(|response| response.status), seen.as_slice()) {
            (Some(200), [request]) => {
                forwarded += 1;
                let line: String = format!("GET {target} HTTP/1.1").bytes().map(char::from).collect();
                assert_eq!(request.head.split("\r\n").next(), Some(line.as_str()));
                assert_eq!(request.headers("host"), [upstream.authority()], "{target}");
            }
            (Some(400) | None, []) => {}
            other => panic!("{target}: {other:?}"),
        }
    }
    assert!(forwarded > 50 && forwarded < targets.len() - 50, "{forwarded}");
}

#[test]
fn c09_c10_c13_dot_segments_get_400_encoded_separators_pass() {
    let upstream = vendor();
    let proxy = start(&upstream);
    for target in ["/a/../b", "/a/%2e%2e/b", "/a/.%2E/b", "/./b", "/a%zz", "/a%00b", "/a%0d%0aX:y", "//evil.example/x"]
    {
        send(&proxy, "GET", target.as_bytes(), &[]).unwrap().assert_problem(400, "bad_request");
    }
    for target in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%255cb", "/a%252e%252eb", "/caf%C3%A9/x"] {
        assert_eq!(send(&proxy, "GET", target.as_bytes(), &[]).unwrap().status, 200, "{target}");
        assert_eq!(client_requests(&upstream).last().unwrap().target(), target);
    }
}

#[test]
fn c15_d11_d12_routing_headers_have_no_effect() {
    let upstream = vendor();
    let proxy = start(&upstream);
    let lines = [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Uri: /oauth/token",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Proto: http",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-HTTP-Method-Override: TRACE",
        "Forwarded: host=evil.example",
        "Via: 1.1 evil.internal",
        "X-Forwarded-For: 10.1.2.3",
    ];
    assert_eq!(send(&proxy, "GET", b"/x", &lines).unwrap().status, 200);
    let request = client_requests(&upstream).pop().unwrap();
    assert!(request.head.starts_with("GET /x HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.headers("host"), [upstream.authority()]);
    assert!(!request.head.contains("evil") && !request.head.contains("10.1.2.3"), "{}", request.head);
}

#[test]
fn c17_no_path_and_no_user_agent_is_special() {
    let upstream = vendor();
    let proxy = start(&upstream);
    let probe = "User-Agent: kube-probe/1.30";
    for target in ["/livez", "/readyz", "/startupz", "/metrics", "/api/status"] {
        assert_eq!(send(&proxy, "GET", target.as_bytes(), &[probe]).unwrap().status, 200);
        assert_eq!(client_requests(&upstream).last().unwrap().target(), target, "forwarded like any other target");
    }
    let mut client = proxy.connect();
    client.send(format!("GET /livez HTTP/1.1\r\nHost: evil.example\r\n{probe}\r\n\r\n"));
    client.read_response(false).unwrap().assert_problem(421, "host_denied");
    assert_eq!(proxy.ops().get("/aggregation/v1/customers").status, 404, "the ops port forwards nothing");
}

#[test]
fn d13_an_invalid_request_id_is_replaced_everywhere() {
    let upstream = vendor();
    let proxy = start(&upstream);
    for strange in ["x".repeat(300), r"a\r\nb: c".to_owned(), "%0d%0aX:y".to_owned()] {
        let response = send(&proxy, "GET", b"/x", &[&format!("X-Request-Id: {strange}")]).unwrap();
        let id = response.header("x-request-id").unwrap();
        assert!(
            !id.is_empty()
                && id.len() <= 64
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
            "{id}"
        );
        proxy.process.wait_for_line(|line| line.contains(&format!(r#""request_id":"{id}""#)));
        assert!(!proxy.process.output().contains(&strange));
    }
}
