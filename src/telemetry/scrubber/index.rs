//! Finds hundreds of encoded secrets in one pass over a text, with a lookup at every third byte.

use std::{ops::Range, sync::Arc};

use zeroize::{Zeroize as _, Zeroizing};

use super::{MIN_SECRET_BYTES, encodings::SecretForms};

/// Number of bytes per lookup. Four bytes rarely match by accident.
const WINDOW: usize = 4;

/// The filter contains the windows at the first `STRIDE` offsets of each form, so only every `STRIDE`th window of the text needs a lookup.
/// The window at the last of these offsets must end within the shortest form.
const STRIDE: usize = MIN_SECRET_BYTES - WINDOW + 1;

/// A bit for each 16-bit hash of a window: 8 KiB, which fit into the L1 cache.
type Filter = [u64; (1 << 16) / 64];

/// An index of the forms of all secrets. Dropping it overwrites its own data; the forms are overwritten with their last reference.
#[derive(Default)]
pub(super) struct Index {
    /// A bit for each window at one of the first `STRIDE` offsets of a form. `None` if there are no forms.
    filter: Option<Box<Zeroizing<Filter>>>,
    /// Sorted by their first window.
    entries: Vec<IndexEntry>,
}

/// One encoding of a secret.
struct IndexEntry {
    first: u32,
    secret: Arc<SecretForms>,
    encoding: usize,
    name: &'static str,
}

impl Index {
    /// An index of all encodings of `secrets`, each with the name of its set.
    pub(super) fn new(secrets: &[(&'static str, &Arc<SecretForms>)]) -> Self {
        let mut index = Self::default();
        for &(name, forms) in secrets {
            for (number, form) in forms.encodings().iter().enumerate() {
                let filter = index.filter.get_or_insert_with(|| Box::new(Zeroizing::new([0; (1 << 16) / 64])));
                for offset in 0..STRIDE {
                    let (word, bit) = filter_bit(window(form, offset));
                    filter[word] |= bit;
                }
                let secret = Arc::clone(forms);
                index.entries.push(IndexEntry { first: window(form, 0), secret, encoding: number, name });
            }
        }
        index.entries.sort_unstable_by_key(|entry| entry.first);
        index
    }

    /// Whether the index contains no secrets.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls `on_match` with the range and the set name of every match in `text`.
    pub(super) fn find(&self, text: &[u8], mut on_match: impl FnMut(Range<usize>, &'static str)) {
        let Some(filter) = self.filter.as_deref() else { return };
        let mut at = 0;
        // Hot loop: it runs over every byte of the log.
        while let Some(&window) = text.get(at..).and_then(<[u8]>::first_chunk) {
            let (word, bit) = filter_bit(u32::from_le_bytes(window));
            if filter[word] & bit != 0 {
                for start in at.saturating_sub(STRIDE - 1)..=at {
                    self.find_at(text, start, &mut on_match);
                }
            }
            at += STRIDE;
        }
    }

    fn find_at(&self, text: &[u8], start: usize, on_match: &mut impl FnMut(Range<usize>, &'static str)) {
        let first = window(text, start);
        let from = self.entries.partition_point(|entry| entry.first < first);
        for entry in self.entries[from..].iter().take_while(|entry| entry.first == first) {
            let form = &entry.secret.encodings()[entry.encoding];
            if text[start..].starts_with(form) {
                on_match(start..start + form.len(), entry.name);
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.first.zeroize());
    }
}

/// The window of `text` that begins at `at`.
fn window(text: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(text[at..at + WINDOW].try_into().expect("a window has four bytes"))
}

/// The word index and the bit in the filter for `window`. The hash is the upper half of a product, which depends on all bits of `window`.
fn filter_bit(window: u32) -> (usize, u64) {
    let hash = (window.wrapping_mul(0x9E37_79B1) >> 16) as usize;
    (hash / 64, 1 << (hash % 64))
}
