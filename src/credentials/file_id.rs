//! What distinguishes a file from another one, and from itself before a write.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

/// The identity of a file and of its content. The time of the status change also shows corrected permissions, and writers that
/// restore the time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
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
