use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(body: &str, expected: &[&str]) {
    assert_eq!(codes(body.as_bytes()), expected, "{body}");
}

#[test]
fn a_code_is_read_in_every_shape_of_the_vendor() {
    check(r#"{"code":"10023","message":"Expired (Finicity-App-Token)"}"#, &["10023"]);
    check(r#"{"code":10023,"status":"401","title":"t","tags":["x"]}"#, &["10023"]);
    check(r#"{"code":" 10023, "}"#, &["10023"]);
    check(r#"{"Errors":{"Error":[{"source":"s","reasonCode":1503,"details":null}]}}"#, &["1503"]);
    check(r#"{"Errors":{"Error":[{"reasonCode":"1503"}]}}"#, &["1503"]);
    check(r#"{"Errors":{"Error":[{"ReasonCode":"10023,","Recoverable":"false,"}]}}"#, &["10023"]);
    check(r#"{"Errors":{"Error":[{"ReasonCode":10023},{"reasonCode":"10027"}]}}"#, &["10023", "10027"]);
    check(r#"{"error":"invalid_client","error_description":"x"}"#, &["invalid_client"]);
    check("Invalid (Finicity-App-Key)", &["10027"]);
    check("Invalid (App-Key)", &["10027"]);
    check("Invalid (Finicity-App-Token)", &["10022"]);
    check("Invalid (App-Token)", &["10022"]);
    check("Expired (Finicity-App-Token)\r\n", &["10023"]);
    check(" Expired (App-Token)", &["10023"]);
    check("<error><code>14006</code><message>x</message></error>", &["14006"]);
    check(
        "<?xml version=\"1.0\"?>\n<errors><error>\n<code> 10022 </code></error><error><code>10027</code></error></errors>\n",
        &["10022", "10027"],
    );
    assert_eq!(codes(b"<error><code>14006</code><message>\xe9</message></error>"), ["14006"]);
}

#[test]
fn a_code_is_read_from_one_error_or_a_list_at_any_level() {
    check(r#"{"Errors":{"Error":{"reasonCode":1503}}}"#, &["1503"]);
    check(r#"[{"code":24302,"message":"x"}]"#, &["24302"]);
    check(r#"[{"message":"x"},{"reasonCode":"24302"},{"code":10001}]"#, &["24302", "10001"]);
    check(r#"{"errors":[{"code":"24302"}]}"#, &["24302"]);
    check(r#"{"error":{"code":24302,"message":"x"}}"#, &["24302"]);
    check(r#"{"error":[{"code":24302}]}"#, &["24302"]);
    check(r#"[{"Errors":{"Error":[{"ReasonCode":"24302,"}]}}]"#, &["24302"]);
    check(r#"{"Errors":[{"error":{"Code":"24302"}}]}"#, &["24302"]);
    check(r#"[{"error":"invalid_client"}]"#, &["invalid_client"]);
    check(r#"{"error":"Invalid_Client"}"#, &["invalid_client"]);
    check(r#"{"Errors":{"Error":[{"reasonCode":1}]},"code":2}"#, &["2", "1"]);
}

#[test]
fn a_whole_number_with_a_fraction_is_a_code() {
    for body in [
        r#"{"code":24302.0}"#,
        r#"{"code":24302.000}"#,
        r#"{"code":2.4302e4}"#,
        r#"{"code":"24302.0"}"#,
        r#"{"code":"\t24302.0 ,\r\n"}"#,
        r#"{"Errors":{"Error":{"ReasonCode":24302.0}}}"#,
        "<error><code>24302.0</code></error>",
    ] {
        check(body, &["24302"]);
    }
}

fn utf16(text: &str, bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    std::iter::once('\u{feff}').chain(text.chars()).collect::<String>().encode_utf16().flat_map(bytes).collect()
}

#[test]
fn a_code_is_read_in_every_encoding_of_the_text() {
    for body in [
        r#"{"code":24302,"message":"🔒 x"}"#,
        "<error><code>24302</code><message>🔒</message></error>",
        " \r\n\t{\"code\":24302}\r\n",
    ] {
        for bytes in [
            format!("\u{feff}{body}").into_bytes(),
            format!("\u{feff}\u{feff}{body}").into_bytes(),
            utf16(body, u16::to_le_bytes),
            utf16(body, u16::to_be_bytes),
        ] {
            assert_eq!(codes(&bytes), ["24302"], "{bytes:?}");
        }
    }
    // Latin-1, which is not UTF-8.
    assert_eq!(codes(b"{\"code\":24302,\"message\":\"verrouill\xe9\"}"), ["24302"]);
    assert_eq!(codes("\u{feff}Expired (App-Token)\n".as_bytes()), ["10023"]);
}

#[test]
fn debug_does_not_show_the_body() {
    let reading = read(br#"{"access_token":"canary","code":10001}"#).unwrap();
    assert!(!format!("{reading:?}").contains("canary"), "{reading:?}");
}

#[test]
fn l09_text_that_is_not_a_known_code_is_not_kept() {
    for body in [
        "",
        "null",
        "[]",
        "10023",
        r#""10023""#,
        r#"{"code":"canary","error":"canary","Errors":{"Error":[{"reasonCode":"canary"}]}}"#,
        r#"{"code":"1234567"}"#,
        r#"{"code":-1}"#,
        r#"{"code":1.5}"#,
        r#"{"code":"10 23"}"#,
        r#"{"code":"١٢٣"}"#,
        r#"{"code":["10023"]}"#,
        r#"{"code":null,"message":"10023"}"#,
        r#"{"data":{"code":"10023"}}"#,
        r#"{"code":24302.5}"#,
        r#"{"code":-0.0}"#,
        r#"{"code":2.4302e9}"#,
        r#"{"code":"24302."}"#,
        r#"{"code":"24302.01"}"#,
        r#"{"code":"24302.0.0"}"#,
        r#"{"errors":["10023"],"error":10023.5}"#,
        r#"{"details":[{"code":"10023"}]}"#,
        r#"{"message":"Expired (Finicity-App-Token)"}"#,
        "Expired (Finicity-App-Token) and canary",
        "Expired (Finicity-App-Tok",
        "<html><body><code>10023</code></body></html>",
        "10023 <code>10023</code></error>",
        "<error><code>canary</code></error>",
        "<error><code>1234567</code></error>",
        "<error><code></code><code>10023</error>",
    ] {
        check(body, &[]);
    }
}

#[test]
fn a_truncated_body_has_no_codes() {
    for body in [
        r#"{"code":"10023","message":"x"}"#,
        "Expired (Finicity-App-Token)",
        "<error><code>14006</code><message>x</message></error>",
    ] {
        for end in 0..body.len() {
            check(&body[..end], &[]);
        }
    }
}

#[test]
fn codes_that_reject_credentials_are_not_about_the_token() {
    for code in ["24302", "10001", "10021", "12401", "10026", "10027", "invalid_client", "invalid_grant"] {
        assert!(rejects_credentials(code), "{code}");
    }
    for code in ["10022", "10023", "10024", "1503", "invalid_request", ""] {
        assert!(!rejects_credentials(code), "{code}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_have_no_codes(body in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert_eq!(codes(&body), Vec::<String>::new());
    }

    #[test]
    fn only_short_numbers_and_known_words_are_kept(
        parts in prop::collection::vec("<error>|</error>|<code>|</code>|[{}:,]|\"code\"|\"error\"|\"?[0-9]{1,8}\"?|\"?canary\"?", 0..24),
    ) {
        for code in codes(parts.concat().as_bytes()) {
            prop_assert!(is_number(&code), "{}", code);
        }
    }
}
