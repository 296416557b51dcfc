use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[track_caller]
fn family(name: &str) -> Option<HeaderFamily> {
    find(&normalized(&name.to_ascii_lowercase())).map(|found| found.family)
}

/// Names of the vendor, of HTTP and of applications, which callers can send.
const KEPT: &str = "Accept Accept-Charset Accept-Encoding Accept-Language Accept-Version Cache-Control Content-Digest \
    Content-Disposition Content-Encoding Content-Language Content-Length Content-Location Content-Type Date DNT ETag \
    If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Idempotency-Key Max-Forwards Meta-Data MFA-Session \
    Pragma Prefer Priority Range Sec-Fetch-Mode Sec-CH-UA Update-By User-Agent Warning X-Correlation-ID X-External-Request-Id \
    X-Request-Id X-Requested-With X-Idempotency-Key X-API-Version X-Customer-Note X-Caller X-Caller-Note X-Customer-Id X-Foo-IP-Range X-Account-Id \
    X-Note X-User-Agent X-User-Note X-Principal-Amount X-Real-Estate X-Swift-Code X-TOS-Accepted X-Page-Size X-Partition-Key \
    X-Client-Version X-Client-Name X-Client-Sandbox X-Forwardable X-Authored-By X-Originality X-Sslop-Note Traceparents \
    Tokens X-Tokenizer Keyring CFO-Name Fastlyness X-Amzing X-Msg-Id X-Googol Remoteness Authority-Note X-Awsome X-Zip X-Shipping \
    Recipe Sandwich-Tip B3rt Tea Hostess X-Cfa-Level X-Loan-Origination X-Report-Version X-Debug X-Tenant X-Test X x-y -x- _";

#[test]
fn names_in_no_family_are_kept() {
    for name in KEPT.split_whitespace() {
        assert_eq!(family(name), None, "{name}");
    }
}

#[test]
fn well_known_names_are_in_a_family_and_sorted() {
    for name in KNOWN_NAMES {
        assert_ne!(family(name), None, "{name}");
        assert_eq!(normalized(name), *name);
    }
    assert!(KNOWN_NAMES.is_sorted());
}

#[test]
fn a_family_covers_names_with_its_prefixes_and_suffixes() {
    for (name, expected) in [
        ("X-Envoy-Some-New-Header", HeaderFamily::Network),
        ("l5d-whatever", HeaderFamily::Network),
        ("X-Acme-Client-IP", HeaderFamily::Network),
        ("acme-connecting-ip", HeaderFamily::Network),
        ("X-Original-Anything", HeaderFamily::Network),
        ("x-rewrite-rule", HeaderFamily::Network),
        ("X-Rewrite-URL", HeaderFamily::Override),
        ("X-Dynatrace", HeaderFamily::Trace),
        ("X-DynatraceFoo", HeaderFamily::Trace),
        ("Acme-Trace-Id", HeaderFamily::Trace),
        ("X-Acme-Api-Key", HeaderFamily::Credentials),
        ("X-Acme-Access-Token", HeaderFamily::Credentials),
        ("X-Auth-Acme", HeaderFamily::Identity),
        ("X-Amzn-Oidc-New", HeaderFamily::Identity),
        ("X-Amz-New", HeaderFamily::Network),
        ("Finicity-App-Foo", HeaderFamily::Injected),
        ("App-Key", HeaderFamily::Injected),
        ("Proxy", HeaderFamily::Message),
        ("Proxy-Authorization", HeaderFamily::Message),
        ("$WSRA", HeaderFamily::Network),
    ] {
        assert_eq!(family(name), Some(expected), "{name}");
    }
}

#[test]
fn each_run_of_separators_becomes_one_hyphen() {
    for (name, expected) in [
        ("x-real-ip", "x-real-ip"),
        ("x_real_ip", "x-real-ip"),
        ("x.real~ip", "x-real-ip"),
        ("x--real-_ip", "x-real-ip"),
        ("-x!real#ip_", "x-real-ip"),
        ("$x%real&'*+^`|ip", "x-real-ip"),
        ("-", ""),
        ("", ""),
        ("x", "x"),
    ] {
        assert_eq!(normalized(name), expected, "{name}");
    }
    assert!(matches!(normalized("x-real-ip"), Cow::Borrowed(_)), "nothing is allocated for a usual name");
}

#[test]
fn the_documentation_lists_every_pattern_of_every_family() {
    let docs = include_str!("../../../docs/requests.md");
    let (_, section) = docs.split_once("\n## Header fields\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for family in [
        HeaderFamily::Override,
        HeaderFamily::Network,
        HeaderFamily::Trace,
        HeaderFamily::Identity,
        HeaderFamily::Credentials,
    ] {
        let (_, list) = section.split_once(&format!("\n**{}**", family.as_str())).unwrap();
        let list = list.split("\n\n").next().unwrap();
        let listed: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
        let expected: BTreeSet<&str> = patterns().filter(|(of, _)| *of == family).map(|(_, pattern)| pattern).collect();
        assert_eq!(listed, expected, "{family:?}");
    }
}

#[test]
fn patterns_are_normalized_and_unique() {
    let mut seen = BTreeSet::new();
    for (_, pattern) in patterns() {
        let (text, _) = parse(pattern);
        let text = std::str::from_utf8(text).unwrap();
        assert_eq!(normalized(&text.to_ascii_lowercase()), text, "{pattern}");
        assert!(text.len() > 1 && text != "x" && seen.insert(pattern), "{pattern}");
    }
    assert_eq!(seen.len(), COUNT);
}

/// The first pattern that matches `name`, found by linear search.
fn find_linear(name: &str) -> Option<&'static str> {
    patterns().map(|(_, pattern)| pattern).find(|pattern| {
        let ends = |text: &str| name == text || name.ends_with(&format!("-{text}"));
        match (pattern.strip_prefix("*-"), pattern.strip_suffix("-*"), pattern.strip_suffix('*')) {
            (Some(text), ..) => ends(text),
            (None, Some(text), _) => name == text || name.starts_with(&format!("{text}-")),
            (None, None, Some(text)) => name.starts_with(text),
            (None, None, None) => name == *pattern,
        }
    })
}

/// Names made of patterns, with a prefix, a suffix, or characters cut off.
fn near_pattern() -> impl Strategy<Value = String> {
    let pattern = (0..COUNT).prop_map(|number| patterns().nth(number).unwrap().1.replace('*', "foo"));
    ("(x-|foo-|f)?", pattern, "(-ip|-foo|s|-token)?", 0..3_usize).prop_map(|(before, pattern, behind, cut)| {
        let name = before + &pattern + &behind;
        name[..name.len().saturating_sub(cut)].to_owned()
    })
}

proptest! {
    #[test]
    fn the_index_finds_what_a_linear_search_finds(name in prop_oneof![near_pattern(), "[a-z0-9-]{0,12}", "x-[a-z]{1,3}-[a-z-]{0,12}"]) {
        let name = normalized(&name).into_owned();
        prop_assert_eq!(find(&name).map(|found| found.pattern), find_linear(&name));
    }

    #[test]
    fn no_separator_hides_a_family(
        number in 0..KNOWN_NAMES.len(), separators in "[!#$%&'*+.^_`|~-]{16,24}", upper in any::<bool>(),
    ) {
        let mut separators = separators.chars().cycle();
        let name: String = KNOWN_NAMES[number].chars().map(|c| if c == '-' { separators.next().unwrap() } else { c }).collect();
        let name = if upper { name.to_ascii_uppercase() } else { name };
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        prop_assert_eq!(family(name.as_str()), family(KNOWN_NAMES[number]), "{}", name);
    }
}
