//! The routing table, collected from the tables of the modules.

use std::sync::LazyLock;

use super::{
    accounts, business, components, connect, consents, consumers, customers, institutions, microentry, owners,
    partners, payments, reports, route::Route, statements, transactions, transfers, txpush, webhooks,
};
use crate::vendor::catalogue::{Catalogue, Operation};

const TABLES: [&[Route]; 18] = [
    accounts::ROUTES,
    business::ROUTES,
    components::ROUTES,
    connect::ROUTES,
    consents::ROUTES,
    consumers::ROUTES,
    customers::ROUTES,
    institutions::ROUTES,
    microentry::ROUTES,
    owners::ROUTES,
    partners::ROUTES,
    payments::ROUTES,
    reports::ROUTES,
    statements::ROUTES,
    transactions::ROUTES,
    transfers::ROUTES,
    txpush::ROUTES,
    webhooks::ROUTES,
];

/// The routes, indexed by operation.
static ROUTES: LazyLock<Vec<Option<&'static Route>>> = LazyLock::new(|| {
    let all: Vec<&Route> = TABLES.iter().copied().flatten().collect();
    let of = |operation: Operation| {
        let is_it = |route: &&&Route| route.method == operation.method() && route.template == operation.template();
        all.iter().find(is_it).copied()
    };
    Catalogue::us().operations().map(of).collect()
});

/// The route of `operation`, if the sandbox has it.
pub(super) fn find(operation: Operation) -> Option<&'static Route> {
    ROUTES[operation.index()?]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sandbox::{reply::Failure, validate};

    /// The token requests, which `api` handles itself.
    const TOKEN_REQUESTS: [&str; 2] = ["/oauth/token", "/aggregation/v2/partners/authentication"];

    fn all() -> impl Iterator<Item = &'static Route> {
        TABLES.iter().copied().flatten()
    }

    #[test]
    fn every_operation_of_the_catalogue_has_one_route() {
        for operation in Catalogue::us().operations() {
            let (method, template) = (operation.method(), operation.template());
            let count = all().filter(|route| route.method == method && route.template == template).count();
            assert_eq!(count, usize::from(!TOKEN_REQUESTS.contains(&template)), "{method} {template}");
        }
        assert_eq!(ROUTES.iter().flatten().count(), all().count(), "a route of no operation");
    }

    #[test]
    fn every_notation_can_be_read() {
        let empty = serde_json::json!({});
        for route in all() {
            let results =
                [validate::check_query(route.query, &[]), validate::check_body(route.body.unwrap_or(""), &empty)];
            for Failure { message, .. } in results.into_iter().filter_map(Result::err) {
                assert!(message.starts_with("Missing parameter ("), "{} {}: {message}", route.method, route.template);
            }
        }
    }

    #[test]
    fn the_manual_lists_every_operation() {
        let manual = include_str!("../../docs/sandbox.md");
        let listed: BTreeSet<&str> =
            manual.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        for operation in Catalogue::us().operations() {
            let label = format!("{} {}", operation.method(), operation.template());
            assert!(listed.contains(label.as_str()), "docs/sandbox.md lacks {label}");
        }
        let known: BTreeSet<String> = Catalogue::us()
            .operations()
            .map(|operation| format!("{} {}", operation.method(), operation.template()))
            .collect();
        let unknown: Vec<_> = listed
            .iter()
            .filter(|row| row.contains(" /") && !row.contains(" /sandbox/") && !known.contains(**row))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
