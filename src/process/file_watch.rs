//! Changes of files, found by polling.
//!
//! A poll works for every way to change a file, the links that Kubernetes swaps included; inotify misses the swaps of some kinds of
//! volume. What a poll compares is up to the caller: a hash of the content, or metadata such as [`FileId`].
//!
//! Deliberately absent: reading files, timers and tasks. The caller polls after [`Watcher::next_poll`], and passes the result.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, time::Duration};

/// How often an unchanged file is polled. The kubelet takes up to 90 seconds to bring a new version, so this adds nothing that
/// anyone would notice, and a poll costs a few system calls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Decides when a change of a file, or of several, is to be applied: when a poll differs from what was applied, and the poll before it
/// found the same, so that a file that is being written is not read halfway.
///
/// `S` is the result of one poll; equal values mean that nothing changed. That the file is missing or cannot be read is such a value
/// too, so each error is reported once.
#[derive(Debug)]
pub struct Watcher<S> {
    applied: S,
    last_seen: S,
    debounce: Duration,
}

impl<S: Clone + PartialEq> Watcher<S> {
    /// Starts from `applied`, which is in use. A change counts when two polls, `debounce` apart, have found it.
    pub fn new(applied: S, debounce: Duration) -> Self {
        Self { last_seen: applied.clone(), applied, debounce }
    }

    /// The time until the next poll.
    pub fn next_poll(&self) -> Duration {
        if self.last_seen == self.applied { POLL_INTERVAL } else { self.debounce }
    }

    /// Takes the result of a poll. Returns whether it is to be applied now; it counts as applied then, whether or not that succeeds.
    pub fn observe(&mut self, seen: S) -> bool {
        let is_stable_change = seen == self.last_seen && seen != self.applied;
        if is_stable_change {
            self.applied = seen.clone();
        }
        self.last_seen = seen;
        is_stable_change
    }

    /// Takes the result of a poll that is applied whether or not it is new, as after SIGHUP.
    pub fn applied(&mut self, seen: S) {
        self.last_seen = seen.clone();
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

    const DEBOUNCE: Duration = Duration::from_secs(1);

    /// Polls one version after the other (`None` for a file that is gone); returns the indices of those that are applied.
    fn polls(versions: &[Option<&str>]) -> Vec<usize> {
        let mut watcher = Watcher::new(Some("one"), DEBOUNCE);
        (0..versions.len()).filter(|index| watcher.observe(versions[*index])).collect()
    }

    #[test]
    fn a_change_is_applied_once_when_two_polls_have_found_it() {
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
            assert_eq!(polls(versions), expected, "{versions:?}");
        }
    }

    #[test]
    fn what_was_applied_out_of_turn_is_not_applied_again() {
        let mut watcher = Watcher::new("one", DEBOUNCE);
        watcher.applied("two");
        assert!(!watcher.observe("two") && !watcher.observe("two"));
        assert!(!watcher.observe("one") && watcher.observe("one"));
    }

    #[test]
    fn a_change_is_polled_again_after_the_debounce_time() {
        let mut watcher = Watcher::new("one", DEBOUNCE);
        assert_eq!(watcher.next_poll(), POLL_INTERVAL);
        watcher.observe("two");
        assert_eq!(watcher.next_poll(), DEBOUNCE);
        watcher.observe("two");
        assert_eq!(watcher.next_poll(), POLL_INTERVAL);
        watcher.observe("three");
        watcher.applied("three");
        assert_eq!(watcher.next_poll(), POLL_INTERVAL);
    }
}
