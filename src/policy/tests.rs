use proptest::prelude::*;

use super::*;

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|wrong| panic!("{text} {wrong}"))).collect()
}

fn allowing(texts: &[&str]) -> Policy {
    Policy::new(Catalogue::us(), &rules(texts), &[], false, Mode::Enforce)
}

fn denying(texts: &[&str]) -> Policy {
    Policy::new(Catalogue::us(), &[], &rules(texts), false, Mode::Enforce)
}

fn decision(policy: &Policy, call: &str) -> Result<(), Denial> {
    let (method, path) = call.split_once(' ').unwrap();
    let method = method.parse().unwrap();
    policy.check(&method, path, Catalogue::us().find(&method, path))
}

#[track_caller]
fn check(policy: &Policy, expected: Result<(), Denial>, calls: &[&str]) {
    for call in calls {
        assert_eq!(decision(policy, call), expected, "{call}");
    }
}

#[test]
fn without_rules_everything_is_allowed_in_any_spelling() {
    let policy = Policy::default();
    assert!(policy.is_open());
    check(&policy, Ok(()), &["GET /", "PATCH /a%2fb//;c", "GET /aggregation/v1/customers"]);
}

#[test]
fn only_allowed_calls_pass() {
    let policy = allowing(&["GET /a/{id}/b", "POST /a/new", "* /c/**", "DELETE /a/*"]);
    check(
        &policy,
        Ok(()),
        &["GET /a/1/b", "GET /a/new/b", "POST /a/new", "DELETE /a/new", "PATCH /c", "GET /c/d/e", "GET /a/%31/%62"],
    );
    check(
        &policy,
        Err(Denial::NotAllowed),
        &[
            "GET /a/1",
            "GET /a/1/b/c",
            "POST /a/1",
            "GET /a/1/B",
            "GET /",
            "HEAD /a/1/b",
            "GET /cd",
            "GET /a/1/b.json",
            "GET /a/1/b;x",
        ],
    );
}

#[test]
fn denying_get_also_denies_head() {
    check(&denying(&["GET /a/b"]), Err(Denial::Denied), &["GET /a/b", "HEAD /a/b"]);
    check(&denying(&["POST /a/b"]), Ok(()), &["GET /a/b", "HEAD /a/b"]);
    check(&allowing(&["GET /a/b"]), Err(Denial::NotAllowed), &["HEAD /a/b"]);
}

#[test]
fn deny_rules_take_precedence_over_allow_rules() {
    let policy = Policy::new(
        Catalogue::us(),
        &rules(&["* /a/**"]),
        &rules(&["* /a/secret/**", "DELETE /a/{id}"]),
        false,
        Mode::Enforce,
    );
    check(&policy, Ok(()), &["GET /a", "GET /a/1", "DELETE /a/1/2", "GET /a/1/secret"]);
    check(&policy, Err(Denial::Denied), &["GET /a/secret", "POST /a/secret/1", "DELETE /a/1"]);
    check(&policy, Err(Denial::NotAllowed), &["GET /b"]);
}

#[test]
fn c09_c10_deny_rules_match_all_spellings_and_reject_ambiguity() {
    for policy in [
        denying(&["* /a/b"]),
        Policy::new(Catalogue::us(), &rules(&["* /**"]), &rules(&["* /a/b"]), false, Mode::Enforce),
    ] {
        check(
            &policy,
            Err(Denial::Denied),
            &[
                "GET /A/b",
                "GET /%61/b",
                "GET /%2561/%62",
                "GET /a/b;x=1",
                "GET /a;x/b",
                "GET /a/b.json",
                "GET /a/b%20",
                "GET /a/b.",
                "GET /a/b%3fx",
                "GET /a/b%23",
                "GET /a/b+",
            ],
        );
        check(
            &policy,
            Err(Denial::Ambiguous),
            &[
                "GET /a%2fb",
                "GET /a%2Fb",
                "GET /a%252fb",
                "GET /a\\b",
                "GET /a%5cb",
                "GET /a/b/",
                "GET //a/b",
                "GET /a//b",
                "GET /a/;/b",
                "GET /a/../b",
                "GET /%2e%2e/b",
                "GET /a/%2e/b",
                "GET /a%00",
                "GET /a%zz",
                "GET /é",
                "GET /a/to%E2%84%AAen",
                "GET /a%ef%bc%8fb",
                "GET /a%3f/b",
            ],
        );
        check(&policy, Ok(()), &["GET /a/bc", "GET /a", "GET /a/b/c", "GET /x/a%20b", "GET /a%255"]);
    }
}

#[test]
fn c10_an_encoded_separator_is_rejected_even_if_offset() {
    let policies = [
        allowing(&["GET /c/{id}", "GET /c/{id}/application", "GET /c/{id}/accounts/{a}"]),
        denying(&["* /c/{id}/accounts/**", "* /a/{x}/b/**"]),
    ];
    for policy in &policies {
        check(
            policy,
            Err(Denial::Ambiguous),
            &[
                "GET /c/1%3f%2faccounts%2f2",
                "GET /c/1%2faccounts%3f/application",
                "GET /c/1%5caccounts%23/application",
                "GET /c/1%252faccounts%253f/application",
                "GET /c/1\\accounts%3f/application",
                "GET /c/1%ef%bc%8fx%3f/application",
                "GET /c/1%2fx/accounts/;y",
                "GET /c//accounts/a%2fb",
                "GET /c/+/accounts/a%2fb",
                "GET /c/1%2f",
                "GET /c/%2f1",
                "GET /a/1%2f2/b/%20",
                "GET /a//b/c%2fd",
            ],
        );
    }
}

#[test]
fn deny_billable_allows_only_operations_known_to_be_free() {
    let policy = Policy::new(Catalogue::us(), &[], &[], true, Mode::Enforce);
    check(&policy, Ok(()), &["GET /aggregation/v1/customers", "DELETE /aggregation/v1/customers/1"]);
    let billable = [
        "POST /aggregation/v1/customers/active",
        "GET /aggregation/v1/customers/1/accounts",
        "GET /unknown",
        "GET /aggregation/v1/%63ustomers",
    ];
    check(&policy, Err(Denial::Billable), &billable);
    let folded =
        ["GET /aggregation/v1/customers/1\u{ff0f}accounts\u{ff0f}2", "GET /aggregation/v1/customers/1\u{ff3c}accounts"];
    check(&policy, Err(Denial::Billable), &folded);
    let policy = Policy::new(Catalogue::us(), &rules(&["* /**"]), &[], true, Mode::Enforce);
    check(&policy, Err(Denial::Billable), &billable);
}

#[test]
fn every_template_of_the_catalogue_is_a_valid_rule() {
    let named = |route: Operation| format!("{} {}", route.method(), route.template());
    for route in Catalogue::us().operations() {
        let policy = allowing(&[&named(route)]);
        assert!(policy.unknown().is_empty(), "{}", named(route));
        for other in Catalogue::us().operations() {
            let call = named(other).replace(['{', '}'], "_");
            let expected = if other == route { Ok(()) } else { Err(Denial::NotAllowed) };
            // A fixed segment of one operation may match another's parameter.
            if other == route || !includes(route, other) {
                assert_eq!(decision(&policy, &call), expected, "{} for {call}", named(route));
            }
        }
    }
}

/// Whether `route` matches the paths of `other`, whose segments may be values of its parameters.
fn includes(route: Operation, other: Operation) -> bool {
    let (own, given) = (segments(route.template()), segments(other.template()));
    let same = route.method() == other.method() && own.clone().count() == given.clone().count();
    same && own.zip(given).all(|(own, given)| own.starts_with('{') || own == given)
}

#[test]
fn rules_that_match_no_known_operation_are_listed() {
    let allow = rules(&[
        "GET /aggregation/v1/customers",
        "GET /agregation/**",
        "PATCH /aggregation/v1/customers",
        "* /aggregation/v1/customers/1",
    ]);
    let deny = rules(&["GET /connect/v2/nothing", "* /**"]);
    let policy = Policy::new(Catalogue::us(), &allow, &deny, false, Mode::Report);
    assert_eq!(policy.unknown(), ["rule 2 of policy.allow", "rule 3 of policy.allow", "rule 1 of policy.deny"]);
    assert_eq!(policy.mode(), Mode::Report);
}

#[test]
fn an_invalid_rule_is_rejected_with_what_is_expected() {
    for (text, expected) in [
        ("", "must be a method"),
        ("/a", "must be a method"),
        ("get /a", "must begin with *"),
        ("TRACE /a", "must begin with *"),
        ("GET,POST /a", "must begin with *"),
        ("GET a", "begins with /"),
        ("GET https://x/a", "begins with /"),
        ("GET  ", "must be a method"),
    ] {
        let wrong = text.parse::<Rule>().unwrap_err();
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
    for path in [
        "//", "/a/", "/a//b", "/a?b", "/a#b", "/a%20", "/a.b", "/..", "/a/**/b", "/a**", "/{}", "/{a", "/a}", "/x{a}",
        "/{a.b}", "/a;b", "/é", "/a b", "/***",
    ] {
        assert!(format!("GET {path}").parse::<Rule>().is_err(), "{path}");
    }
    for text in ["GET /", "* /**", "GET   /a", " PUT /A-b_c/{customer_id}/* ", "HEAD /x/**"] {
        assert!(text.parse::<Rule>().is_ok(), "{text}");
    }
}

/// The same result as [`Trie::matches`], computed for a single rule.
fn rule_matches(rule: &Rule, method: &Method, path: &str) -> bool {
    let given: Vec<&str> = segments(path).collect();
    let own = &rule.segments;
    let fits = |(own, given): (&rule::Segment, &&str)| match own {
        rule::Segment::Fixed(own) => own == given,
        rule::Segment::Any => true,
    };
    let long_enough = if rule.is_prefix { given.len() >= own.len() } else { given.len() == own.len() };
    rule.methods.has(Methods::of(method)) && long_enough && own.iter().zip(&given).all(fits)
}

proptest! {
    #[test]
    fn the_canonical_form_has_the_segments_of_the_path(
        path in "(/(a|b|%2f|%5c|%252f|%3f|%23|;|\\+|%20|\\.\\.\\.|%ef%bc%8f|\\\\|\\.json){0,4}){1,5}",
    ) {
        if let Some(form) = form(&path) {
            prop_assert_eq!(segments(&form).count(), segments(&path).count());
            for (read, sent) in segments(&form).zip(segments(&path)) {
                prop_assert!(has_unambiguous_segments(sent) && !read.is_empty() || path == "/", "{} of {}: {}", sent, path, read);
            }
        }
    }

    #[test]
    fn the_trie_matches_what_its_rules_match(
        texts in prop::collection::vec("(GET|POST|\\*) ((/(a|b|c|\\*|\\{x\\})){1,4}(/\\*\\*)?|/|/\\*\\*)", 1..12),
        paths in prop::collection::vec("(/[a-d]){1,5}|/", 1..12),
    ) {
        let rules: Vec<Rule> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let (allow, deny) = (Policy::new(Catalogue::us(), &rules, &[], false, Mode::Enforce), Policy::new(Catalogue::us(), &[], &rules, false, Mode::Enforce));
        for path in &paths {
            for method in [Method::GET, Method::POST, Method::PUT] {
                let expected = rules.iter().any(|rule| rule_matches(rule, &method, path));
                prop_assert_eq!(allow.check(&method, path, Operation::OTHER).is_ok(), expected, "{} {}", method, path);
                prop_assert_eq!(deny.check(&method, path, Operation::OTHER).is_err(), expected, "{} {}", method, path);
            }
        }
    }
}

#[test]
fn billable_exemptions_match_the_exact_spelling_only() {
    let policy = Policy::new(Catalogue::us(), &[], &rules(&["* /denied/{id}"]), true, Mode::Enforce);
    let exempt = rules(&["GET /aggregation/v1/customers/{customerId}/accounts", "* /new/**", "GET /denied/{id}"]);
    let policy = policy.with_billable_allowed(Catalogue::us(), &exempt);
    check(
        &policy,
        Ok(()),
        &[
            "GET /aggregation/v1/customers/1/accounts",
            "GET /aggregation/v1/customers/%31/accounts",
            "GET /aggregation/v1/customers",
            "POST /new/operation",
        ],
    );
    check(
        &policy,
        Err(Denial::Billable),
        &["POST /aggregation/v1/customers/1/accounts", "GET /aggregation/v1/customers/1/Accounts", "GET /other"],
    );
    check(&policy, Err(Denial::Denied), &["GET /denied/1"]);
    assert_eq!(
        policy.unknown(),
        ["rule 1 of policy.deny", "rule 2 of policy.billable_allowed", "rule 3 of policy.billable_allowed"]
    );

    // Without allow or deny rules, an ambiguous path is still not exempt.
    let policy = Policy::new(Catalogue::us(), &[], &[], true, Mode::Enforce);
    let policy = policy.with_billable_allowed(Catalogue::us(), &rules(&["GET /a/{id}"]));
    check(&policy, Ok(()), &["GET /a/1"]);
    check(&policy, Err(Denial::Billable), &["GET /a/1%2fb", "GET /a/1/", "GET //a/1", "GET /a/1;%2fb"]);
}
