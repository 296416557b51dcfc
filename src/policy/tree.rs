//! Many rules as a tree, in which a path is found by its segments, however many rules there are.

use std::collections::HashMap;

use super::rule::{Methods, Rule, Segment};

/// The rules whose paths begin with the segments that lead here.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    next: HashMap<String, Self>,
    /// Whatever the next segment is.
    any: Option<Box<Self>>,
    /// The methods of those whose path ends here …
    here: Methods,
    /// … and of those that hold for all below, too.
    and_below: Methods,
}

impl Tree {
    /// The same with `rule`, whose fixed segments are spelt as `spell` says.
    pub(super) fn with(mut self, rule: &Rule, spell: fn(&str) -> String) -> Self {
        let end = rule.segments.iter().fold(&mut self, |tree, segment| match segment {
            Segment::Fixed(text) => tree.next.entry(spell(text)).or_default(),
            Segment::Any => tree.any.get_or_insert_default(),
        });
        if rule.and_below { &mut end.and_below } else { &mut end.here }.add(rule.methods);
        self
    }

    /// Whether a rule holds for one of `methods` and the path of `segments`. Each part of the tree is looked at once at the most, and
    /// none that is deeper than the path.
    pub(super) fn holds<S: AsRef<str>>(&self, methods: Methods, segments: impl Iterator<Item = S> + Clone) -> bool {
        let (mut tree, mut segments) = (self, segments);
        // Where the path can be followed two ways, the other one.
        let mut forks = Vec::new();
        loop {
            if tree.and_below.has(methods) {
                return true;
            }
            let next = match segments.next() {
                None if tree.here.has(methods) => return true,
                None => None,
                Some(segment) => {
                    let (fixed, any) = (tree.next.get(segment.as_ref()), tree.any.as_deref());
                    if let (Some(_), Some(any)) = (fixed, any) {
                        forks.push((any, segments.clone()));
                    }
                    fixed.or(any)
                }
            };
            (tree, segments) = match next {
                Some(next) => (next, segments),
                None => match forks.pop() {
                    Some(fork) => fork,
                    None => return false,
                },
            };
        }
    }
}
