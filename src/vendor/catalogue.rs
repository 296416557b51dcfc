//! The vendor's operations, compiled in: which calls exist, under which path template, and which of them are slow, may be
//! billed, or carry a secret.
//!
//! Logs and metrics name a request by its template, so that no customer id gets into either and the number of label
//! values is bounded by this table. A call that is not in it is still forwarded, under the label [`OTHER`].
//!
//! How the rows are judged stands at the head of the table. What is unclear counts as billed, and so does what is not in the
//! table, since only a call that certainly costs nothing may be sent twice without anyone having asked for it.

use std::{collections::HashSet, sync::LazyLock};

use http::Method;
use memchr::memchr3;

/// What a request is called whose method and path are not in the catalogue.
pub const OTHER: &str = "other";

/// The method label of a request that is not in the catalogue (OpenTelemetry's word for it).
const OTHER_METHOD: &str = "_OTHER";

static OPERATIONS: LazyLock<Operations> = LazyLock::new(|| Operations::parse(include_str!("catalogue/operations.tsv")));

/// The starts of the templates, of one and of two fixed segments.
static PREFIXES: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let prefixes = OPERATIONS.rows.iter().flat_map(|row| starts(row.template)).flatten();
    prefixes.filter(|prefix| !prefix.contains('{')).collect()
});

/// The part of the catalogue that `path` lies in though it is none of its operations: its first two segments, or its first one,
/// where templates begin with just that. Everything else that a path has may identify somebody.
pub fn prefix(path: &str) -> Option<&'static str> {
    let [one, two] = starts(path);
    [two, one].into_iter().flatten().find_map(|start| PREFIXES.get(start).copied())
}

/// The first segment of `path` and its first two, each with the slashes before it, as far as there are so many.
fn starts(path: &str) -> [Option<&str>; 2] {
    let mut ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    [ends.next(), ends.next()].map(|end| end.map(|end| &path[..end]))
}

/// One operation of the catalogue, or the place of all that are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route(u16);

impl Route {
    /// The place of every request that is not in the catalogue.
    pub const OTHER: Self = Self(u16::MAX);

    /// The operation that `method` and `path` (without its query) name. Parameters match one whole, non-empty segment;
    /// the match is on the bytes as sent, so a percent-encoded spelling of a fixed segment is not that operation.
    pub fn find(method: &Method, path: &str) -> Self {
        // Where a server decodes, folds or cuts a path first, it is another operation than its bytes say: perhaps a billed one.
        if !path.is_ascii() || memchr3(b'%', b';', b'\\', path.as_bytes()).is_some() {
            return Self::OTHER;
        }
        let Ok(found) = OPERATIONS.paths.at(path) else { return Self::OTHER };
        found
            .value
            .iter()
            .find(|index| OPERATIONS.rows[usize::from(**index)].method == method.as_str())
            .map_or(Self::OTHER, |index| Self(*index))
    }

    /// Every operation of the catalogue, by template.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..OPERATIONS.rows.len()).map(|index| Self(u16::try_from(index).expect("fewer than 65,536 rows")))
    }

    /// A number below [`Route::count`], for tables that hold something for each route.
    pub fn index(self) -> usize {
        usize::from(self.0).min(OPERATIONS.rows.len())
    }

    /// How many routes there are, [`Route::OTHER`] included.
    pub fn count() -> usize {
        OPERATIONS.rows.len() + 1
    }

    /// The path template, as the vendor writes it: `/aggregation/v1/customers/{customerId}`.
    pub fn template(self) -> &'static str {
        self.row().map_or(OTHER, |row| row.template)
    }

    /// The method, or `_OTHER`.
    pub fn method(self) -> &'static str {
        self.row().map_or(OTHER_METHOD, |row| row.method)
    }

    /// Whether the vendor says that the answer may take minutes, because it waits for a bank.
    pub fn is_slow(self) -> bool {
        self.row().is_some_and(|row| row.slow)
    }

    /// Whether the vendor may bill the call: unless it is known to cost nothing.
    pub fn is_billable(self) -> bool {
        self.row().is_none_or(|row| row.billing != Billing::Free)
    }

    /// Whether the request or its answer carries a secret: credentials, a token, a key, or a link that lets its holder in.
    pub fn bears_secret(self) -> bool {
        self.row().is_some_and(|row| row.secret)
    }

    fn row(self) -> Option<&'static Row> {
        OPERATIONS.rows.get(usize::from(self.0))
    }
}

struct Row {
    method: &'static str,
    template: &'static str,
    slow: bool,
    billing: Billing,
    secret: bool,
}

impl Row {
    /// The row that stands in `line`, if each of its fields has one of the words that belong there.
    fn parse(line: &'static str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [method, template, slow, billing, secret] = fields.try_into().ok()?;
        let billing = match billing {
            "billed" => Billing::Billed,
            "free" => Billing::Free,
            "unclear" => Billing::Unclear,
            _ => return None,
        };
        Some(Self { method, template, slow: mark(slow, "slow")?, billing, secret: mark(secret, "secret")? })
    }
}

/// What is known of an operation's price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Billing {
    Billed,
    Free,
    Unclear,
}

/// Whether `field` has the `word`; `None` when it has another one.
fn mark(field: &str, word: &str) -> Option<bool> {
    (field == word || field == "-").then_some(field == word)
}

struct Operations {
    rows: Vec<Row>,
    /// Path template to the rows that share it, one for each method.
    paths: matchit::Router<Vec<u16>>,
}

impl Operations {
    fn parse(table: &'static str) -> Self {
        let rows: Vec<Row> = table
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| Row::parse(line).expect("a test reads every line of operations.tsv"))
            .collect();

        let mut paths = matchit::Router::new();
        let mut start = 0;
        while start < rows.len() {
            let same = rows[start..].iter().take_while(|row| row.template == rows[start].template).count();
            let indices = (start..start + same).map(|i| u16::try_from(i).expect("fewer than 65,536 rows")).collect();
            paths.insert(positional(rows[start].template), indices).expect("templates of operations.tsv are distinct");
            start += same;
        }
        Self { rows, paths }
    }
}

/// The template with its parameters named by their place, since the vendor names the same place `customerId` in one
/// operation and `customer_id` in another, which the router takes for a conflict.
fn positional(template: &str) -> String {
    let segments = template
        .split('/')
        .enumerate()
        .map(|(place, segment)| if segment.starts_with('{') { format!("{{p{place}}}") } else { segment.to_owned() });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, template: &str) {
        assert_eq!(Route::find(&method, path).template(), template, "{method} {path}");
    }

    #[test]
    fn no_operation_that_may_be_billed_is_a_free_one_in_another_case() {
        // `policy.deny_billable` goes by the operation; a server may not care about case, and then take a value for a fixed segment.
        let segments = |route: Route| route.template().split('/').collect::<Vec<_>>();
        let covers = |free: &str, billable: &str| free.starts_with('{') || free.eq_ignore_ascii_case(billable);
        for billable in Route::all().filter(|route| route.is_billable()) {
            for free in Route::all().filter(|route| !route.is_billable() && route.method() == billable.method()) {
                let (free, billable) = (segments(free), segments(billable));
                let covered = free.len() == billable.len()
                    && free.iter().zip(&billable).all(|(free, billable)| covers(free, billable));
                assert!(!covered, "{free:?} {billable:?}");
            }
        }
    }

    #[test]
    fn a_request_is_named_by_its_template() {
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
    fn templates_can_stand_in_a_log_line_as_they_are() {
        for row in &OPERATIONS.rows {
            assert!(
                row.template.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'),
                "{}",
                row.template
            );
        }
    }

    #[test]
    fn what_is_not_in_the_catalogue_is_other() {
        check(Method::GET, "/", OTHER);
        check(Method::PATCH, "/aggregation/v1/customers", OTHER);
        check(Method::GET, "/aggregation/v1/customers/", OTHER);
        check(Method::GET, "/aggregation/v1/%63ustomers", OTHER);
        check(Method::GET, "/aggregation/v1/customers/1/2/3/4", OTHER);
        check(Method::GET, "/aggregation/v1/customers/1%2Faccounts%2F2%2FavailableBalance", OTHER);
        check(Method::GET, "/aggregation/v1/customers/1\\x", OTHER);
        check(Method::GET, "/aggregation/v1/customers/1;x", OTHER);
        assert_eq!(Route::OTHER.method(), "_OTHER");
        assert_eq!(Route::OTHER.index(), Route::count() - 1);
    }

    #[test]
    fn l07_the_start_of_an_unknown_path_is_told_where_the_catalogue_has_it_too() {
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
            assert_eq!(prefix(path), expected, "{path}");
        }
        let segments = PREFIXES.iter().flat_map(|prefix| prefix.split('/')).filter(|segment| !segment.is_empty());
        for segment in segments {
            let is_word = segment.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
            let is_version = segment.len() == 2 && segment.starts_with('v');
            // A product of the vendor's.
            assert!(is_word || is_version || segment == "ca360", "{segment} may identify somebody");
        }
        assert!(PREFIXES.len() < 100, "{}", PREFIXES.len());
    }

    #[test]
    fn every_operation_finds_itself_when_its_parameters_are_filled_in() {
        for index in 0..Route::count() - 1 {
            let route = Route(u16::try_from(index).unwrap());
            let path: Vec<&str> =
                route.template().split('/').map(|s| if s.starts_with('{') { "10050612" } else { s }).collect();
            let method = Method::from_bytes(route.method().as_bytes()).unwrap();
            assert_eq!(Route::find(&method, &path.join("/")), route, "{}", route.template());
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_no_row_twice() {
        let rows: Vec<_> = OPERATIONS.rows.iter().map(|row| (row.template, row.method)).collect();
        assert!(rows.is_sorted());
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len());
        assert_eq!(OPERATIONS.rows.iter().filter(|row| row.slow).count(), 5);
    }

    #[test]
    fn a_line_with_another_word_in_it_is_refused() {
        assert!(Row::parse("GET\t/a\tslow\tfree\tsecret").is_some_and(|row| row.slow && row.secret));
        for line in [
            "GET\t/a\t-\tfree",
            "GET\t/a\t-\tfree\t-\t-",
            "GET\t/a\tSlow\tfree\t-",
            "GET\t/a\t-\tyes\t-",
            "GET\t/a\t-\t-\t-",
            "GET\t/a\t-\tfree\tslow",
            "GET\t/a\t-\tfree\t",
        ] {
            assert!(Row::parse(line).is_none(), "{line}");
        }
    }

    fn templates(wanted: impl Fn(&Route) -> bool) -> Vec<&'static str> {
        let routes = (0..Route::count() - 1).map(|index| Route(u16::try_from(index).unwrap()));
        routes.filter(wanted).map(Route::template).collect()
    }

    /// These, and only these, may be sent a second time after a connection broke. A row that joins them needs a reason.
    #[test]
    fn the_calls_that_read_and_cost_nothing_are_these() {
        let free = templates(|route| route.method() == "GET" && !route.is_billable());
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
    fn what_is_billed_or_unclear_or_unknown_counts_as_billable() {
        let named = |word| OPERATIONS.rows.iter().filter(|row| row.billing == word).count();
        // The vendor's description says so of 30, and of 6 the opposite; one of an older edition is judged like its successor.
        assert_eq!((named(Billing::Billed), named(Billing::Free), named(Billing::Unclear)), (31, 60, 81));
        assert_eq!(templates(|route| route.is_billable()).len(), 31 + 81);
        assert!(Route::OTHER.is_billable());
    }

    #[test]
    fn what_carries_a_secret_is_known_and_nothing_that_only_reads_does() {
        let secret = templates(|route| route.bears_secret());
        for template in [
            "/aggregation/v2/partners/authentication",
            "/aggregation/v1/partners/accessKey",
            "/aggregation/v1/customers/{customerId}/accounts/{accountId}/txpush",
            "/connect/v2/generate/lite",
        ] {
            assert!(secret.contains(&template), "{template}");
        }
        assert_eq!(templates(|route| route.bears_secret() && route.method() == "GET"), [""; 0]);
        assert!(!Route::OTHER.bears_secret());
    }
}
