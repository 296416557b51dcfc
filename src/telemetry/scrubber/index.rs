//! Finds any of some hundred encoded secrets in one pass that looks at every third byte.

use std::{ops::Range, sync::Arc};

use zeroize::{Zeroize as _, Zeroizing};

use super::{MIN_SECRET_BYTES, encodings::SecretForms};

/// How many bytes are looked at together. Few texts have four of a secret's by accident.
const WINDOW: usize = 4;

/// The filter has every form's windows at its first `STRIDE` offsets, so that only every `STRIDE`th window of the text is looked up.
/// The last of them must end within the shortest form.
const STRIDE: usize = MIN_SECRET_BYTES - WINDOW + 1;

/// The filter: 8 KiB, which stay in a core's nearest cache. A bit for each hash of 16 bits.
type Filter = [u64; (1 << 16) / 64];

/// The forms of all secrets. Its own data is overwritten when it is dropped; the forms are overwritten with the last reference.
#[derive(Default)]
pub(super) struct Index {
    /// A bit for each window that a form has at one of its first `STRIDE` offsets. `None` when there are no forms.
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

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls `on_match` with the range of every match in `text`, and with the name of the set that it belongs to.
    pub(super) fn find(&self, text: &[u8], mut on_match: impl FnMut(Range<usize>, &'static str)) {
        let Some(filter) = self.filter.as_deref() else { return };
        let mut at = 0;
        // Every byte of the log passes here; nothing in this loop but what it needs.
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

/// The window of `text` at `at`.
fn window(text: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(text[at..at + WINDOW].try_into().expect("a window has four bytes"))
}

/// The word and the bit of the filter for `window`: the upper bits of a product, which all of its bits have gone into.
fn filter_bit(window: u32) -> (usize, u64) {
    let hash = (window.wrapping_mul(0x9E37_79B1) >> 16) as usize;
    (hash / 64, 1 << (hash % 64))
}
