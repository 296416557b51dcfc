//! The last line of defence behind redaction: scans all output of the process for live secrets, in all common encodings, and replaces
//! them.
//!
//! Types and code review keep secrets out of the log, so every hit is a bug; it is counted and logged. A secret is found as is, in
//! hexadecimal, as decimal numbers, and in base64 at each of the three offsets; also if characters of these forms are percent-encoded, or
//! escaped as in JSON and Rust, in any combination, up to three layers deep.
//!
//! The search is our own, on tables that are overwritten when a secret is removed. The automaton of a library would keep secrets in memory
//! that cannot be overwritten.
//!
//! Deliberately absent: parts of secrets, identifiers, and secrets below [`MIN_SECRET_BYTES`].

mod encodings;
mod index;
mod unescape;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use zeroize::Zeroize as _;

use self::{encodings::SecretForms, index::Index, unescape::Unescaped};
use crate::secret::Secret;

/// The replacement for a secret.
pub const SCRUBBED: &[u8] = b"[scrubbed]";

/// Minimum length of a secret to search for. A shorter one would match unrelated words and numbers, and can be guessed in seconds anyway.
pub const MIN_SECRET_BYTES: usize = 6;

/// Number of escape layers that are decoded. For example, JSON in a percent-encoded query in JSON has three.
const MAX_ESCAPE_LAYERS: usize = 3;

/// Holds the live secrets and replaces them in text. Cheap to clone; all clones share the secrets.
#[derive(Clone, Default)]
pub struct Scrubber(Arc<ScrubberState>);

#[derive(Default)]
struct ScrubberState {
    secrets: ArcSwap<Secrets>,
    hits: AtomicU64,
}

/// The secrets found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Number of occurrences.
    pub times: u64,
    /// The set of the first one; see [`Scrubber::register`].
    pub name: &'static str,
}

impl Scrubber {
    /// Makes `values` the current secrets of the set `name`. The previous values are kept until the next change, because they may occur in
    /// lines that are not written yet. Values before those are removed, and their memory is overwritten.
    pub fn register(&self, name: &'static str, mut values: Vec<Secret<Vec<u8>>>) {
        // Values that are too short to search for need no encodings; an empty value has none.
        values.retain(|value| value.expose().len() >= MIN_SECRET_BYTES);
        if !self.0.secrets.load().sets.iter().any(|set| set.matches(name, &values)) {
            self.0.secrets.rcu(|secrets| secrets.with_set(name, &values));
        }
    }

    /// Replaces every secret in `text`, which must consist of whole lines. Returns the secrets found, if any.
    pub fn scrub(&self, text: &mut Vec<u8>) -> Option<Found> {
        let found = self.0.secrets.load().scrub(text)?;
        self.0.hits.fetch_add(found.times, Ordering::Relaxed);
        Some(found)
    }

    /// The number of secrets found since the start.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber")
    }
}

/// An immutable snapshot of the secrets, with their index.
#[derive(Default)]
struct Secrets {
    sets: Vec<SecretSet>,
    index: Index,
}

/// The secrets registered under one name.
#[derive(Clone)]
struct SecretSet {
    name: &'static str,
    current: Vec<Arc<SecretForms>>,
    previous: Vec<Arc<SecretForms>>,
}

impl SecretSet {
    fn matches(&self, name: &'static str, values: &[Secret<Vec<u8>>]) -> bool {
        let values = values.iter().map(|value| value.expose().as_slice());
        self.name == name && self.current.iter().map(|forms| forms.secret()).eq(values)
    }
}

impl Secrets {
    fn with_set(&self, name: &'static str, values: &[Secret<Vec<u8>>]) -> Self {
        // Sets that contain the same secret share one copy.
        let all = || self.sets.iter().flat_map(|set| set.current.iter().chain(&set.previous));
        let forms_of = |value: &Secret<Vec<u8>>| {
            let existing = all().find(|forms| forms.secret() == value.expose());
            existing.map_or_else(|| Arc::new(SecretForms::new(value.expose())), Arc::clone)
        };
        let current = values.iter().map(forms_of).collect();
        let mut sets = self.sets.clone();
        match sets.iter_mut().find(|set| set.name == name) {
            Some(set) => set.previous = std::mem::replace(&mut set.current, current),
            None => sets.push(SecretSet { name, current, previous: Vec::new() }),
        }
        // A secret in several sets is indexed once, with the name of the set that was added last.
        let mut secrets: Vec<(&'static str, &Arc<SecretForms>)> = Vec::new();
        for set in sets.iter().rev() {
            for forms in set.current.iter().chain(&set.previous) {
                if secrets.iter().all(|(_, added)| !Arc::ptr_eq(added, forms)) {
                    secrets.push((set.name, forms));
                }
            }
        }
        let index = Index::new(&secrets);
        Self { sets, index }
    }

    fn scrub(&self, text: &mut Vec<u8>) -> Option<Found> {
        let mut matches = Matches::default();
        self.index.find(text, |range, name| matches.add(range, name));
        let mut start = 0;
        while !self.index.is_empty() && start < text.len() {
            // Skip lines without escapes: decoding is slow, and this program's own lines have none.
            let Some(at) = memchr::memchr2(b'%', b'\\', &text[start..]).map(|at| start + at) else { break };
            let line = memchr::memrchr(b'\n', &text[..at]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end + 1);
            self.scan_unescaped(&Unescaped::verbatim(&text[line..end]), line, MAX_ESCAPE_LAYERS, &mut matches);
            start = end;
        }
        matches.replace_in(text)
    }

    /// Decodes up to `layers` layers of escapes in `text`, and scans the result of each. `origin` is the offset of `text` in the output.
    fn scan_unescaped(&self, text: &Unescaped, origin: usize, layers: usize, matches: &mut Matches) {
        for decoded in [text.backslash_decoded(), text.percent_decoded()].into_iter().flatten() {
            self.index.find(decoded.text(), |range, name| {
                let range = decoded.origin(range);
                matches.add(origin + range.start..origin + range.end, name);
            });
            if layers > 1 {
                self.scan_unescaped(&decoded, origin, layers - 1, matches);
            }
        }
    }
}

/// The positions of secrets in a text.
#[derive(Default)]
struct Matches {
    ranges: Vec<Range<usize>>,
    name: Option<&'static str>,
}

impl Matches {
    fn add(&mut self, range: Range<usize>, name: &'static str) {
        self.ranges.push(range);
        self.name.get_or_insert(name);
    }

    fn replace_in(mut self, text: &mut Vec<u8>) -> Option<Found> {
        let name = self.name?;
        self.ranges.sort_unstable_by_key(|range| range.start);
        let mut clean = Vec::with_capacity(text.len());
        let (mut times, mut copied) = (0, 0);
        let mut ranges = self.ranges.into_iter().peekable();
        while let Some(Range { start, mut end }) = ranges.next() {
            // Merge overlapping matches: one secret in two encodings, or two overlapping secrets.
            while let Some(next) = ranges.next_if(|next| next.start < end) {
                end = end.max(next.end);
            }
            // If a match begins or ends within an escape, replace the whole escape: half of it would make the line invalid JSON.
            let start = (start - usize::from(is_escaped(text, start))).max(copied);
            let end = (end + usize::from(is_escaped(text, end))).min(text.len());
            clean.extend_from_slice(&text[copied..start]);
            clean.extend_from_slice(SCRUBBED);
            (times, copied) = (times + 1, end.max(copied));
        }
        clean.extend_from_slice(&text[copied..]);
        text.zeroize();
        *text = clean;
        Some(Found { times, name })
    }
}

/// Whether an unescaped backslash precedes `at`.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests;
