use super::*;

const ASCII_KINDS: [Kind; 3] = [Kind::Id, Kind::AppKey, Kind::AdminToken];

fn outcome(kind: Kind, value: &str) -> Result<String, Problem> {
    let found = Sourced { value: value.into(), origin: "PLACE".to_owned() };
    check(kind, found).map(|found| found.value.expose().clone())
}

#[track_caller]
fn check_taken(kind: Kind, value: &str, expected: &str) {
    assert_eq!(outcome(kind, value).unwrap(), expected, "{kind:?} {value:?}");
}

#[track_caller]
fn check_spoiled(kind: Kind, value: &str, expected: Spoiled) {
    let problem = outcome(kind, value).unwrap_err();
    assert!(matches!(&problem, Problem::Spoiled(_, spoiled) if *spoiled == expected), "{kind:?} {value:?} {problem}");
    let text = problem.to_string();
    assert!(text.starts_with("PLACE ") && text.contains(": ") && !text.contains("canary"), "{text}");
}

#[test]
fn one_line_break_at_the_end_is_dropped_from_every_kind() {
    for kind in ASCII_KINDS.into_iter().chain([Kind::Secret, Kind::Egress]) {
        for end in ["", "\n", "\r\n"] {
            check_taken(kind, &format!("canary in 16 bytes{end}"), "canary in 16 bytes");
        }
        for end in ["\n\n", "\r\n\r\n", "\r", "\n\r", "\r\n\n"] {
            check_spoiled(kind, &format!("canary in 16 bytes{end}"), Spoiled::LineBreak);
        }
    }
}

#[test]
fn ids_keys_and_tokens_are_printable_ascii_with_nothing_around_it() {
    for kind in ASCII_KINDS {
        for good in [
            "canary with spaces",
            "canary's \"own\" `quotes`",
            "\"canary starts a quote",
            "!#$%&()*+,-./:;<=>?@[]^_{|}~",
            "'canary canary canary\"",
        ] {
            check_taken(kind, good, good);
        }
        for (bad, expected) in [
            ("\"canary canary canary\"", Spoiled::Quoted),
            ("'canary canary canary'", Spoiled::Quoted),
            ("`canary canary canary`", Spoiled::Quoted),
            ("'canary canary canary'\n", Spoiled::Quoted),
            (" canary canary canary", Spoiled::Space),
            ("canary canary canary ", Spoiled::Space),
            ("canary canary canary \r\n", Spoiled::Space),
            ("\tcanary canary canary", Spoiled::Space),
            ("\u{feff}canary canary canary", Spoiled::Invisible),
            ("canary canary canary\u{200b}", Spoiled::Invisible),
            ("\u{a0}canary canary canary", Spoiled::Invisible),
            ("canary canary\ncanary", Spoiled::LineBreak),
            ("canary canary\r\ncanary", Spoiled::LineBreak),
            ("canary canary\tcanary", Spoiled::Control),
            ("canary canary\u{7f}canary", Spoiled::Control),
            ("canary canary\0canary", Spoiled::Control),
            ("canary\u{200b}canary canary", Spoiled::NotAscii),
            ("canary\u{a0}canary canary", Spoiled::NotAscii),
            ("canary canary schl\u{fc}ssel", Spoiled::NotAscii),
        ] {
            check_spoiled(kind, bad, expected);
        }
    }
}

#[test]
fn a_secret_may_hold_any_visible_character() {
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
        check_taken(Kind::Secret, good, good);
    }
    for (bad, expected) in [
        ("\"canary\"", Spoiled::Quoted),
        ("\"\"canary\"\"", Spoiled::Quoted),
        ("'canary'\r\n", Spoiled::Quoted),
        ("\u{201c}canary\u{201d}", Spoiled::Quoted),
        (" canary", Spoiled::Space),
        ("canary\t", Spoiled::Space),
        ("canary\u{1680}", Spoiled::Space),
        ("\u{feff}canary", Spoiled::Invisible),
        ("canary\u{feff}", Spoiled::Invisible),
        ("\u{200d}canary", Spoiled::Invisible),
        ("canary\u{2060}", Spoiled::Invisible),
        ("canary\u{a0}", Spoiled::Invisible),
        ("canary\u{202f}\n", Spoiled::Invisible),
        ("canary\ncanary", Spoiled::LineBreak),
        ("canary\rcanary", Spoiled::LineBreak),
        ("canary\u{2028}canary", Spoiled::LineBreak),
        ("canary\u{85}canary", Spoiled::LineBreak),
        ("canary\0canary", Spoiled::Control),
        ("canary\u{1b}[0m", Spoiled::Control),
    ] {
        check_spoiled(Kind::Secret, bad, expected);
    }
}

#[test]
fn what_an_egress_proxy_is_sent_has_no_line_break_and_no_nul() {
    for good in [" canary ", "\"canary\"", "changeme", " ", "can\tary", "\u{feff}canary", "schl\u{fc}ssel"] {
        check_taken(Kind::Egress, good, good);
    }
    check_spoiled(Kind::Egress, "can\nary", Spoiled::LineBreak);
    check_spoiled(Kind::Egress, "can\rary", Spoiled::LineBreak);
    check_spoiled(Kind::Egress, "can\0ary", Spoiled::Control);
    assert!(matches!(outcome(Kind::Egress, "\n"), Err(Problem::Empty(_))));
}

#[test]
fn nothing_but_spaces_and_invisible_characters_is_empty() {
    for kind in ASCII_KINDS.into_iter().chain([Kind::Secret]) {
        for empty in ["", " ", "\n", " \r\n", "\u{feff}", "\u{a0}\u{200b}"] {
            assert!(matches!(outcome(kind, empty), Err(Problem::Empty(_))), "{kind:?} {empty:?}");
        }
    }
}

#[test]
fn an_admin_token_has_sixteen_characters_or_more() {
    for short in ["a", "canary-of-15-by"] {
        let problem = outcome(Kind::AdminToken, short).unwrap_err().to_string();
        assert!(problem.contains("16 characters") && problem.contains("openssl rand -hex 32"), "{problem}");
        assert!(!problem.contains("canary"), "{problem}");
    }
    check_taken(Kind::AdminToken, "canary-of-16-byt\n", "canary-of-16-byt");
}
