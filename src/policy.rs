//! The operator's policy for calls (`[policy]`): an allow list, a deny list, and whether billable calls are denied.
//!
//! Rules are stored in tries of path segments, so a lookup costs the same with a thousand rules as with ten. Without rules there is no
//! lookup.
//!
//! Deny rules match the canonical form of a path, which merges all spellings that any server may treat as the same path. Allow rules
//! match the decoded path, in the exact spelling of the rule. A path that has different segments in the two forms is denied as
//! ambiguous, because the next server may find other segments in it than the rules did.

mod rule;
mod trie;

use http::Method;
use percent_encoding::percent_decode_str;

pub use rule::Rule;
use rule::{Methods, segments};
use trie::Trie;

use crate::{
    message::path::{canonical, has_unambiguous_segments, is_already_canonical},
    vendor::catalogue::{Catalogue, Operation},
};

/// How requests that the policy denies are handled (`policy.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are rejected.
    #[default]
    Enforce,
    /// They are forwarded, and the access line and the metrics report them.
    Report,
}

labels! {
    /// Why a request is denied.
    pub enum Denial {
        /// A rule denies it (`policy.deny`).
        Denied = "denied",
        /// The vendor may bill it (`policy.deny_billable`).
        Billable = "billable",
        /// The vendor may bill it, and the day's budget is spent (`policy.billable_per_day`).
        BudgetSpent = "billing_budget_spent",
        /// No rule allows it (`policy.allow`).
        NotAllowed = "not_allowed",
        /// Its path is ambiguous: servers may split it into different segments.
        Ambiguous = "unclear",
    }
}

/// The operator's rules.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `None` if everything is allowed.
    allow: Option<Trie>,
    deny: Option<Trie>,
    deny_billable: bool,
    /// Exceptions from `deny_billable`.
    billable_allowed: Option<Trie>,
    mode: Mode,
    unknown: Vec<String>,
}

impl Policy {
    /// Allows the calls that `allow` matches, or all calls if it is empty. Denies the calls that `deny` matches and, with
    /// `deny_billable`, those that `catalogue` does not list as free.
    pub fn new(catalogue: &'static Catalogue, allow: &[Rule], deny: &[Rule], deny_billable: bool, mode: Mode) -> Self {
        // A server processes HEAD like GET, so denying GET also denies HEAD.
        let denied: Vec<Rule> = deny.iter().map(Rule::with_head).collect();
        let unknown = [("policy.allow", allow), ("policy.deny", deny)];
        let unknown = unknown.into_iter().flat_map(|(key, rules)| self::unknown(key, rules, catalogue)).collect();
        // The canonical form of a rule's segments is their lower case, because they have no other characters to normalize.
        Self {
            allow: trie(allow, str::to_owned),
            deny: trie(&denied, str::to_ascii_lowercase),
            deny_billable,
            billable_allowed: None,
            mode,
            unknown,
        }
    }

    /// Exempts the calls that `rules` match from `deny_billable`.
    #[must_use]
    pub fn with_billable_allowed(mut self, catalogue: &'static Catalogue, rules: &[Rule]) -> Self {
        self.unknown.extend(unknown("policy.billable_allowed", rules, catalogue));
        self.billable_allowed = trie(rules, str::to_owned);
        self
    }

    /// The rules that match no operation of the catalogue: typos, or rules for calls that the catalogue does not have.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// How denied requests are handled.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the policy denies nothing.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_none() && !self.deny_billable
    }

    /// Checks whether a call with `method` and `path`, which is `operation`, may be forwarded.
    ///
    /// # Errors
    ///
    /// The reason for the denial.
    pub fn check(&self, method: &Method, path: &str, operation: Operation) -> Result<(), Denial> {
        let methods = Methods::of(method);
        if self.allow.is_some() || self.deny.is_some() {
            let form = form(path).ok_or(Denial::Ambiguous)?;
            if self.deny.as_ref().is_some_and(|deny| deny.matches(methods, segments(&form))) {
                return Err(Denial::Denied);
            }
        }
        let allowed = |allow: &Trie| {
            let segments: Vec<_> =
                segments(path).map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect();
            allow.matches(methods, segments.iter())
        };
        if self.deny_billable && operation.is_billable() {
            // The next server may find another operation in an ambiguous path.
            let is_exempt = |rules| allowed(rules) && form(path).is_some();
            if !self.billable_allowed.as_ref().is_some_and(is_exempt) {
                return Err(Denial::Billable);
            }
        }
        if self.allow.as_ref().is_none_or(allowed) { Ok(()) } else { Err(Denial::NotAllowed) }
    }
}

/// The trie of `rules`; `None` if there are none.
fn trie(rules: &[Rule], normalize: fn(&str) -> String) -> Option<Trie> {
    let mut trie = Trie::default();
    rules.iter().for_each(|rule| trie.insert(rule, normalize));
    (!rules.is_empty()).then_some(trie)
}

/// The rules of `key` that match no operation of `catalogue`, by position.
fn unknown(key: &str, rules: &[Rule], catalogue: &'static Catalogue) -> Vec<String> {
    let rules = (1..).zip(rules).filter(|(_, rule)| !rule.matches_some_of(catalogue));
    rules.map(|(position, _)| format!("rule {position} of {key}")).collect()
}

/// The canonical form of `path`; `None` if its segments do not correspond one to one to those of `path`. No segment of `path` may be read
/// as two, so an equal number of segments means that none was dropped either.
fn form(path: &str) -> Option<String> {
    if is_already_canonical(path) {
        return Some(path.to_ascii_lowercase());
    }
    let form = canonical(path).ok().filter(|form| form.is_ascii() && has_unambiguous_segments(path))?;
    (segments(&form).count() == segments(path).count()).then_some(form)
}

#[cfg(test)]
mod tests;
