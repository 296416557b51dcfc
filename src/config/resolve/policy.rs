//! `[policy]`: which calls are allowed.

use super::super::reader::Reader;
use crate::{
    policy::{Mode, Policy, Rule},
    vendor::catalogue::Catalogue,
};

/// The policy, for the operations of `catalogue`.
pub(super) fn policy(read: &mut Reader<'_>, catalogue: &'static Catalogue) -> Policy {
    let keys = ["policy.allow", "policy.deny", "policy.billable_allowed"];
    let [allow, deny, billable_allowed] = keys.map(|key| rules(read, key));
    // Separators alone are probably a list that lost its items, for example to an empty variable. That must not allow everything.
    for (key, rules) in keys.into_iter().zip([&allow, &deny, &billable_allowed]) {
        if rules.is_empty() && read.list(key).is_empty() && !read.is_text(key, "") && !read.is_empty_list(key) {
            read.problem(key, "contains only separators: add rules, or leave it empty");
        }
    }
    let deny_billable = read.flag("policy.deny_billable");
    let mode = read.choice("policy.mode", &[("enforce", Mode::Enforce), ("report", Mode::Report)]);
    Policy::new(catalogue, &allow, &deny, deny_billable, mode).with_billable_allowed(catalogue, &billable_allowed)
}

/// Maximum number of billable calls per day; `None` for no limit.
pub(super) fn billable_per_day(read: &mut Reader<'_>) -> Option<u64> {
    Some(read.number("policy.billable_per_day", 0..=1_000_000_000) as u64).filter(|per_day| *per_day > 0)
}

fn rules(read: &mut Reader<'_>, key: &'static str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (number, text) in (1..).zip(read.list(key)) {
        match text.parse() {
            Ok(rule) => rules.push(rule),
            Err(error) => read.problem(key, format!("rule {number} {error}")),
        }
    }
    rules
}
