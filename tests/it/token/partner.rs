//! Partner authentication, and the other encodings of OAuth 2.0 token requests.

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET,
    process::{Process, serve_command},
    upstream::{Reply, Upstream, token_response},
};

const PARTNER_PATH: &str = "/aggregation/v2/partners/authentication";

/// Starts the program with partner credentials only.
fn start(upstream: &Upstream, variables: &[(&str, &str)]) -> (Process, std::net::SocketAddr) {
    let mut command = serve_command(upstream, variables);
    command.env_remove("FINICITY_CLIENT_ID").env_remove("FINICITY_CLIENT_SECRET");
    command.env("FINICITY_PARTNER_ID", CLIENT_ID).env("FINICITY_PARTNER_SECRET", CLIENT_SECRET);
    let process = Process::start(command);
    process.wait_for_log("token obtained");
    let listening = process.wait_for_log("listening");
    let address = listening["proxy"].as_str().unwrap().split(", ").next().unwrap().parse().unwrap();
    (process, address)
}

fn vendor() -> Upstream {
    Upstream::start_raw(|request| match request.target() {
        PARTNER_PATH => Reply::json(r#"{"token":"canarytoken1"}"#),
        _ => Reply::json("{}"),
    })
}

#[test]
fn partner_credentials_select_partner_authentication() {
    let upstream = vendor();
    let (process, address) = start(&upstream, &[]);
    let lines = ["Finicity-App-Token: evil", "Authorization: Bearer evil"];
    assert_eq!(crate::support::client::Client::connect(address).call("GET", "/x", &lines, b"").status, 200);
    let received = upstream.received();
    let (call, request) = (&received[0], &received[1]);
    assert!(call.head.starts_with(&format!("POST {PARTNER_PATH} HTTP/1.1\r\n")));
    let expected = format!(r#"{{"partnerId":"{CLIENT_ID}","partnerSecret":"{CLIENT_SECRET}"}}"#);
    assert_eq!(String::from_utf8_lossy(&call.body), expected);
    assert_eq!((call.headers("finicity-app-key"), call.headers("accept")), (vec![APP_KEY], vec!["application/json"]));
    assert_eq!(request.headers("finicity-app-token"), ["canarytoken1"]);
    assert_eq!((request.headers("finicity-app-key"), request.headers("authorization")), (vec![APP_KEY], vec![]));
    let line = &process.logs("token obtained")[0];
    assert_eq!((line["scheme"].as_str(), line["usable_for_s"].as_u64()), (Some("partner"), Some(7169)));
}

#[test]
fn header_names_of_australia_are_configurable() {
    let upstream = vendor();
    let names = [("FINICITY__AUTH__APP_KEY_HEADER", "App-Key"), ("FINICITY__AUTH__TOKEN_HEADER", "App-Token")];
    let (_process, address) = start(&upstream, &names);
    crate::support::client::Client::connect(address).call("GET", "/x", &["App_Token: evil"], b"");
    let received = upstream.received();
    assert_eq!(received[0].headers("app-key"), [APP_KEY]);
    assert_eq!(
        (received[1].headers("app-key"), received[1].headers("app-token")),
        (vec![APP_KEY], vec!["canarytoken1"])
    );
    assert!(
        received.iter().all(|request| request.headers("finicity-app-key").is_empty() && !request.head.contains("evil"))
    );
}

#[test]
fn two_kinds_of_credentials_need_auth_scheme() {
    let upstream = vendor();
    let both = [("FINICITY_PARTNER_ID", CLIENT_ID), ("FINICITY_PARTNER_SECRET", CLIENT_SECRET)];
    let mut process = Process::start(serve_command(&upstream, &both));
    assert_eq!(process.wait().code(), Some(78));
    assert!(process.output().contains("set auth.scheme"), "{}", process.output());
    let with_scheme = [&both[..], &[("FINICITY__AUTH__SCHEME", "partner")]].concat();
    Process::start(serve_command(&upstream, &with_scheme)).wait_for_log("token obtained");
}

#[test]
fn oauth2_supports_form_and_basic_encodings() {
    for (encoding, authorization, body) in [
        (
            "form",
            false,
            "grant_type=client_credentials&client_id=canary-client-4f1d&client_secret=canary-Secret%2B9b%2F2%3De%21",
        ),
        ("basic", true, "grant_type=client_credentials"),
    ] {
        let upstream = Upstream::start_raw(|_| Reply::json(&token_response(1, 3600)));
        let process = Process::start(serve_command(&upstream, &[("FINICITY__AUTH__ENCODING", encoding)]));
        process.wait_for_log("token obtained");
        let call = &upstream.received()[0];
        assert_eq!(String::from_utf8_lossy(&call.body), body);
        assert_eq!(call.headers("content-type"), ["application/x-www-form-urlencoded"]);
        assert_eq!(call.headers("authorization").iter().any(|value| value.starts_with("Basic ")), authorization);
    }
}

#[test]
fn extra_headers_are_sent_to_operations_that_document_them() {
    const NAMED: &str = "/data-sharing-consents";
    const OTHER: &str = "/aggregation/v1/customers";
    for (extra_headers, expected) in [
        ("auto", [(NAMED, true), (OTHER, false)]),
        ("always", [(NAMED, true), (OTHER, true)]),
        ("never", [(NAMED, false), (OTHER, false)]),
    ] {
        let upstream = vendor();
        let (_process, address) = start(&upstream, &[("FINICITY__AUTH__EXTRA_HEADERS", extra_headers)]);
        let mut client = crate::support::client::Client::connect(address);
        for (target, _) in expected {
            let lines = ["App-Key: evil", "app_token: evil", "Finicity-App-Token: evil"];
            assert_eq!(client.call("GET", target, &lines, b"").status, 200);
        }
        let received = &upstream.received()[1..];
        for (request, (target, has_extra)) in received.iter().zip(expected) {
            assert_eq!(request.target(), target);
            assert_eq!(request.headers("finicity-app-key"), [APP_KEY]);
            assert_eq!(request.headers("finicity-app-token"), ["canarytoken1"]);
            assert_eq!(request.headers("app-key"), [APP_KEY].repeat(usize::from(has_extra)));
            assert_eq!(request.headers("app-token"), ["canarytoken1"].repeat(usize::from(has_extra)));
            assert!(!request.head.contains("evil"), "{}", request.head);
        }
        assert!(upstream.received()[0].headers("app-key").is_empty(), "the token request has only one of the headers");
    }
}

#[test]
fn an_oauth2_token_is_sent_in_authorization_only() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = crate::support::process::Proxy::start_with(&upstream, &[("FINICITY__AUTH__EXTRA_HEADERS", "always")]);
    assert_eq!(proxy.connect().get("/data-sharing-consents").status, 200);
    let request = &upstream.requests()[0];
    assert!(request.headers("app-key").is_empty() && request.headers("app-token").is_empty());
}
