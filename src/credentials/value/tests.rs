use super::*;

const ASCII_KINDS: [ValueKind; 3] = [ValueKind::Id, ValueKind::AppKey, ValueKind::AdminToken];

fn outcome(kind: ValueKind, value: &str) -> Result<String, Problem> {
    let sourced = Sourced { value: value.into(), origin: "PLACE".to_owned() };
    check(kind, sourced).map(|sourced| sourced.value.expose().clone())
}

#[track_caller]
fn check_accepted(kind: ValueKind, value: &str, expected: &str) {
    assert_eq!(outcome(kind, value).unwrap(), expected, "{kind:?} {value:?}");
}

#[track_caller]
fn check_malformed(kind: ValueKind, value: &str, expected: ValueDefect) {
    let problem = outcome(kind, value).unwrap_err();
    assert!(matches!(&problem, Problem::Malformed(_, defect) if *defect == expected), "{kind:?} {value:?} {problem}");
    let text = problem.to_string();
    assert!(text.starts_with("PLACE ") && text.contains(": ") && !text.contains("canary"), "{text}");
}

#[test]
fn one_trailing_line_break_is_removed_from_every_kind() {
    for kind in ASCII_KINDS.into_iter().chain([ValueKind::Secret, ValueKind::Egress]) {
        for end in ["", "\n", "\r\n"] {
            check_accepted(kind, &format!("canary in 16 bytes{end}"), "canary in 16 bytes");
        }
        for end in ["\n\n", "\r\n\r\n", "\r", "\n\r", "\r\n\n"] {
            check_malformed(kind, &format!("canary in 16 bytes{end}"), ValueDefect::LineBreak);
        }
    }
}

#[test]
fn ids_keys_and_tokens_are_printable_ascii_without_padding() {
    for kind in ASCII_KINDS {
        for good in [
            "canary with spaces",
            "canary's \"own\" `quotes`",
            "\"canary starts a quote",
            "!#$%&()*+,-./:;<=>?@[]^_{|}~",
            "'canary canary canary\"",
        ] {
            check_accepted(kind, good, good);
        }
        for (bad, expected) in [
            ("\"canary canary canary\"", ValueDefect::Quoted),
            ("'canary canary canary'", ValueDefect::Quoted),
            ("`canary canary canary`", ValueDefect::Quoted),
            ("'canary canary canary'\n", ValueDefect::Quoted),
            (" canary canary canary", ValueDefect::Space),
            ("canary canary canary ", ValueDefect::Space),
            ("canary canary canary \r\n", ValueDefect::Space),
            ("\tcanary canary canary", ValueDefect::Space),
            ("\u{feff}canary canary canary", ValueDefect::Invisible),
            ("canary canary canary\u{200b}", ValueDefect::Invisible),
            ("\u{a0}canary canary canary", ValueDefect::Invisible),
            ("canary canary\ncanary", ValueDefect::LineBreak),
            ("canary canary\r\ncanary", ValueDefect::LineBreak),
            ("canary canary\tcanary", ValueDefect::Control),
            ("canary canary\u{7f}canary", ValueDefect::Control),
            ("canary canary\0canary", ValueDefect::Control),
            ("canary\u{200b}canary canary", ValueDefect::NotAscii),
            ("canary\u{a0}canary canary", ValueDefect::NotAscii),
            ("canary canary schl\u{fc}ssel", ValueDefect::NotAscii),
        ] {
            check_malformed(kind, bad, expected);
        }
    }
}

#[test]
fn a_secret_may_contain_any_visible_character() {
    for good in [
        "!@#$%&*_-+",
        "canary's \"own\" quotes",
        "\"quoted\\\" \u{e9}",
        "\u{e9}canary\u{e9}",
        "can ary",
        "\"",
        "'canary\"",
        "can\u{200b}ary",
        "can\u{a0}ary",
        "\u{1f511}canary",
        "\u{5bc6}\u{7801}",
    ] {
        check_accepted(ValueKind::Secret, good, good);
    }
    for (bad, expected) in [
        ("\"canary\"", ValueDefect::Quoted),
        ("\"\"canary\"\"", ValueDefect::Quoted),
        ("'canary'\r\n", ValueDefect::Quoted),
        ("\u{201c}canary\u{201d}", ValueDefect::Quoted),
        (" canary", ValueDefect::Space),
        ("canary\t", ValueDefect::Space),
        ("canary\u{1680}", ValueDefect::Space),
        ("\u{feff}canary", ValueDefect::Invisible),
        ("canary\u{feff}", ValueDefect::Invisible),
        ("\u{200d}canary", ValueDefect::Invisible),
        ("canary\u{2060}", ValueDefect::Invisible),
        ("canary\u{a0}", ValueDefect::Invisible),
        ("canary\u{202f}\n", ValueDefect::Invisible),
        ("canary\ncanary", ValueDefect::LineBreak),
        ("canary\rcanary", ValueDefect::LineBreak),
        ("canary\u{2028}canary", ValueDefect::LineBreak),
        ("canary\u{85}canary", ValueDefect::LineBreak),
        ("canary\0canary", ValueDefect::Control),
        ("canary\u{1b}[0m", ValueDefect::Control),
    ] {
        check_malformed(ValueKind::Secret, bad, expected);
    }
}

#[test]
fn egress_credentials_have_no_line_break_and_no_nul() {
    for good in [" canary ", "\"canary\"", "changeme", " ", "can\tary", "\u{feff}canary", "schl\u{fc}ssel"] {
        check_accepted(ValueKind::Egress, good, good);
    }
    check_malformed(ValueKind::Egress, "can\nary", ValueDefect::LineBreak);
    check_malformed(ValueKind::Egress, "can\rary", ValueDefect::LineBreak);
    check_malformed(ValueKind::Egress, "can\0ary", ValueDefect::Control);
    assert!(matches!(outcome(ValueKind::Egress, "\n"), Err(Problem::Empty(_))));
}

#[test]
fn a_value_without_a_visible_character_is_empty() {
    for kind in ASCII_KINDS.into_iter().chain([ValueKind::Secret]) {
        for empty in ["", " ", "\n", " \r\n", "\u{feff}", "\u{a0}\u{200b}"] {
            assert!(matches!(outcome(kind, empty), Err(Problem::Empty(_))), "{kind:?} {empty:?}");
        }
    }
}

#[test]
fn an_admin_token_has_at_least_sixteen_characters() {
    for short in ["a", "canary-of-15-by"] {
        let problem = outcome(ValueKind::AdminToken, short).unwrap_err().to_string();
        assert!(problem.contains("16 characters") && problem.contains("openssl rand -hex 32"), "{problem}");
        assert!(!problem.contains("canary"), "{problem}");
    }
    check_accepted(ValueKind::AdminToken, "canary-of-16-byt\n", "canary-of-16-byt");
}
