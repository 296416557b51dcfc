//! The last line of defence behind redaction: all output of the process is scanned for the live secrets, in every usual encoding, and
//! they are replaced.
//!
//! Types and habits keep secrets out of the log; what this finds is a bug of theirs, so each hit is counted and logged. A secret
//! is found as it is, in hexadecimal, as decimal numbers and in base64 at each of its three offsets; and all of these also where
//! any of their characters are percent-encoded or escaped as JSON and Rust do, in any mixture, three times over.
//!
//! The search is our own, on three tables that are overwritten when a secret is removed. A library's automaton would keep the secrets
//! in memory that cannot be overwritten.
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

/// The shortest secret that is looked for. A shorter one would be found in words and numbers that have nothing to do with it,
/// and is guessed in seconds anyway.
pub const MIN_SECRET_BYTES: usize = 6;

/// How many layers of escaping are decoded: JSON in a percent-encoded query in JSON has three.
const MAX_ESCAPE_LAYERS: usize = 3;

/// Holds the live secrets and replaces them in text. A handle, cheap to clone; all clones share the secrets.
#[derive(Clone, Default)]
pub struct Scrubber(Arc<ScrubberState>);

#[derive(Default)]
struct ScrubberState {
    secrets: ArcSwap<Secrets>,
    hits: AtomicU64,
}

/// What was found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many times.
    pub times: u64,
    /// The name of the set that the first of them belongs to; see [`Scrubber::register`].
    pub name: &'static str,
}

impl Scrubber {
    /// Makes `values` the current secrets of the set `name`. The previous ones are still looked for until the next change, since they
    /// may be in lines that have not been written yet; those before them are removed and their memory is overwritten.
    pub fn register(&self, name: &'static str, mut values: Vec<Secret<Vec<u8>>>) {
        // Values that are never looked for need no forms; an empty value has none.
        values.retain(|value| value.expose().len() >= MIN_SECRET_BYTES);
        if !self.0.secrets.load().sets.iter().any(|set| set.matches(name, &values)) {
            self.0.secrets.rcu(|secrets| secrets.with_set(name, &values));
        }
    }

    /// Replaces every secret in `text`, which must consist of whole lines. Returns what was found.
    pub fn scrub(&self, text: &mut Vec<u8>) -> Option<Found> {
        let found = self.0.secrets.load().scrub(text)?;
        self.0.hits.fetch_add(found.times, Ordering::Relaxed);
        Some(found)
    }

    /// How many secrets were found since the start.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber")
    }
}

/// The secrets at one moment, and the index that finds them.
#[derive(Default)]
struct Secrets {
    sets: Vec<SecretSet>,
    index: Index,
}

/// The secrets that were registered under one name.
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
        // A secret of two sets is reported with the name of the later one: the environment's values become those of what was made of it.
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
            // Decoding escapes is slow, and lines of this program's own have none.
            let Some(at) = memchr::memchr2(b'%', b'\\', &text[start..]).map(|at| start + at) else { break };
            let line = memchr::memrchr(b'\n', &text[..at]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end + 1);
            self.scan_unescaped(&Unescaped::verbatim(&text[line..end]), line, MAX_ESCAPE_LAYERS, &mut matches);
            start = end;
        }
        matches.replace_in(text)
    }

    /// Scans `text`, which begins at `origin`, with up to `layers` layers of escapes decoded.
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

/// Where secrets were found in a text.
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
            // Matches that overlap are one secret in two encodings, or two secrets in one text.
            while let Some(next) = ranges.next_if(|next| next.start < end) {
                end = end.max(next.end);
            }
            // An escape that a secret begins or ends in is replaced with it: half of one would make the line invalid JSON.
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
