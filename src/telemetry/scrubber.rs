//! The last net under redaction: the live secrets are looked for in every byte that leaves the process by its outputs, in every
//! usual encoding, and replaced.
//!
//! Types and habits keep secrets out of the log; what this finds is a bug of theirs, so each catch is counted and told. A secret
//! is found as it is, in hexadecimal, as decimal numbers and in base64 at each of its three offsets; and all of these also where
//! any of their characters are percent-encoded or escaped as JSON and Rust do, in any mixture, three times over.
//!
//! The search is our own, on three tables that are overwritten when a secret goes: an automaton of a library's would keep the
//! secrets in memory that nobody can overwrite.
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

use self::{encodings::Watched, index::Index, unescape::Escapes};
use crate::secret::Secret;

/// What stands where a secret stood.
pub const SCRUBBED: &[u8] = b"[scrubbed]";

/// The shortest secret that is looked for. A shorter one would be found in words and numbers that have nothing to do with it,
/// and is guessed in seconds anyway.
pub const MIN_SECRET_BYTES: usize = 6;

/// How many layers of escaping are undone: JSON in a percent-encoded query in JSON has three.
const MAX_LAYERS: usize = 3;

/// Knows the live secrets and takes them out of text. A handle, cheap to clone; all clones know the same.
#[derive(Clone, Default)]
pub struct Scrubber(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: ArcSwap<Known>,
    catches: AtomicU64,
}

/// What was found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    /// How many times.
    pub times: u64,
    /// Whose secret the first of them was, as it was named to [`Scrubber::know`].
    pub holder: &'static str,
}

impl Scrubber {
    /// From now on `values` are the secrets of `holder`. Those that it had until now are still looked for, since they may be on
    /// their way out, until the next change; those before them are forgotten and their memory overwritten.
    pub fn know(&self, holder: &'static str, mut values: Vec<Secret<Vec<u8>>>) {
        // What is never looked for has no forms to be made; an empty value has none at all.
        values.retain(|value| value.expose().len() >= MIN_SECRET_BYTES);
        if !self.0.known.load().held.iter().any(|held| held.has(holder, &values)) {
            self.0.known.rcu(|known| known.with(holder, &values));
        }
    }

    /// Replaces every secret in `text`, which must begin and end where lines do, and says what it found.
    pub fn scrub(&self, text: &mut Vec<u8>) -> Option<Caught> {
        let caught = self.0.known.load().scrub(text)?;
        self.0.catches.fetch_add(caught.times, Ordering::Relaxed);
        Some(caught)
    }

    /// How many secrets were found since the start.
    pub fn catches(&self) -> u64 {
        self.0.catches.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber")
    }
}

/// The secrets at one moment, and what finds them.
#[derive(Default)]
struct Known {
    held: Vec<Held>,
    index: Index,
}

#[derive(Clone)]
struct Held {
    holder: &'static str,
    present: Vec<Arc<Watched>>,
    former: Vec<Arc<Watched>>,
}

impl Held {
    fn has(&self, holder: &'static str, values: &[Secret<Vec<u8>>]) -> bool {
        let values = values.iter().map(|value| value.expose().as_slice());
        self.holder == holder && self.present.iter().map(|watched| watched.secret()).eq(values)
    }
}

impl Known {
    fn with(&self, holder: &'static str, values: &[Secret<Vec<u8>>]) -> Self {
        // One copy of a secret is enough, whoever holds it.
        let all = || self.held.iter().flat_map(|held| held.present.iter().chain(&held.former));
        let watched = |value: &Secret<Vec<u8>>| {
            let known = all().find(|watched| watched.secret() == value.expose());
            known.map_or_else(|| Arc::new(Watched::new(value.expose())), Arc::clone)
        };
        let present = values.iter().map(watched).collect();
        let mut held = self.held.clone();
        match held.iter_mut().find(|held| held.holder == holder) {
            Some(held) => held.former = std::mem::replace(&mut held.present, present),
            None => held.push(Held { holder, present, former: Vec::new() }),
        }
        // What two holders have is the later one's: an environment's values become those of what was made of it.
        let mut secrets: Vec<(&'static str, &Arc<Watched>)> = Vec::new();
        for held in held.iter().rev() {
            for watched in held.present.iter().chain(&held.former) {
                if secrets.iter().all(|(_, known)| !Arc::ptr_eq(known, watched)) {
                    secrets.push((held.holder, watched));
                }
            }
        }
        let index = Index::new(&secrets);
        Self { held, index }
    }

    fn scrub(&self, text: &mut Vec<u8>) -> Option<Caught> {
        let mut found = Found::default();
        self.index.find(text, |range, holder| found.add(range, holder));
        let mut start = 0;
        while !self.index.is_empty() && start < text.len() {
            // Undoing escapes is slow, and lines of this program's own have none.
            let Some(at) = memchr::memchr2(b'%', b'\\', &text[start..]).map(|at| start + at) else { break };
            let line = memchr::memrchr(b'\n', &text[..at]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end + 1);
            self.look_behind(&Escapes::none(&text[line..end]), line, MAX_LAYERS, &mut found);
            start = end;
        }
        found.replace_in(text)
    }

    /// Looks in `text`, which begins at `origin`, behind so many layers of escapes.
    fn look_behind(&self, text: &Escapes, origin: usize, layers: usize, found: &mut Found) {
        for plain in [text.without_backslashes(), text.without_percents()].into_iter().flatten() {
            self.index.find(plain.text(), |range, holder| {
                let range = plain.origin(range);
                found.add(origin + range.start..origin + range.end, holder);
            });
            if layers > 1 {
                self.look_behind(&plain, origin, layers - 1, found);
            }
        }
    }
}

/// Where secrets stand in a text.
#[derive(Default)]
struct Found {
    ranges: Vec<Range<usize>>,
    holder: Option<&'static str>,
}

impl Found {
    fn add(&mut self, range: Range<usize>, holder: &'static str) {
        self.ranges.push(range);
        self.holder.get_or_insert(holder);
    }

    fn replace_in(mut self, text: &mut Vec<u8>) -> Option<Caught> {
        let holder = self.holder?;
        self.ranges.sort_unstable_by_key(|range| range.start);
        let mut clean = Vec::with_capacity(text.len());
        let (mut times, mut copied) = (0, 0);
        let mut ranges = self.ranges.into_iter().peekable();
        while let Some(Range { start, mut end }) = ranges.next() {
            // What overlaps is one secret in two readings, or two in one.
            while let Some(next) = ranges.next_if(|next| next.start < end) {
                end = end.max(next.end);
            }
            // An escape that a secret begins or ends in goes with it: half of one would make the line no JSON.
            let start = (start - usize::from(is_escaped(text, start))).max(copied);
            let end = (end + usize::from(is_escaped(text, end))).min(text.len());
            clean.extend_from_slice(&text[copied..start]);
            clean.extend_from_slice(SCRUBBED);
            (times, copied) = (times + 1, end.max(copied));
        }
        clean.extend_from_slice(&text[copied..]);
        text.zeroize();
        *text = clean;
        Some(Caught { times, holder })
    }
}

/// Whether a backslash that is none itself stands before `at`.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests;
