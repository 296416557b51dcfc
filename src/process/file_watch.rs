//! Detects file changes by polling.
//!
//! Polling detects all kinds of changes, including the links that Kubernetes swaps; inotify misses swaps on some kinds of volume. The
//! caller chooses what a poll compares: a hash of the content, or metadata such as [`FileId`].
//!
//! Deliberately absent: reading files, timers and tasks. The caller polls after [`Watcher::next_poll`] and passes the result.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, time::Duration};

/// The poll interval for an unchanged file. The kubelet takes up to 90 seconds to update a mounted file, so two more seconds do not
/// matter, and a poll costs a few system calls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Decides when to apply a change of one or more files: when two consecutive polls return the same result, and it differs from the
/// applied one. This avoids reading a file that is still being written.
///
/// `S` is the result of one poll; equal values mean that nothing changed. A missing or unreadable file is such a value too, so each
/// error is reported once.
#[derive(Debug)]
pub struct Watcher<S> {
    applied: S,
    last_seen: S,
    debounce: Duration,
}

impl<S: Clone + PartialEq> Watcher<S> {
    /// Starts with `applied` in use. A change is applied after two polls, `debounce` apart, have returned it.
    pub fn new(applied: S, debounce: Duration) -> Self {
        Self { last_seen: applied.clone(), applied, debounce }
    }

    /// The time until the next poll.
    pub fn next_poll(&self) -> Duration {
        if self.last_seen == self.applied { POLL_INTERVAL } else { self.debounce }
    }

    /// Takes the result of a poll. Returns whether to apply it now; it then counts as applied, whether or not applying succeeds.
    pub fn observe(&mut self, seen: S) -> bool {
        let is_stable_change = seen == self.last_seen && seen != self.applied;
        if is_stable_change {
            self.applied = seen.clone();
        }
        self.last_seen = seen;
        is_stable_change
    }

    /// Takes the result of a poll that the caller applies unconditionally, for example after SIGHUP.
    pub fn applied(&mut self, seen: S) {
        self.last_seen = seen.clone();
        self.applied = seen;
    }
}

/// The identity of a file and its content. The status change time (ctime) also reveals changed permissions, and writes by programs
/// that restore the modification time.
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

    /// Polls one version after another (`None`: the file is missing); returns the indices of the applied ones.
    fn polls(versions: &[Option<&str>]) -> Vec<usize> {
        let mut watcher = Watcher::new(Some("one"), DEBOUNCE);
        (0..versions.len()).filter(|index| watcher.observe(versions[*index])).collect()
    }

    #[test]
    fn a_change_is_applied_once_after_two_equal_polls() {
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
    fn an_unconditionally_applied_version_is_not_reapplied() {
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
