use std::collections::BTreeSet;

use super::*;

fn find(method: &Method, path: &str) -> Operation {
    Catalogue::us().find(method, path)
}

fn rows() -> &'static [Row] {
    &Catalogue::us().rows
}

#[track_caller]
fn check(method: Method, path: &str, template: &str) {
    assert_eq!(find(&method, path).template(), template, "{method} {path}");
}

#[test]
fn no_billable_path_matches_a_free_one_case_insensitively() {
    // `policy.deny_billable` goes by the operation. A case-insensitive server may read a parameter's value as a fixed segment.
    let segments = |operation: Operation| operation.template().split('/').collect::<Vec<_>>();
    let covers = |free: &str, billable: &str| free.starts_with('{') || free.eq_ignore_ascii_case(billable);
    for billable in Catalogue::us().operations().filter(|operation| operation.is_billable()) {
        for free in Catalogue::us()
            .operations()
            .filter(|operation| !operation.is_billable() && operation.method() == billable.method())
        {
            let (free, billable) = (segments(free), segments(billable));
            let covered = free.len() == billable.len()
                && free.iter().zip(&billable).all(|(free, billable)| covers(free, billable));
            assert!(!covered, "{free:?} {billable:?}");
        }
    }
}

#[test]
fn a_request_has_the_label_of_its_template() {
    check(Method::GET, "/aggregation/v1/customers", "/aggregation/v1/customers");
    check(Method::GET, "/aggregation/v1/customers/123", "/aggregation/v1/customers/{customerId}");
    check(Method::POST, "/aggregation/v2/customers/testing", "/aggregation/v2/customers/testing");
    check(
        Method::GET,
        "/aggregation/v4/customers/1/accounts/2/transactions",
        "/aggregation/v4/customers/{customerId}/accounts/{accountId}/transactions",
    );
}

#[test]
fn templates_need_no_escaping_in_log_lines() {
    for row in rows() {
        assert!(
            row.template.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'),
            "{}",
            row.template
        );
    }
}

#[test]
fn calls_outside_the_catalogue_are_other() {
    check(Method::GET, "/", OTHER);
    check(Method::PATCH, "/aggregation/v1/customers", OTHER);
    check(Method::GET, "/aggregation/v1/customers/", OTHER);
    check(Method::GET, "/aggregation/v1/%63ustomers", OTHER);
    check(Method::GET, "/aggregation/v1/customers/1/2/3/4", OTHER);
    check(Method::GET, "/aggregation/v1/customers/1%2Faccounts%2F2%2FavailableBalance", OTHER);
    check(Method::GET, "/aggregation/v1/customers/1\\x", OTHER);
    check(Method::GET, "/aggregation/v1/customers/1;x", OTHER);
    assert_eq!(Operation::OTHER.method(), "_OTHER");
    assert_eq!(Operation::OTHER.index(), None);
}

#[test]
fn l07_the_start_of_an_unknown_path_is_shown_only_if_known() {
    for (path, expected) in [
        ("/aggregation/v1/unknown/123", Some("/aggregation/v1")),
        ("/aggregation/v1", Some("/aggregation/v1")),
        ("/aggregation/v9/customers", Some("/aggregation")),
        ("/aggregation/customers/123", Some("/aggregation/customers")),
        ("/aggregation/12345/x", Some("/aggregation")),
        ("/aggregation", Some("/aggregation")),
        ("/applications/12345", Some("/applications")),
        ("/Aggregation/v1", None),
        ("/%61ggregation/v1", None),
        ("/12345/aggregation", None),
        ("/someone@example.com", None),
        ("//aggregation", None),
        ("/", None),
        ("*", None),
        ("", None),
    ] {
        assert_eq!(Catalogue::us().known_prefix(path), expected, "{path}");
    }
    let segments =
        Catalogue::us().prefixes.iter().flat_map(|prefix| prefix.split('/')).filter(|segment| !segment.is_empty());
    for segment in segments {
        let is_word = segment.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
        let is_version = segment.len() == 2 && segment.starts_with('v');
        // A product of the vendor's.
        assert!(is_word || is_version || segment == "ca360", "{segment} may identify a person");
    }
    assert!(Catalogue::us().prefixes.len() < 100, "{}", Catalogue::us().prefixes.len());
}

#[test]
fn every_operation_is_found_with_parameters_filled_in() {
    for (index, operation) in Catalogue::us().operations().enumerate() {
        assert_eq!(operation.index(), Some(index));
        let path: Vec<&str> =
            operation.template().split('/').map(|s| if s.starts_with('{') { "10050612" } else { s }).collect();
        let method = Method::from_bytes(operation.method().as_bytes()).unwrap();
        assert_eq!(find(&method, &path.join("/")), operation, "{}", operation.template());
    }
}

#[test]
fn the_table_is_sorted_without_duplicates() {
    let keys: Vec<_> = rows().iter().map(|row| (row.template, row.method)).collect();
    assert!(keys.is_sorted());
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert_eq!(rows().iter().filter(|row| row.slow).count(), 5);
}

#[test]
fn a_line_with_an_unknown_word_is_malformed() {
    assert!(Row::parse(0, "GET\t/a\tslow\tfree\tsecret\t-\t-").is_some_and(|row| row.slow && row.secret));
    for line in [
        "GET\t/a\t-\tfree\t-",
        "GET\t/a\t-\tfree\t-\t-\t-\t-",
        "GET\t/a\tSlow\tfree\t-\t-\t-",
        "GET\t/a\t-\tyes\t-\t-\t-",
        "GET\t/a\t-\t-\t-\t-\t-",
        "GET\t/a\t-\tfree\tslow\t-\t-",
        "GET\t/a\t-\tfree\t-\tapp\t-",
        "GET\t/a\t-\tfree\t-\t-\tpartner-id",
        "GET\t/a\t-\tfree\t-\t-\t",
    ] {
        assert!(Row::parse(0, line).is_none(), "{line}");
    }
}

fn templates(wanted: impl Fn(&Operation) -> bool) -> Vec<&'static str> {
    Catalogue::us().operations().filter(wanted).map(Operation::template).collect()
}

/// Only these calls are retried after their connection failed. Adding a row needs a reason.
#[test]
fn the_free_get_operations_are_these() {
    let free = templates(|operation| operation.method() == "GET" && !operation.is_billable());
    assert_eq!(
        free,
        [
            "/aggregation/v1/customers",
            "/aggregation/v1/customers/{customerId}",
            "/aggregation/v1/customers/{customerId}/application",
            "/aggregation/v2/customers",
            "/aggregation/v2/partners/applications",
            "/applications",
            "/applications/{application_id}/institutions",
            "/business-services/businesses/{business_id}",
            "/business-services/customers/{customer_id}/businesses",
            "/connect-components/configurations",
            "/connect-components/configurations/{configuration_id}",
            "/connect/experiences",
            "/customers/institution-logins/{institution_login_id}/authorization-details",
            "/data-sharing-consents",
            "/data-sharing-consents/{consent_receipt_id}",
            "/decisioning/v1/consumers/{consumerId}",
            "/decisioning/v1/customers/{customerId}/consumer",
            "/decisioning/v1/partners/{partnerId}/billing/reseller",
            "/institution/v1/institutions/routingNumber/{routing_number}",
            "/institution/v2/certifiedInstitutions",
            "/institution/v2/certifiedInstitutions/rssd",
            "/institution/v2/institutions",
            "/institution/v2/institutions/{institutionId}",
            "/institution/v2/institutions/{institutionId}/branding",
            "/notification-subscriptions/webhooks",
            "/notification-subscriptions/webhooks/events",
            "/notification-subscriptions/webhooks/{subscription_id}",
        ]
    );
}

#[test]
fn billed_unclear_and_unknown_calls_count_as_billable() {
    let named = |word| rows().iter().filter(|row| row.billing == word).count();
    // By the vendor's description, 30 operations are billed and 6 are free. One older edition is classified like its successor.
    assert_eq!((named(Billing::Billed), named(Billing::Free), named(Billing::Unclear)), (31, 60, 81));
    assert_eq!(templates(|operation| operation.is_billable()).len(), 31 + 81);
    assert!(Operation::OTHER.is_billable());
}

#[test]
fn secrets_are_marked_and_no_get_operation_carries_one() {
    let secret = templates(|operation| operation.bears_secret());
    for template in [
        "/aggregation/v2/partners/authentication",
        "/aggregation/v1/partners/accessKey",
        "/aggregation/v1/customers/{customerId}/accounts/{accountId}/txpush",
        "/connect/v2/generate/lite",
    ] {
        assert!(secret.contains(&template), "{template}");
    }
    assert_eq!(templates(|operation| operation.bears_secret() && operation.method() == "GET"), [""; 0]);
    assert!(!Operation::OTHER.bears_secret());
}

#[test]
fn the_operations_with_a_partner_id_are_these() {
    let partner_id = templates(|operation| operation.takes_partner_id());
    assert_eq!(
        partner_id,
        [
            "/connect/generate/transfer/bill-pay-switch",
            "/connect/generate/transfer/deposit-switch",
            "/connect/v1/generate",
            "/connect/v1/send/email",
            "/connect/v2/generate",
            "/connect/v2/generate/fix",
            "/connect/v2/generate/jointBorrower",
            "/connect/v2/generate/lite",
            "/connect/v2/generate/microentry/verify",
            "/connect/v2/send/email",
            "/connect/v2/send/email/jointBorrower",
        ]
    );
    let all_post_secrets = |operation: &Operation| operation.method() == "POST" && operation.bears_secret();
    assert_eq!(templates(|operation| operation.takes_partner_id() && all_post_secrets(operation)), partner_id);
    assert!(!Operation::OTHER.takes_partner_id());
}

#[test]
fn only_notifications_and_consents_take_app_headers() {
    let app_headers = templates(|operation| operation.names_app_headers());
    let is_family = |template: &str| {
        template.starts_with("/notification-subscriptions/webhooks") || template.starts_with("/data-sharing-consents")
    };
    assert_eq!(app_headers.len(), 16);
    assert!(app_headers.into_iter().all(is_family));
    assert!(!Operation::OTHER.names_app_headers());
}
