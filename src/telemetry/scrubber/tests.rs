use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn scrubber(secrets: &[&[u8]]) -> Scrubber {
    let scrubber = Scrubber::default();
    scrubber.register("test", secrets.iter().map(|secret| Secret::new(secret.to_vec())).collect());
    scrubber
}

fn scrubbed(scrubber: &Scrubber, text: &[u8]) -> String {
    let mut text = text.to_vec();
    scrubber.scrub(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[track_caller]
fn check(secret: &str, text: &str, expected: &str) {
    assert_eq!(scrubbed(&scrubber(&[secret.as_bytes()]), text.as_bytes()), expected, "{secret} in {text}");
}

#[test]
fn every_occurrence_of_a_secret_is_replaced() {
    let secret = "s3cr3t+/=";
    check(secret, "nothing\n", "nothing\n");
    check(secret, "s3cr3t+/=", "[scrubbed]");
    check(secret, "a s3cr3t+/= b\ns3cr3t+/=s3cr3t+/=\n", "a [scrubbed] b\n[scrubbed][scrubbed]\n");
    check(secret, "s3cr3t+/s3cr3t+/=", "s3cr3t+/[scrubbed]");
    for encoded in [
        "s3cr3t%2B%2F%3D",
        "s3cr3t%2b%2f%3d",
        "%73%33cr%33t+/%3D",
        "s3cr3t%252B%252F%253D",
        r"s3cr3t+\/=",
        r"\u00733cr3t\u002B\u002f=",
        r"s3cr3t\u{2b}/=",
        r"s3cr3t\x2b/=",
        "7333637233742b2f3d",
        "7333637233742B2F3D",
        "115, 51, 99, 114, 51, 116, 43, 47, 61",
        "czNjcjN0Ky89",
    ] {
        check(secret, &format!("{{\"a\":\"{encoded}\"}}\n"), "{\"a\":\"[scrubbed]\"}\n");
    }
}

#[test]
fn escapes_outside_of_secrets_are_unchanged() {
    check("s3cr3t", r#"{"a":"\"x\" %41 s3cr3t \\ %zz \u12"}"#, r#"{"a":"\"x\" %41 [scrubbed] \\ %zz \u12"}"#);
    check("abc\"def\\", r#"{"a":"abc\"def\\"}"#, r#"{"a":"[scrubbed]"}"#);
    check("na\u{ef}ve-\u{1f600}", r#"{"a":"na\u00efve-\ud83d\ude00"}"#, r#"{"a":"[scrubbed]"}"#);
    // A match that begins or ends within an escape includes the whole escape.
    check("n12345", r#"{"a":"\n12345"}"#, r#"{"a":"[scrubbed]"}"#);
    check("12345\\", r#"{"a":"12345\""}"#, r#"{"a":"[scrubbed]"}"#);
    check("12345\\x", r#"{"a":"12345\\x"}"#, r#"{"a":"[scrubbed]"}"#);
    check("p%41ss\"word", r#"{"a":"p%41ss\"word"}"#, r#"{"a":"[scrubbed]"}"#);
    check("a b c d", "x=a+b+c+d&", "x=[scrubbed]&");
}

#[test]
fn the_password_in_basic_authorization_is_scrubbed() {
    let header = crate::credentials::basic("someone", "pass+word!");
    let text = scrubbed(&scrubber(&[b"pass+word!"]), header.as_bytes());
    assert!(text.starts_with("Basic c29tZW9uZT") && text.contains("[scrubbed]") && text.len() < 32, "{text}");
}

#[test]
fn a_value_that_is_too_short_is_ignored() {
    check("abcde", "abcde", "abcde");
    check("abcdef", "abcdef", "[scrubbed]");
    let empty = Scrubber::default();
    assert_eq!(scrubbed(&empty, b"%41 \\n"), "%41 \\n");
    assert_eq!(empty.hits(), 0);
}

#[test]
fn current_and_previous_values_are_found_earlier_ones_are_not() {
    let scrubber = Scrubber::default();
    let mut outputs = Vec::new();
    for token in ["token-1", "token-2", "token-2", "token-3"] {
        scrubber.register("token", vec![Secret::new(token.into())]);
        outputs.push(scrubbed(&scrubber, b"token-1 token-2 token-3"));
    }
    assert_eq!(
        outputs,
        [
            "[scrubbed] token-2 token-3",
            "[scrubbed] [scrubbed] token-3",
            "[scrubbed] [scrubbed] token-3",
            "token-1 [scrubbed] [scrubbed]",
        ]
    );
    scrubber.register("App Key", vec![Secret::new(b"the-app-key".to_vec())]);
    let mut text = b"the-app-key token-3".to_vec();
    assert_eq!(scrubber.clone().scrub(&mut text), Some(Found { times: 2, name: "App Key" }));
    assert_eq!(scrubber.hits(), 1 + 2 + 2 + 2 + 2);
    assert_eq!(format!("{scrubber:?}"), "Scrubber");
}

fn percent(secret: &[u8], choices: &[u8]) -> String {
    secret.iter().zip(choices.iter().cycle()).fold(String::new(), |mut text, (byte, choice)| {
        let _ = match choice % 3 {
            0 if byte.is_ascii_graphic() && *byte != b'%' => write!(text, "{}", char::from(*byte)),
            1 => write!(text, "%{byte:02x}"),
            _ => write!(text, "%{byte:02X}"),
        };
        text
    })
}

/// `secret` in the given encoding, surrounded by `around` if the encoding depends on it.
fn encoded(secret: &str, encoding: usize, around: &str, choices: &[u8]) -> String {
    use base64::{Engine as _, prelude::*};
    let pair = format!("{around}{secret}{around}");
    match encoding {
        0 => secret.to_owned(),
        1 => percent(secret.as_bytes(), choices),
        2 => percent(percent(secret.as_bytes(), choices).as_bytes(), choices),
        3 => format!("{:x}", base16ct::HexDisplay(secret.as_bytes())),
        4 => secret.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02X}")),
        5 => serde_json::to_string(secret).unwrap(),
        6 => serde_json::to_string(&serde_json::to_string(secret).unwrap()).unwrap(),
        7 => format!("{secret:?}"),
        8 => format!("{:?}", secret.as_bytes()),
        9 => BASE64_STANDARD.encode(pair),
        10 => BASE64_URL_SAFE_NO_PAD.encode(pair),
        11 => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        12 => format!("{:?}", percent(secret.as_bytes(), choices)),
        _ => String::from_utf8(crate::credentials::basic(around, secret).as_bytes().to_vec()).unwrap(),
    }
}

const ENCODINGS: usize = 14;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_encoding_of_a_secret_is_replaced_and_nothing_else(
        secret in "[ -~\u{e0}-\u{ff}]{6,40}",
        encoding in 0..ENCODINGS,
        around in "[a-z]{0,5}",
        (before, after) in ("[ -~]{0,20}", "[ -~]{0,20}"),
        choices in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        // A preceding `\` or `%` would change the meaning of the form's first character.
        let before = before.trim_end_matches(['\\', '%']);
        let form = encoded(&secret, encoding, &around, &choices);
        let scrubber = scrubber(&[secret.as_bytes()]);
        let text = scrubbed(&scrubber, format!("{before} {form} {after}\n").as_bytes());
        prop_assert!(scrubber.hits() > 0, "{} in {}", form, text);
        prop_assert!(text.contains("[scrubbed]"));
        let bare = form.trim_matches('"');
        prop_assert!(bare.len() < MIN_SECRET_BYTES || !text.contains(bare), "{} in {}", form, text);

        let other = format!("{before}\u{1}{after}");
        prop_assert_eq!(scrubbed(&scrubber, other.as_bytes()), other);
    }

    #[test]
    fn a_json_line_remains_valid(secret in "[!-~]{6,12}", before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
        let line = serde_json::json!({ "a": format!("{before}{secret}{after}") }).to_string();
        let text = scrubbed(&scrubber(&[secret.as_bytes()]), line.as_bytes());
        let parsed: serde_json::Value = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert!(parsed["a"].as_str().is_some_and(|value| value.contains("[scrubbed]")), "{}", text);
    }

    #[test]
    fn arbitrary_bytes_without_secrets_are_unchanged(text in proptest::collection::vec(any::<u8>(), 0..200), marks in "[%\\\\u{}0-9a-f]{0,40}") {
        let scrubber = scrubber(&[b"s3cr3t"]);
        for mut text in [text, marks.into_bytes()] {
            let before = text.clone();
            if scrubber.scrub(&mut text).is_none() {
                prop_assert_eq!(text, before);
            }
        }
    }
}

#[test]
fn short_secrets_are_accepted_and_ignored() {
    for length in 0..MIN_SECRET_BYTES {
        let scrubber = Scrubber::default();
        let short = &b"abcdefgh"[..length];
        scrubber.register("test", vec![Secret::new(short.to_vec()), Secret::new(b"the-secret".to_vec())]);
        let mut text = b"abcdefgh the-secret\n".to_vec();
        assert_eq!(scrubber.scrub(&mut text).map(|found| found.times), Some(1));
        assert_eq!(text, b"abcdefgh [scrubbed]\n");
    }
}
