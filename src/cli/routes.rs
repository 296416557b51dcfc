//! `routes`: lists the vendor's operations and the policy's decision for each.

use std::fmt::Write as _;

use http::Method;

use super::output::{eprint, print};
use crate::{
    config::{self, Inputs},
    policy::{Denial, Mode},
    vendor::catalogue::Operation,
};

/// Prints a line for each operation of the catalogue. Needs no network and no credentials.
pub(super) fn run(inputs: &Inputs) -> anyhow::Result<()> {
    let (catalogue, policy) = config::policy(inputs)?;
    for rule in policy.unknown() {
        eprint(format_args!("{rule} matches no known operation"));
    }
    let mut lines = String::new();
    let mut line = |decision: Result<(), Denial>, cost: &str, operation: Operation, method: &str, path: &str| {
        let decision = decision.map_or_else(Denial::as_str, |()| "allowed");
        let slow = if operation.is_slow() { "slow" } else { "-" };
        let secret = if operation.bears_secret() { "secret" } else { "-" };
        writeln!(lines, "{decision:<12} {cost:<9} {slow:<5} {secret:<7} {method:<7} {path}")
    };
    for operation in catalogue.operations() {
        let (method, template) = (operation.method(), operation.template());
        let cost = if operation.is_billable() { "billable" } else { "free" };
        let decision = policy.check(&Method::from_bytes(method.as_bytes())?, template, operation);
        line(decision, cost, operation, method, template)?;
    }
    print(lines.trim_end());
    if policy.mode() == Mode::Report && !policy.is_open() {
        eprint("policy.mode is \"report\": requests that are not allowed are forwarded, and only reported");
    }
    Ok(())
}
