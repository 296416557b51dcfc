//! Finds any of some hundred forms in one pass that looks at every third byte.

use std::{ops::Range, sync::Arc};

use zeroize::{Zeroize as _, Zeroizing};

use super::{MIN_SECRET_BYTES, encodings::Watched};

/// How many bytes are looked at together. Few texts have four of a secret's by accident.
const WINDOW: usize = 4;

/// Every form's windows at its first so many places are in the filter, so that one of so many windows of the text is looked up.
/// The last of them must end within the shortest form.
const STEP: usize = MIN_SECRET_BYTES - WINDOW + 1;

/// The filter: 8 KiB, which stay in a core's nearest cache. A bit for each hash of 16 bits.
type Filter = [u64; (1 << 16) / 64];

/// The forms of all secrets. What is its own is overwritten when it is dropped; the forms are, with the last who holds them.
#[derive(Default)]
pub(super) struct Index {
    /// A bit for each window that some form has at one of its first places. `None` when there are no forms.
    filter: Option<Box<Zeroizing<Filter>>>,
    /// By their first window.
    forms: Vec<Entry>,
}

/// One form of a secret.
struct Entry {
    first: u32,
    watched: Arc<Watched>,
    form: usize,
    holder: &'static str,
}

impl Index {
    /// Of all forms of `secrets`, each with its holder.
    pub(super) fn new(secrets: &[(&'static str, &Arc<Watched>)]) -> Self {
        let mut index = Self::default();
        for &(holder, watched) in secrets {
            for (number, form) in watched.forms().iter().enumerate() {
                let filter = index.filter.get_or_insert_with(|| Box::new(Zeroizing::new([0; (1 << 16) / 64])));
                for place in 0..STEP {
                    let (word, bit) = slot(window(form, place));
                    filter[word] |= bit;
                }
                let watched = Arc::clone(watched);
                index.forms.push(Entry { first: window(form, 0), watched, form: number, holder });
            }
        }
        index.forms.sort_unstable_by_key(|entry| entry.first);
        index
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Calls `tell` with the place of every form in `text`, and with its holder.
    pub(super) fn find(&self, text: &[u8], mut tell: impl FnMut(Range<usize>, &'static str)) {
        let Some(filter) = self.filter.as_deref() else { return };
        let mut at = 0;
        // Every byte of the log passes here; nothing in this loop but what it needs.
        while let Some(&window) = text.get(at..).and_then(<[u8]>::first_chunk) {
            let (word, bit) = slot(u32::from_le_bytes(window));
            if filter[word] & bit != 0 {
                for start in at.saturating_sub(STEP - 1)..=at {
                    self.find_at(text, start, &mut tell);
                }
            }
            at += STEP;
        }
    }

    fn find_at(&self, text: &[u8], start: usize, tell: &mut impl FnMut(Range<usize>, &'static str)) {
        let first = window(text, start);
        let from = self.forms.partition_point(|entry| entry.first < first);
        for entry in self.forms[from..].iter().take_while(|entry| entry.first == first) {
            let form = &entry.watched.forms()[entry.form];
            if text[start..].starts_with(form) {
                tell(start..start + form.len(), entry.holder);
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.forms.iter_mut().for_each(|entry| entry.first.zeroize());
    }
}

/// The window of `text` at `at`.
fn window(text: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(text[at..at + WINDOW].try_into().expect("a window has four bytes"))
}

/// The word and the bit of the filter for `window`: the upper bits of a product, which all of its bits have gone into.
fn slot(window: u32) -> (usize, u64) {
    let hash = (window.wrapping_mul(0x9E37_79B1) >> 16) as usize;
    (hash / 64, 1 << (hash % 64))
}
