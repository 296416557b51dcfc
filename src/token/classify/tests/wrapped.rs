//! Encoded responses have the same meaning as plain JSON in UTF-8.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::vendor::coding::encoded::{gzip, raw_deflate, zlib};

const TOKEN: &str = r#"{"access_token":"tok-1","token_type":"Bearer","expires_in":3600}"#;
const LOCKED: &str = r#"{"code":24302,"message":"locked"}"#;

/// Header fields and body of a response.
type Response = (Vec<(&'static str, &'static str)>, Vec<u8>);

/// `body` in every encoding that must be read like the plain one.
fn wrappings(body: &[u8]) -> Vec<Response> {
    let codings = |codings: &[&'static str], body: Vec<u8>| -> Response {
        (codings.iter().map(|coding| ("content-encoding", *coding)).collect(), body)
    };
    let marked = [b"\xef\xbb\xbf", body].concat();
    let spaced = [b"\r\n \t", body, b"\r\n\n"].concat();
    let padded = [gzip(body).as_slice(), b"\0\0\0\0"].concat();
    let members = [gzip(&body[..body.len() / 2]), gzip(&body[body.len() / 2..])].concat();
    let mut forms = vec![
        codings(&["gzip"], gzip(&marked)),
        codings(&["gzip"], padded),
        codings(&["gzip"], members),
        codings(&["deflate"], zlib(&spaced)),
        codings(&["deflate"], raw_deflate(body)),
        codings(&["deflate, gzip"], gzip(&raw_deflate(body))),
    ];
    for name in ["", "identity", " , IDENTITY", "gzip", "X-GZIP", "deflate", "br", "utf-8", "gzip, gzip", "*"] {
        forms.push(codings(&[name], body.to_vec()));
        forms.push(codings(&[name], spaced.clone()));
        forms.push(codings(&[name, "identity"], gzip(body)));
        forms.push(codings(&["gzip", name], gzip(&gzip(body))));
        forms.push(codings(&[name], zlib(body)));
    }
    for body in [marked, spaced, gzip(body), zlib(body), gzip(&gzip(body))] {
        forms.push((vec![("content-type", "text/html; charset=utf-8")], body));
    }
    if let Ok(text) = str::from_utf8(body) {
        let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        forms.push(codings(&["gzip"], gzip(&utf16)));
        forms.push((vec![("content-type", "application/json; charset=utf-16")], utf16));
    }
    forms
}

/// The result that must be the same for every encoding.
fn summary(outcome: Result<IssuedToken, TokenFailure>) -> String {
    match outcome {
        Ok(IssuedToken { token, expires_in, untyped }) => format!("{} {expires_in:?} {untyped}", token.expose()),
        Err(failure) => format!("{failure:?}"),
    }
}

#[track_caller]
fn check_wrapped(status: u16, body: &str) {
    let plain = summary(classify_text(status, &[], body));
    for (headers, wrapped) in wrappings(body.as_bytes()) {
        assert_eq!(summary(classify_bytes(status, &headers, &wrapped)), plain, "{status} {headers:?} {wrapped:?}");
    }
}

#[test]
fn a_token_is_read_in_every_encoding() {
    check_wrapped(200, TOKEN);
    check_wrapped(201, r#"{"access_token":"t","token_type":null,"expires_in":null}"#);
}

#[test]
fn a_rejection_is_read_in_every_encoding_at_any_status() {
    for status in [200, 400, 401, 403, 429, 500, 502, 503, 504] {
        for body in [
            LOCKED,
            r#"{"Errors":{"Error":[{"ReasonCode":"24302,"}]}}"#,
            r#"[{"error":"invalid_client"}]"#,
            "<error><code>24302</code><message>x</message></error>",
            "Invalid (Finicity-App-Key)",
        ] {
            check_wrapped(status, body);
            assert_eq!(
                classify_bytes(status, &[("content-encoding", "gzip")], &gzip(body.as_bytes())).unwrap_err().class,
                FailureClass::Rejected
            );
        }
    }
}

#[test]
fn any_other_error_is_read_in_every_encoding() {
    for (status, body) in [(500, r#"{"code":"1"}"#), (400, r#"{"error":"invalid_scope"}"#), (302, "{}"), (429, "{}")] {
        check_wrapped(status, body);
    }
}

#[test]
fn the_status_decides_if_the_body_is_unreadable() {
    let cut = &gzip(LOCKED.as_bytes())[..20];
    let html = gzip(b"<html>Service Unavailable</html>");
    for body in [cut, &html, b"\x1f\x8b", b"\xff\xff\xff\xff", &[0x78, 0x9c, 0xff, 0xff]] {
        for coding in ["gzip", "deflate", "br", "gzip, br", ""] {
            let class = |status| classify_bytes(status, &[("content-encoding", coding)], body).unwrap_err().class;
            let classes = [401, 403, 429, 302, 503, 200].map(class);
            let expected = [
                FailureClass::Rejected,
                FailureClass::Misconfigured,
                FailureClass::Throttled,
                FailureClass::Redirect,
                FailureClass::Transient,
                FailureClass::Malformed,
            ];
            assert_eq!(classes, expected, "{coding} {body:?}");
            assert!(
                !classify_bytes(500, &[("content-encoding", coding)], body).unwrap_err().readable,
                "{coding} {body:?}"
            );
        }
    }
}

#[test]
fn damaged_data_can_reject_but_yields_no_token() {
    let damaged = |body: &str| {
        let mut body = gzip(body.as_bytes());
        let checksum = body.len() - 8;
        body[checksum] ^= 1;
        body
    };
    let gzipped = [("content-encoding", "gzip")];
    let failure = classify_bytes(200, &gzipped, &damaged(TOKEN)).unwrap_err();
    assert_eq!(failure.class, FailureClass::Malformed);
    assert!(failure.reason.contains("damaged"), "{failure}");
    assert_eq!(classify_bytes(503, &gzipped, &damaged(LOCKED)).unwrap_err().class, FailureClass::Rejected);
    // A complete document without its gzip trailer is accepted: no checksum contradicts it.
    let whole = gzip(TOKEN.as_bytes());
    assert!(classify_bytes(200, &gzipped, &whole[..whole.len() - 8]).is_ok());
}

#[test]
fn a_body_above_the_limit_after_decompression_is_too_large() {
    let fitting = format!("{TOKEN}{}", " ".repeat(MAX_TOKEN_BODY_BYTES - TOKEN.len()));
    let larger = format!("{fitting} ");
    for (coding, encode) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("deflate", zlib), ("deflate", raw_deflate)] {
        let coding = [("content-encoding", coding)];
        assert!(classify_bytes(200, &coding, &encode(fitting.as_bytes())).is_ok(), "{coding:?}");
        let failure = classify_bytes(200, &coding, &encode(larger.as_bytes())).unwrap_err();
        assert_eq!(
            (failure.class, &*failure.reason),
            (FailureClass::Malformed, "the token response is too large"),
            "{coding:?}"
        );
        assert_eq!(failure.disposition, Disposition::Responded);
        let rejection = format!("{}{LOCKED}", " ".repeat(MAX_BODY_BYTES - LOCKED.len()));
        assert_eq!(
            classify_bytes(503, &coding, &encode(rejection.as_bytes())).unwrap_err().class,
            FailureClass::Rejected
        );
        let bomb = encode(&vec![b'['; 4 * MAX_BODY_BYTES]);
        assert_eq!(classify_bytes(401, &coding, &bomb).unwrap_err().class, FailureClass::Rejected);
        let unread = classify_bytes(503, &coding, &bomb).unwrap_err();
        assert_eq!((unread.class, unread.disposition), (FailureClass::Transient, Disposition::Unknown));
    }
}

/// Values of members of a token response, valid or not.
fn member() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<u32>().prop_map(Value::from),
        (1_u32..100_000).prop_map(|n| json!(f64::from(n))),
        "[ -~]{0,20}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("Bearer")),
        Just(json!([1, {"a": "b"}])),
    ]
}

proptest! {
    #[test]
    fn a_success_is_the_same_in_every_encoding(
        token in "[!-~]{1,40}", typed in prop::option::of(member()), expires_in in prop::option::of(member()),
        others in prop::collection::btree_map("[a-z_]{1,12}", member(), 0..4), is_pretty in any::<bool>(),
    ) {
        let mut body = json!(others);
        body["access_token"] = json!(token);
        for (name, value) in [("token_type", typed), ("expires_in", expires_in)] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let body = if is_pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let plain = summary(classify_text(200, &[], &body));
        for (headers, wrapped) in wrappings(body.as_bytes()) {
            prop_assert_eq!(&summary(classify_bytes(200, &headers, &wrapped)), &plain, "{:?} {}", headers, body);
        }
    }

    #[test]
    fn arbitrary_bytes_are_classified_without_panic(
        status in 200_u16..600, coding in "(gzip|deflate|br|identity|, ?){0,3}", body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        for body in [gzip(&body), zlib(&body), raw_deflate(&body), body] {
            let outcome = classify_bytes(status, &[("content-encoding", &coding)], &body);
            prop_assert!(outcome.is_err_and(|failure| failure.class != FailureClass::Rejected || status == 401));
        }
    }
}
