use std::time::Duration;

use super::{oauth2::Encoding, *};
use crate::{
    credentials::AppKey,
    secret::Secret,
    token::tests::{config, credentials},
};

fn text(request: &TokenRequest) -> (Vec<(&str, &str)>, &str) {
    let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    (headers, std::str::from_utf8(&request.body).unwrap())
}

fn issued(untyped: bool) -> IssuedToken {
    IssuedToken { token: "tok".into(), expires_in: Some(Duration::from_secs(5)), untyped }
}

fn special(scheme: Scheme) -> Credentials {
    let secret = Secret::from("s\"3\\cr:t\u{e9}&=+ ");
    Credentials { scheme, id: "id:1".into(), secret, app_key: AppKey::new("key".into()).unwrap() }
}

#[test]
fn p03_oauth2_in_json_is_the_specified_body() {
    let request = token_request(&special(Scheme::OAuth2), &config());
    let (headers, body) = text(&request);
    let expected = r#"{"client_id":"id:1","client_secret":"s\"3\\cr:té&=+ ","grant_type":"client_credentials"}"#;
    assert_eq!((request.path.as_str(), body), ("/oauth/token", expected));
    assert_eq!(
        headers,
        [
            ("content-type", "application/json"),
            ("finicity-app-key", "key"),
            ("accept", "application/json"),
            ("accept-encoding", "identity")
        ]
    );
    let scoped = Config { scope: Some("a b".to_owned()), token_path: Some("/t".to_owned()), ..config() };
    let request = token_request(&special(Scheme::OAuth2), &scoped);
    assert!(text(&request).1.ends_with(r#","scope":"a b"}"#) && request.path == "/t");
}

#[test]
fn oauth2_form_and_basic_follow_the_rfc() {
    let form = Config { encoding: Encoding::Form, scope: Some("a b".to_owned()), ..config() };
    let request = token_request(&special(Scheme::OAuth2), &form);
    let (headers, body) = text(&request);
    assert_eq!(headers[0], ("content-type", "application/x-www-form-urlencoded"));
    let fields =
        "grant_type=client_credentials&scope=a+b&client_id=id%3A1&client_secret=s%223%5Ccr%3At%C3%A9%26%3D%2B+";
    assert_eq!(body, fields);

    let request = token_request(&special(Scheme::OAuth2), &Config { encoding: Encoding::Basic, ..config() });
    let (headers, body) = text(&request);
    assert_eq!(body, "grant_type=client_credentials");
    // printf 'id%%3A1:s%%223%%5Ccr%%3At%%C3%%A9%%26%%3D%%2B+' | base64
    assert_eq!(headers[1], ("authorization", "Basic aWQlM0ExOnMlMjIzJTVDY3IlM0F0JUMzJUE5JTI2JTNEJTJCKw=="));
    assert!(request.headers[1].1.is_sensitive());
}

#[test]
fn partner_request_matches_the_vendor_documentation() {
    let request = token_request(&special(Scheme::Partner), &config());
    let (headers, body) = text(&request);
    assert_eq!(request.path, "/aggregation/v2/partners/authentication");
    assert_eq!(body, r#"{"partnerId":"id:1","partnerSecret":"s\"3\\cr:té&=+ "}"#);
    assert_eq!(
        headers,
        [
            ("content-type", "application/json"),
            ("finicity-app-key", "key"),
            ("accept", "application/json"),
            ("accept-encoding", "identity")
        ]
    );
}

#[test]
fn d07_auth_headers_follow_the_scheme_and_are_sensitive() {
    let fields = |scheme, config: &Config| {
        let auth_headers = auth_headers(&credentials(scheme, "id", "secret"), config, &issued(true));
        assert!(auth_headers.headers.iter().all(|(_, value)| value.is_sensitive()));
        assert!(!format!("{auth_headers:?}").contains("tok\""));
        assert_eq!(auth_headers.untyped, scheme == Scheme::OAuth2);
        auth_headers.headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
    };
    assert_eq!(fields(Scheme::OAuth2, &config()), ["finicity-app-key: key", "authorization: Bearer tok"]);
    assert_eq!(fields(Scheme::Partner, &config()), ["finicity-app-key: key", "finicity-app-token: tok"]);
    let australia = Config {
        app_key_header: HeaderName::from_static("app-key"),
        token_header: HeaderName::from_static("app-token"),
        ..config()
    };
    assert_eq!(fields(Scheme::Partner, &australia), ["app-key: key", "app-token: tok"]);
    assert_eq!(token_request(&special(Scheme::Partner), &australia).headers[1].0, "app-key");
}

#[test]
fn a_token_is_revoked_only_if_a_revocation_path_is_set() {
    let bearer = HeaderValue::from_static("Bearer tok");
    let credentials = credentials(Scheme::OAuth2, "id", "secret");
    assert!(revocation_request(&credentials, &config(), &bearer).is_none());
    let config = Config { revocation_path: Some("/oauth/revoke".to_owned()), ..config() };
    let request = revocation_request(&credentials, &config, &bearer).unwrap();
    assert_eq!(request.path, "/oauth/revoke");
    assert!(text(&request).0.contains(&("accept-encoding", "identity")));
    assert_eq!(text(&request).1, "token=tok&token_type_hint=access_token&client_id=id&client_secret=secret");
}

#[test]
fn l11_a_request_body_is_never_reallocated() {
    let text = "\u{1}".repeat(1000);
    let body = json(&[&text], &[&text]);
    assert!(body.len() > 6000 && body.capacity() == 6000 + NAMES_AND_PUNCTUATION, "{}", body.capacity());
    let credentials = credentials(Scheme::OAuth2, &text, &text);
    let (_, body) = oauth2::token_request(&credentials, Encoding::Form, Some(&text));
    assert!(body.len() > 9000, "{}", body.len());
    assert_eq!(body.capacity(), 9000 + 3 * "client_credentials".len() + NAMES_AND_PUNCTUATION);
}
