use std::time::UNIX_EPOCH;

use super::*;

mod wrapped;

fn classify_text(status: u16, headers: &[(&str, &str)], body: &str) -> Result<IssuedToken, TokenFailure> {
    classify_bytes(status, headers, body.as_bytes())
}

fn classify_bytes(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<IssuedToken, TokenFailure> {
    let headers: HeaderMap =
        headers.iter().map(|(n, v)| (n.parse::<header::HeaderName>().unwrap(), v.parse().unwrap())).collect();
    let response = TokenResponse { status: StatusCode::from_u16(status).unwrap(), headers: &headers, body: Some(body) };
    classify(&response, "access_token", UNIX_EPOCH + Duration::from_secs(784_111_777))
}

#[track_caller]
fn check(status: u16, body: &str, class: FailureClass) {
    let failure = classify_text(status, &[], body).expect_err(body);
    assert_eq!(failure.class, class, "{status} {body}");
}

#[track_caller]
fn check_lifetime(expires_in: &str, expected: Option<u64>) {
    let body = format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{expires_in}}}"#);
    match (classify_text(200, &[], &body), expected) {
        (Ok(issued), Some(seconds)) => {
            assert_eq!(issued.expires_in, Some(Duration::from_secs(seconds)), "{expires_in}");
        }
        (Err(failure), None) => assert_eq!(failure.class, FailureClass::Malformed, "{expires_in}"),
        (other, _) => panic!("{expires_in}: {other:?}"),
    }
}

#[test]
fn a_valid_response_yields_a_token() {
    let issued = classify_text(
        200,
        &[],
        r#"{"access_token":"aB-._~+/=1","token_type":"bearer","expires_in":3600,"refresh_token":"r"}"#,
    );
    let issued = issued.unwrap();
    assert_eq!(issued.token.expose(), "aB-._~+/=1");
    assert_eq!(issued.expires_in, Some(Duration::from_secs(3600)));
    assert!(!issued.untyped);
}

#[test]
fn m01_m02_m05_a_lifetime_is_a_positive_integer_or_absent() {
    for (value, expected) in [("3600", Some(3600)), ("\"3600\"", Some(3600)), ("3600.0", Some(3600)), ("1", Some(1))] {
        check_lifetime(value, expected);
    }
    check_lifetime("99999999999999999999999", Some(u64::MAX));
    check_lifetime("\"99999999999999999999999\"", Some(u64::MAX));
    for value in ["0", "-1", "3600.5", "true", "[]", "\"\"", "\"1h\"", "\"-1\"", "\" 3600\""] {
        check_lifetime(value, None);
    }
    for absent in [r#"{"access_token":"t","token_type":"Bearer"}"#, r#"{"access_token":"t","expires_in":null}"#] {
        assert_eq!(classify_text(200, &[], absent).unwrap().expires_in, None, "{absent}");
    }
}

#[test]
fn m07_a_token_not_valid_in_a_header_is_malformed() {
    for token in [r"t\r\nX: y", r"t\n", r"a b", "t\u{f6}k", r"t\u0000", r#"a\"b"#, "", r"a\\b"] {
        check(200, &format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#), FailureClass::Malformed);
    }
    check(200, r#"{"access_token":5,"token_type":"Bearer"}"#, FailureClass::Malformed);
    check(200, r#"{"token_type":"Bearer"}"#, FailureClass::Malformed);
}

#[test]
fn m08_a_long_token_is_accepted() {
    let body = format!(r#"{{"access_token":"{}","token_type":"Bearer"}}"#, "a".repeat(8192));
    assert_eq!(classify_text(200, &[], &body).unwrap().token.expose().len(), 8192);
}

#[test]
fn m09_the_type_is_bearer_in_any_case_or_missing() {
    for (kind, good) in [("\"Bearer\"", true), ("\"BEARER\"", true), ("\"mac\"", false), ("null", true), ("1", false)] {
        let body = format!(r#"{{"access_token":"t","token_type":{kind}}}"#);
        assert_eq!(classify_text(200, &[], &body).is_ok(), good, "{kind}");
    }
    for absent in [r#"{"access_token":"t"}"#, r#"{"access_token":"t","token_type":null}"#] {
        assert!(classify_text(200, &[], absent).unwrap().untyped, "{absent}");
    }
}

#[test]
fn m12_m17_m18_a_rejection_in_the_body_counts_at_any_status() {
    for status in [200, 400, 401, 403, 404, 429, 500, 503] {
        for body in [
            r#"{"error":"invalid_client"}"#,
            r#"{"error":"unauthorized_client","error_description":"x"}"#,
            r#"{"error":"invalid_grant"}"#,
            r#"{"code":24302,"message":"locked"}"#,
            r#"{"code":"10001"}"#,
            r#"{"code":"10021","status":"401"}"#,
            r#"{"code":12401}"#,
            r#"{"code":"10026"}"#,
            r#"{"code":"10027"}"#,
            r#"{"Errors":{"Error":[{"reasonCode":10001}]}}"#,
            r#"{"Errors":{"Error":[{"ReasonCode":"10001,"}]}}"#,
            r#"[{"code":24302}]"#,
            r#"{"Errors":{"Error":{"reasonCode":"24302"}}}"#,
            r#"{"error":{"code":24302.0}}"#,
            r#"{"errors":[{"code":"24302.0"}]}"#,
            "\u{feff}{\"code\":24302}",
            "\r\n\t {\"code\":24302}\r\n",
            "Invalid (Finicity-App-Key)",
        ] {
            check(status, body, FailureClass::Rejected);
        }
    }
    check(401, "", FailureClass::Rejected);
    check(401, "<html>", FailureClass::Rejected);
}

#[test]
fn m17_a_rejection_in_legacy_xml_is_recognised() {
    for status in [200, 401, 500] {
        for code in ["24302", "10001", "10021", "12401", "10026", "10027"] {
            let body = format!("<error><code>{code}</code><message>canary</message></error>");
            let failure = classify_text(status, &[], &body).unwrap_err();
            assert_eq!(
                (failure.class, failure.code.as_deref()),
                (FailureClass::Rejected, Some(code)),
                "{status} {body}"
            );
            assert!(!format!("{failure} {failure:?}").contains("canary"), "{failure:?}");
        }
        check(500, "<error><code>14006</code><message>x</message></error>", FailureClass::Transient);
    }
}

#[test]
fn m14_m16_m19_the_status_counts_without_a_body_code() {
    for (status, class) in [
        (400, FailureClass::Misconfigured),
        (403, FailureClass::Misconfigured),
        (404, FailureClass::Misconfigured),
        (405, FailureClass::Misconfigured),
        (415, FailureClass::Misconfigured),
        (429, FailureClass::Throttled),
        (408, FailureClass::Transient),
        (425, FailureClass::Transient),
        (500, FailureClass::Transient),
        (502, FailureClass::Transient),
        (503, FailureClass::Transient),
        (504, FailureClass::Transient),
        (302, FailureClass::Redirect),
        (307, FailureClass::Redirect),
        (308, FailureClass::Redirect),
    ] {
        check(status, r#"{"code":"10005","message":"x"}"#, class);
        check(status, "", class);
    }
    check(400, r#"{"error":"invalid_scope"}"#, FailureClass::Misconfigured);
}

#[test]
fn m22_a_success_without_a_usable_body_is_malformed() {
    for body in ["", "null", "[]", "{", "<access><token>t</token></access>", r#"{"error":"temporarily_unavailable"}"#] {
        check(200, body, FailureClass::Malformed);
    }
    for body in [r#"[{"access_token":"t"}]"#, r#"{"access_token":null}"#, r#"{"access_token":["t"]}"#, "\"t\""] {
        check(200, body, FailureClass::Malformed);
    }

    let too_large = TokenResponse { status: StatusCode::OK, headers: &HeaderMap::new(), body: None };
    assert_eq!(classify(&too_large, "access_token", UNIX_EPOCH).unwrap_err().class, FailureClass::Malformed);
}

#[test]
fn m20_retry_after_is_seconds_or_a_date() {
    let requested =
        |value: &str| classify_text(429, &[("retry-after", value)], "").unwrap_err().retry_after.map(|d| d.as_secs());
    assert_eq!(requested("120"), Some(120));
    assert_eq!(requested("Sun, 06 Nov 1994 08:49:57 GMT"), Some(20));
    assert_eq!(requested("Sun, 06 Nov 1994 08:49:07 GMT"), None);
    for beyond in ["18446744073709551616", "99999999999999999999999999999999999999"] {
        assert_eq!(requested(beyond), Some(u64::MAX), "{beyond}");
    }
    let twice = [("retry-after", "5"), ("retry-after", "soon"), ("retry-after", "Sun, 06 Nov 1994 08:49:57 GMT")];
    assert_eq!(classify_text(429, &twice, "").unwrap_err().retry_after, Some(Duration::from_secs(20)));
    for nonsense in ["-1", "+1", "soon", "1.5", "1e3", "5, 5", ""] {
        assert_eq!(requested(nonsense), None, "{nonsense}");
    }
}

#[test]
fn l09_a_failure_shows_only_a_known_code_from_the_body() {
    for body in [
        r#"{"code":"canary","error":"canary","message":"canary","Errors":{"Error":[{"reasonCode":"canary"}]}}"#,
        r#"{"access_token":"canary canary","token_type":"Bearer"}"#,
        "canary",
    ] {
        for status in [200, 401, 500] {
            let failure = classify_text(status, &[], body).unwrap_err();
            assert!(!format!("{failure} {failure:?}").contains("canary"), "{failure:?}");
        }
    }
    let failure = classify_text(500, &[], r#"{"code":24302,"message":"canary"}"#).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the token endpoint returned 500 with code 24302: it rejected the credentials; correct id, secret and App Key, and check auth.scheme"
    );
}
