//! What callers may call, as the operator has it (`[policy]`): a list of what is allowed, one of what is not, and nothing that costs
//! money.
//!
//! Rules are kept as trees of path segments, so that a request is looked up by its own segments, and costs the same with a thousand
//! rules as with ten. Without rules nothing is looked up.
//!
//! A path is judged in two forms. What is *denied* is found by its canonical form, which merges all spellings that some server takes
//! for the same path; what is *allowed* must be spelt as the rule is, once decoded. A path of which the two forms differ in their
//! segments is neither: it is refused, since whoever reads it next may find other segments in it than the rules did.

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

/// What is done about a request that the policy denies (`policy.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It goes on; the access line and the metrics tell of it.
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
        /// Its path can be read in more than one way.
        Ambiguous = "unclear",
    }
}

/// The operator's rules.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `None` when everything is allowed.
    allow: Option<Trie>,
    deny: Option<Trie>,
    deny_billable: bool,
    /// What may be called although it may be billed.
    billable_allowed: Option<Trie>,
    mode: Mode,
    unknown: Vec<String>,
}

impl Policy {
    /// What `allow` names, or everything if that is empty; but not what `deny` names, nor, with `deny_billable`, what the catalogue
    /// does not know to be free.
    pub fn new(catalogue: &'static Catalogue, allow: &[Rule], deny: &[Rule], deny_billable: bool, mode: Mode) -> Self {
        // A server answers HEAD by doing what it does for GET.
        let denied: Vec<Rule> = deny.iter().map(Rule::with_head).collect();
        let unknown = [("policy.allow", allow), ("policy.deny", deny)];
        let unknown = unknown.into_iter().flat_map(|(key, rules)| self::unknown(key, rules, catalogue)).collect();
        // The canonical form of what a rule may be made of is its lower case.
        Self {
            allow: trie(allow, str::to_owned),
            deny: trie(&denied, str::to_ascii_lowercase),
            deny_billable,
            billable_allowed: None,
            mode,
            unknown,
        }
    }

    /// The same, in which `deny_billable` does not concern what `rules` name.
    #[must_use]
    pub fn with_billable_allowed(mut self, catalogue: &'static Catalogue, rules: &[Rule]) -> Self {
        self.unknown.extend(unknown("policy.billable_allowed", rules, catalogue));
        self.billable_allowed = trie(rules, str::to_owned);
        self
    }

    /// The rules that match no operation of the catalogue: typing errors, unless they are meant for calls that it does not have.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// What is done about what it denies.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether nothing is ever denied.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_none() && !self.deny_billable
    }

    /// Whether a call with `method` of `path`, which is `operation`, may go to the upstream.
    ///
    /// # Errors
    ///
    /// Why it may not.
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
            // Whoever reads an ambiguous path next may find another operation in it.
            let is_exempt = |rules| allowed(rules) && form(path).is_some();
            if !self.billable_allowed.as_ref().is_some_and(is_exempt) {
                return Err(Denial::Billable);
            }
        }
        if self.allow.as_ref().is_none_or(allowed) { Ok(()) } else { Err(Denial::NotAllowed) }
    }
}

/// The tree of `rules`, if there are any.
fn trie(rules: &[Rule], normalize: fn(&str) -> String) -> Option<Trie> {
    let mut trie = Trie::default();
    rules.iter().for_each(|rule| trie.insert(rule, normalize));
    (!rules.is_empty()).then_some(trie)
}

/// The rules of `key` that match no operation of `catalogue`, by their positions.
fn unknown(key: &str, rules: &[Rule], catalogue: &'static Catalogue) -> Vec<String> {
    let rules = (1..).zip(rules).filter(|(_, rule)| !rule.matches_some_of(catalogue));
    rules.map(|(position, _)| format!("rule {position} of {key}")).collect()
}

/// The canonical form of `path`, if it has the same segments, one by one: none of them is two for some reader, so that with as many in
/// both none was left out either.
fn form(path: &str) -> Option<String> {
    if is_already_canonical(path) {
        return Some(path.to_ascii_lowercase());
    }
    let form = canonical(path).ok().filter(|form| form.is_ascii() && has_unambiguous_segments(path))?;
    (segments(&form).count() == segments(path).count()).then_some(form)
}

#[cfg(test)]
mod tests;
