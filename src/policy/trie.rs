//! A trie of rules by path segment. The cost of a lookup does not depend on the number of rules.

use std::collections::HashMap;

use super::rule::{Methods, Rule, Segment};

/// A node: the rules with the path segments that lead to it as a prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Trie {
    /// The nodes for fixed next segments.
    children: HashMap<String, Self>,
    /// The node for any next segment.
    any: Option<Box<Self>>,
    /// The methods of the rules that end at this node.
    exact: Methods,
    /// The methods of the rules that match this path and all paths below it.
    prefix: Methods,
}

impl Trie {
    /// Adds `rule`, with `normalize` applied to its fixed segments.
    pub(super) fn insert(&mut self, rule: &Rule, normalize: fn(&str) -> String) {
        let node = rule.segments.iter().fold(self, |node, segment| match segment {
            Segment::Fixed(text) => node.children.entry(normalize(text)).or_default(),
            Segment::Any => node.any.get_or_insert_default(),
        });
        if rule.is_prefix { &mut node.prefix } else { &mut node.exact }.add(rule.methods);
    }

    /// Whether a rule matches one of `methods` and the path of `segments`. Visits each node at most once, and none deeper than the path.
    pub(super) fn matches<S: AsRef<str>>(&self, methods: Methods, segments: impl Iterator<Item = S> + Clone) -> bool {
        let (mut node, mut segments) = (self, segments);
        // The nodes to backtrack to, from segments that match both a fixed child and `any`.
        let mut alternatives = Vec::new();
        loop {
            if node.prefix.has(methods) {
                return true;
            }
            let next = match segments.next() {
                None if node.exact.has(methods) => return true,
                None => None,
                Some(segment) => {
                    let (fixed, any) = (node.children.get(segment.as_ref()), node.any.as_deref());
                    if let (Some(_), Some(any)) = (fixed, any) {
                        alternatives.push((any, segments.clone()));
                    }
                    fixed.or(any)
                }
            };
            (node, segments) = match next {
                Some(next) => (next, segments),
                None => match alternatives.pop() {
                    Some(alternative) => alternative,
                    None => return false,
                },
            };
        }
    }
}
