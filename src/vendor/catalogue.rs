//! The vendor's operations: the calls of a region's API with their path templates, and which of them are slow, may be billed, carry a
//! secret, name the partner in their body, or take further headers.
//!
//! Logs and metrics label a request with its template, so that neither contains customer IDs, and the table bounds the number of label
//! values. A call that is not in the table is still forwarded, with the label [`OTHER`].
//!
//! The comment at the top of each table explains how its rows were classified. Operations with unclear billing, and calls outside the
//! table, count as billed: only a call that is certainly free may be sent twice without the client requesting it.
//!
//! A catalogue is a value: the proxy's configuration names the one in use. To add a region, add its table to `catalogue/` and a
//! constructor next to [`Catalogue::us`].

use std::{collections::HashSet, ptr, sync::LazyLock};

use http::Method;
use memchr::memchr3;

/// The route label of a request whose method and path are not in the catalogue.
pub const OTHER: &str = "other";

/// The method label of such a request (`_OTHER` in OpenTelemetry's semantic conventions).
const OTHER_METHOD: &str = "_OTHER";

/// The operations of one region's API. It lives as long as the process, so an [`Operation`] is a plain reference into it.
#[derive(Debug)]
pub struct Catalogue {
    rows: Vec<Row>,
    /// Maps a path template to its rows, one for each method.
    paths: matchit::Router<Vec<usize>>,
    /// The first segment, and the first two segments, of each template, unless they contain a parameter.
    prefixes: HashSet<&'static str>,
}

impl Catalogue {
    /// The API of the United States, at `api.finicity.com`.
    pub fn us() -> &'static Self {
        static US: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::parse(include_str!("catalogue/operations.tsv")));
        &US
    }

    /// Parses `table`: lines of tab-separated method, template, slowness, billing, secrecy, body and headers, sorted by template.
    ///
    /// # Panics
    ///
    /// When a line is malformed, or lines with the same template are not adjacent. Tables are compiled in, and a test parses each.
    fn parse(table: &'static str) -> Self {
        let rows: Vec<Row> = table
            .lines()
            .filter(|line| !line.starts_with('#'))
            .enumerate()
            .map(|(index, line)| Row::parse(index, line).expect("a test parses every line of the table"))
            .collect();
        let mut paths = matchit::Router::new();
        for of_one_path in rows.chunk_by(|one, next| one.template == next.template) {
            let indices = of_one_path.iter().map(|row| row.index).collect();
            paths.insert(positional(of_one_path[0].template), indices).expect("the templates of a table are distinct");
        }
        let prefixes = rows.iter().flat_map(|row| leading_segments(row.template)).flatten();
        let prefixes = prefixes.filter(|prefix| !prefix.contains('{')).collect();
        Self { rows, paths, prefixes }
    }

    /// The operation for `method` and `path`, without its query. A parameter matches one whole, non-empty segment. Bytes are compared as
    /// sent, so a percent-encoded spelling of a fixed segment does not match.
    pub fn find(&'static self, method: &Method, path: &str) -> Operation {
        // A server that decodes, folds or cuts such a path first may execute another operation than its bytes say, possibly a billed one.
        if !path.is_ascii() || memchr3(b'%', b';', b'\\', path.as_bytes()).is_some() {
            return Operation::OTHER;
        }
        let Ok(found) = self.paths.at(path) else { return Operation::OTHER };
        let mut of_the_path = found.value.iter().map(|index| &self.rows[*index]);
        Operation(of_the_path.find(|row| row.method == method.as_str()))
    }

    /// The first two segments of `path`, or only its first one, if a template begins with exactly these. For logging a path that is not in
    /// the catalogue: any other part of it may identify a person.
    pub fn known_prefix(&self, path: &str) -> Option<&'static str> {
        let [one, two] = leading_segments(path);
        [two, one].into_iter().flatten().find_map(|leading| self.prefixes.get(leading).copied())
    }

    /// All operations, sorted by template.
    pub fn operations(&'static self) -> impl ExactSizeIterator<Item = Operation> {
        self.rows.iter().map(|row| Operation(Some(row)))
    }
}

/// The first segment of `path`, and its first two, each with the preceding slashes; `None` if there are fewer.
fn leading_segments(path: &str) -> [Option<&str>; 2] {
    let mut ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    [ends.next(), ends.next()].map(|end| end.map(|end| &path[..end]))
}

/// One operation of a catalogue, or [`Operation::OTHER`].
#[derive(Clone, Copy, Debug)]
pub struct Operation(Option<&'static Row>);

impl Operation {
    /// Represents every request that is not in the catalogue.
    pub const OTHER: Self = Self(None);

    /// Whether it is [`Operation::OTHER`].
    pub fn is_other(self) -> bool {
        self.0.is_none()
    }

    /// Its row number in its catalogue, from 0, as an index for per-operation tables; `None` for [`Operation::OTHER`].
    pub fn index(self) -> Option<usize> {
        self.0.map(|row| row.index)
    }

    /// The path template, as the vendor writes it: `/aggregation/v1/customers/{customerId}`.
    pub fn template(self) -> &'static str {
        self.0.map_or(OTHER, |row| row.template)
    }

    /// The method, or `_OTHER`.
    pub fn method(self) -> &'static str {
        self.0.map_or(OTHER_METHOD, |row| row.method)
    }

    /// Whether the vendor documents that the response may take minutes, because it waits for a bank.
    pub fn is_slow(self) -> bool {
        self.0.is_some_and(|row| row.slow)
    }

    /// Whether the vendor may bill the call: true unless the call is known to be free.
    pub fn is_billable(self) -> bool {
        self.0.is_none_or(|row| row.billing != Billing::Free)
    }

    /// Whether the request or its response carries a secret: credentials, a token, a key, or a link that grants access.
    pub fn bears_secret(self) -> bool {
        self.0.is_some_and(|row| row.secret)
    }

    /// Whether its JSON body names the partner (`partnerId`). This holds for the Connect operations that generate or send a link.
    pub fn takes_partner_id(self) -> bool {
        self.0.is_some_and(|row| row.partner_id)
    }

    /// Whether the vendor's description lists the headers `App-Key` and `App-Token` for it, in addition to those of all operations.
    pub fn names_app_headers(self) -> bool {
        self.0.is_some_and(|row| row.app_headers)
    }
}

impl PartialEq for Operation {
    /// Compares by identity: the same row of the same catalogue.
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Some(one), Some(other)) => ptr::eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Operation {}

#[derive(Debug)]
struct Row {
    index: usize,
    method: &'static str,
    template: &'static str,
    slow: bool,
    billing: Billing,
    secret: bool,
    partner_id: bool,
    app_headers: bool,
}

impl Row {
    /// Parses `line`. `None` unless it has seven fields, each with a word of its column.
    fn parse(index: usize, line: &'static str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [method, template, slow, billing, secret, body, headers] = fields.try_into().ok()?;
        let billing = match billing {
            "billed" => Billing::Billed,
            "free" => Billing::Free,
            "unclear" => Billing::Unclear,
            _ => return None,
        };
        let (slow, secret) = (flag(slow, "slow")?, flag(secret, "secret")?);
        let (partner_id, app_headers) = (flag(body, "partner-id")?, flag(headers, "app")?);
        Some(Self { index, method, template, slow, billing, secret, partner_id, app_headers })
    }
}

/// Whether the vendor bills an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Billing {
    Billed,
    Free,
    Unclear,
}

/// Parses `field`: true for `word`, false for `-`, `None` for anything else.
fn flag(field: &str, word: &str) -> Option<bool> {
    (field == word || field == "-").then_some(field == word)
}

/// `template` with its parameters named by position. The vendor names the same parameter `customerId` in one operation and `customer_id`
/// in another, which the router would report as a conflict.
fn positional(template: &str) -> String {
    let segments = template.split('/').enumerate().map(|(position, segment)| {
        if segment.starts_with('{') { format!("{{p{position}}}") } else { segment.to_owned() }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests;
