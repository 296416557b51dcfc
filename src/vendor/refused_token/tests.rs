use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::vendor::coding::{
    CodingError,
    encoded::{gzip, raw_deflate, zlib},
};

/// The maximum time to classify a malicious body. It takes a few milliseconds; the rest is for a busy machine.
const SOON: std::time::Duration = std::time::Duration::from_secs(5);

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    fields.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
}

/// Checks the result for `body`, plain and in every coding.
#[track_caller]
fn check(body: &str, expected: bool) {
    for (coding, body) in [
        ("", body.as_bytes().to_vec()),
        ("identity", body.as_bytes().to_vec()),
        ("gzip", gzip(body.as_bytes())),
        ("X-GZip", gzip(body.as_bytes())),
        ("deflate", zlib(body.as_bytes())),
        (" , Deflate", raw_deflate(body.as_bytes())),
    ] {
        assert_eq!(token_refused(&map(&[("content-encoding", coding)]), &body), expected, "{coding} {body:?}");
    }
    assert_eq!(token_refused(&HeaderMap::new(), body.as_bytes()), expected, "{body}");
}

/// Every format of the vendor that can carry `code`.
fn shapes(code: &str) -> Vec<String> {
    vec![
        format!(r#"{{"code":"{code}","message":"m"}}"#),
        format!(r#"{{"code":{code},"status":"401","message":"m","user_message":"u","tags":"t"}}"#),
        format!(
            r#"{{"Errors":{{"Error":[{{"source":"s","reasonCode":{code},"recoverable":false,"details":null}}]}}}}"#
        ),
        format!(r#"{{"Errors":{{"Error":[{{"source":"s","reasonCode":"{code}"}}]}}}}"#),
        format!(r#"{{"Errors":{{"Error":[{{"Source":"s,","ReasonCode":"{code},","Recoverable":"false,"}}]}}}}"#),
        format!("<error><code>{code}</code><message>m</message></error>"),
    ]
}

#[test]
fn o01_a_refused_token_is_found_in_every_format_and_coding() {
    for body in ["10022", "10023", "1503"].into_iter().flat_map(shapes) {
        check(&body, true);
    }
    for body in [
        "Invalid (Finicity-App-Token)",
        "Invalid (App-Token)",
        "Expired (Finicity-App-Token)\n",
        "Expired (App-Token)",
        r#"{"Errors":{"Error":[{"reasonCode":1503},{"reasonCode":10022}]}}"#,
    ] {
        check(body, true);
    }
}

#[test]
fn o02_any_other_401_is_not_about_the_token() {
    for code in ["10001", "10021", "10024", "10026", "10027", "1504", "1502", "12401", "24302", "331", "401", "100230"]
    {
        for body in shapes(code) {
            check(&body, false);
        }
    }
    for body in [
        "",
        "{}",
        "null",
        "10023",
        "Invalid (Finicity-App-Key)",
        "Missing parameter (Finicity-App-Token)",
        "Unauthorized",
        "<html><code>10023</code></html>",
        r#"{"error":"invalid_client"}"#,
        r#"{"error":"invalid_token"}"#,
        r#"{"questions":[{"text":"10023"}],"mfaChallenges":{"code":"10023"}}"#,
        r#"{"message":"Expired (Finicity-App-Token)"}"#,
    ] {
        check(body, false);
    }
}

#[test]
fn a_401_with_another_fault_is_not_about_the_token() {
    for other in ["10024", "10026", "10027", "1504", "10001", "24302", "99999"] {
        check(&format!(r#"{{"Errors":{{"Error":[{{"reasonCode":10023}},{{"ReasonCode":"{other},"}}]}}}}"#), false);
        check(&format!(r#"{{"code":"{other}","Errors":{{"Error":[{{"reasonCode":1503}}]}}}}"#), false);
        check(&format!("<errors><error><code>10022</code></error><error><code>{other}</code></error></errors>"), false);
    }
    check(r#"{"code":"10023","error":"invalid_client"}"#, false);
    check("Invalid (Finicity-App-Token), Invalid (Finicity-App-Key)", false);
}

#[test]
fn an_invalid_token_challenge_counts_without_another_fault() {
    let challenge = ("www-authenticate", r#"Bearer realm="x", error="invalid_token""#);
    for body in ["", "Unauthorized", r#"{"code":401}"#, r#"{"code":"10023"}"#, r#"{"error":"invalid_token"}"#] {
        assert!(token_refused(&map(&[challenge]), body.as_bytes()), "{body}");
    }
    for body in ["10001", "10024", "10026", "10027", "1504", "24302"].into_iter().flat_map(shapes) {
        assert!(!token_refused(&map(&[challenge]), body.as_bytes()), "{body}");
    }
    assert!(!token_refused(&map(&[challenge]), b"Invalid (Finicity-App-Key)"));

    let scope = ("www-authenticate", r#"Bearer error="insufficient_scope""#);
    assert!(!token_refused(&map(&[scope]), br#"{"code":"10023"}"#));
    assert!(!token_refused(&map(&[scope, challenge]), b""));
    assert!(token_refused(&map(&[("www-authenticate", "Bearer")]), br#"{"code":"10023"}"#));
}

#[test]
fn a_body_in_an_unknown_coding_is_not_read() {
    let body = br#"{"code":"10023"}"#;
    let challenge = ("www-authenticate", "Bearer error=invalid_token");
    for coding in ["br", "zstd", "gzip, br", "gzip, gzip", "gzip, deflate", "compress", "g zip", "*"] {
        let coding = ("content-encoding", coding);
        assert!(!token_refused(&map(&[coding]), body), "{coding:?}");
        assert!(!token_refused(&map(&[coding]), &gzip(body)), "{coding:?}");
        assert!(token_refused(&map(&[coding, challenge]), body), "{coding:?}");
    }
}

#[test]
fn several_codings_are_decoded_in_reverse_order() {
    let body = br#"{"code":"10023"}"#;
    for codings in [&["gzip, gzip"][..], &["gzip", "gzip"], &["identity, GZIP , x-gzip"]] {
        let codings: Vec<_> = codings.iter().map(|coding| ("content-encoding", *coding)).collect();
        assert!(token_refused(&map(&codings), &gzip(&gzip(body))), "{codings:?}");
        assert!(!token_refused(&map(&codings), &gzip(body)), "{codings:?}");
    }
    assert!(token_refused(&map(&[("content-encoding", "deflate, gzip")]), &gzip(&zlib(body))));
    assert!(token_refused(&map(&[("content-encoding", "identity, identity")]), body));
}

#[test]
fn a_body_that_does_not_match_its_coding_is_not_read() {
    let body = br#"{"code":"10023"}"#;
    for coding in ["gzip", "deflate"] {
        assert!(!token_refused(&map(&[("content-encoding", coding)]), body), "{coding}");
    }
    assert!(!token_refused(&map(&[("content-encoding", "deflate")]), &gzip(body)));
    assert!(!token_refused(&map(&[("content-encoding", "gzip")]), &zlib(body)));
    assert!(!token_refused(&HeaderMap::new(), &gzip(body)));
}

#[test]
fn f04_a_truncated_body_counts_only_if_its_content_is_complete() {
    let body = br#"{"code":"10023","message":"Expired (Finicity-App-Token)"}"#;
    for end in 0..body.len() {
        assert!(!token_refused(&HeaderMap::new(), &body[..end]), "{end}");
    }
    // The trailers follow the complete content: 8 bytes for gzip, 4 for zlib.
    for (coding, encoded, trailer) in [("gzip", gzip(body), 8), ("deflate", zlib(body), 4)] {
        let headers = map(&[("content-encoding", coding)]);
        assert!(token_refused(&headers, &encoded[..encoded.len() - trailer]), "{coding}");
        for end in 0..encoded.len() - trailer - 4 {
            assert!(!token_refused(&headers, &encoded[..end]), "{coding} {end}");
        }
        let mut corrupt = encoded;
        *corrupt.last_mut().unwrap() ^= 0xff;
        assert!(!token_refused(&headers, &corrupt), "{coding}");
    }
}

#[test]
fn i12_inflating_a_bomb_stops_at_the_limit() {
    let zeros = vec![0; 10 * 1024 * 1024];
    for (coding, bomb) in [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros)), ("deflate", raw_deflate(&zeros))] {
        let headers = map(&[("content-encoding", coding)]);
        assert_eq!(coding::decode(&headers, &bomb, MAX_BODY_BYTES).unwrap_err(), CodingError::TooLarge, "{coding}");
        assert!(!token_refused(&headers, &bomb), "{coding}");
    }
}

#[test]
fn a_malicious_body_is_classified_in_linear_time() {
    let since = std::time::Instant::now();
    for piece in ["<code>", "</code>", "[", "{\"code\":", "\"", "Expired (", "<error>", "</error>"] {
        let many = piece.repeat((MAX_BODY_BYTES - 16) / piece.len());
        token_refused(&HeaderMap::new(), many.as_bytes());
        token_refused(&HeaderMap::new(), format!("<error>{many}</error>").as_bytes());
    }
    assert!(since.elapsed() < SOON);
}

proptest! {
    #[test]
    fn arbitrary_bytes_neither_panic_nor_count(
        coding in "|gzip|deflate|identity|br", body in prop::collection::vec(any::<u8>(), 0..512), cut in 0_usize..64,
    ) {
        let headers = map(&[("content-encoding", &coding)]);
        prop_assert!(!token_refused(&headers, &body));
        for encoded in [gzip(&body), zlib(&body), raw_deflate(&body)] {
            prop_assert!(!token_refused(&headers, &encoded[..encoded.len().saturating_sub(cut)]));
        }
    }

    #[test]
    fn a_flipped_bit_does_not_panic(at in 0_usize..1000, bit in 0_u8..8) {
        let body = br#"{"code":"10027","message":"Invalid (Finicity-App-Key)"}"#;
        for (coding, mut encoded) in [("gzip", gzip(body)), ("deflate", zlib(body)), ("deflate", raw_deflate(body))] {
            let at = at % encoded.len();
            encoded[at] ^= 1 << bit;
            token_refused(&map(&[("content-encoding", coding)]), &encoded);
        }
    }
}
