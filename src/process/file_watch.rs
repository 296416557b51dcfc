//! Changes of files, found by polling.
//!
//! A poll works for every way to change a file, the links that Kubernetes swaps included; inotify misses the swaps of some kinds of
//! volume. What a poll looks at is up to the caller: a hash of the content, or metadata such as [`FileId`].
//!
//! Deliberately absent: reading files, timers and tasks. The caller looks after [`Watcher::next_look`], and hands over what it saw.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, time::Duration};

/// How often an unchanged file is looked at. The kubelet takes up to a minute to bring a new version, so this adds nothing that
/// anyone would notice, and a look costs a few system calls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Decides when a change of a file, or of several, is to be applied: when a look differs from what was applied, and the look before
/// it was the same, so that a file that is being written is not read halfway.
///
/// `S` is what one look saw; equal values mean that nothing changed. That the file is missing or cannot be read is such a value
/// too, so each error is reported once.
#[derive(Debug)]
pub struct Watcher<S> {
    applied: S,
    last: S,
    settle: Duration,
}

impl<S: Clone + PartialEq> Watcher<S> {
    /// Starts from `applied`, which is in use. A change counts when two looks within `settle` have seen it.
    pub fn new(applied: S, settle: Duration) -> Self {
        Self { last: applied.clone(), applied, settle }
    }

    /// The time until the next look.
    pub fn next_look(&self) -> Duration {
        if self.last == self.applied { POLL_INTERVAL } else { self.settle }
    }

    /// Takes what a look saw. Returns whether it is to be applied now; it counts as applied then, whether or not that succeeds.
    pub fn observe(&mut self, seen: S) -> bool {
        let is_due = seen == self.last && seen != self.applied;
        if is_due {
            self.applied = seen.clone();
        }
        self.last = seen;
        is_due
    }

    /// Takes what a look saw that is applied whether or not it is new, as after SIGHUP.
    pub fn applied(&mut self, seen: S) {
        self.last = seen.clone();
        self.applied = seen;
    }
}

/// The identity of a file and of its content. The time of the status change also shows corrected permissions, and writers that
/// restore the time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    status_changed: (i64, i64),
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            status_changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(1);

    /// Looks at one version after the other (`None` for a file that is gone); returns the indices of those that are applied.
    fn looks(versions: &[Option<&str>]) -> Vec<usize> {
        let mut watcher = Watcher::new(Some("one"), SETTLE);
        (0..versions.len()).filter(|index| watcher.observe(versions[*index])).collect()
    }

    #[test]
    fn a_change_is_applied_once_and_when_it_has_settled() {
        let (one, two, three) = (Some("one"), Some("two"), Some("three"));
        for (versions, expected) in [
            (&[one, one][..], &[][..]),
            (&[two, two, two], &[1]),
            (&[two, three, three], &[2]),
            (&[two, one, two, one], &[]),
            (&[None, None, None], &[1]),
            (&[None, one, one], &[]),
            (&[None, None, one, one, one], &[1, 3]),
            (&[two, two, one, one], &[1, 3]),
            (&[None, None, two, two, None, None], &[1, 3, 5]),
        ] {
            assert_eq!(looks(versions), expected, "{versions:?}");
        }
    }

    #[test]
    fn what_was_applied_out_of_turn_is_not_applied_again() {
        let mut watcher = Watcher::new("one", SETTLE);
        watcher.applied("two");
        assert!(!watcher.observe("two") && !watcher.observe("two"));
        assert!(!watcher.observe("one") && watcher.observe("one"));
    }

    #[test]
    fn a_change_is_looked_at_again_after_the_settling_time() {
        let mut watcher = Watcher::new("one", SETTLE);
        assert_eq!(watcher.next_look(), POLL_INTERVAL);
        watcher.observe("two");
        assert_eq!(watcher.next_look(), SETTLE);
        watcher.observe("two");
        assert_eq!(watcher.next_look(), POLL_INTERVAL);
        watcher.observe("three");
        watcher.applied("three");
        assert_eq!(watcher.next_look(), POLL_INTERVAL);
    }
}
