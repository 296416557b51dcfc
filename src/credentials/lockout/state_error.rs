//! Errors of the state on disk, and their remedies.

use std::io::{self, ErrorKind};

/// The layout version of the files. A file with another version is from another release, and its latches cannot be read.
pub(super) const VERSION: u32 = 1;

/// More than twice the maximum size of the state under the bounds of [`Rejections`](super::rejections::Rejections) and
/// [`Attempts`](super::attempts::Attempts). A larger file is not a state file.
pub(super) const MAX_FILE_BYTES: u64 = 256 * 1024;

/// An error of the state on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("the directory cannot be created")]
    Directory(#[source] io::Error),
    #[error("the lock file cannot be locked")]
    Lock(#[source] io::Error),
    #[error("another process holds the lock and does not release it")]
    Busy,
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    #[error("the file cannot be written")]
    Write(#[source] io::Error),
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("the file is damaged at line {line}, column {column}")]
    Damaged { line: usize, column: usize },
    #[error("the key in the file is damaged")]
    DamagedKey,
    #[error("the file has version {0}; this program supports version {VERSION}")]
    Version(u32),
    #[error("the file was replaced by one with another key")]
    AnotherKey,
    #[error("system random number generator unavailable")]
    Randomness,
}

impl StateError {
    /// Whether the file system is read-only, so that no process can write there.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Directory(error) | Self::Lock(error) | Self::Write(error)
            if error.kind() == ErrorKind::ReadOnlyFilesystem)
    }

    /// The remedy for an operator.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Directory(_) | Self::Lock(_) | Self::Write(_) => {
                "make its directory writable for this user, with free space, or set auth.state_dir to another directory"
            }
            Self::Busy => "find the stopped process that uses the same auth.state_dir, and kill it",
            Self::Read(_) => "make it readable for this user, or set auth.state_dir to another directory",
            Self::TooLarge | Self::Damaged { .. } | Self::DamagedKey | Self::Version(_) => {
                "it protects the vendor account against lock-out by rejected credentials: restore a good copy, or remove the \
                 file if the current credentials are known to be correct"
            }
            Self::AnotherKey => "restart the proxy to read it again",
            Self::Randomness => "check why the system random number generator does not work",
        }
    }
}
