//! What can be wrong with the state on the disk, and what an operator does about it.

use std::io::{self, ErrorKind};

/// The layout of the file. Another number means another program wrote it, whose latches this one cannot read.
pub(super) const VERSION: u32 = 1;

/// More than twice the largest state that the bounds of [`Rejections`](super::rejections::Rejections) and
/// [`Attempts`](super::attempts::Attempts) allow. A larger file is something else.
pub(super) const MAX_FILE_BYTES: u64 = 256 * 1024;

/// What went wrong with the state on the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("the directory cannot be made")]
    Directory(#[source] io::Error),
    #[error("the lock file cannot be locked")]
    Lock(#[source] io::Error),
    #[error("another process holds the lock and does not let go of it")]
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
    #[error("the file has version {0}, and this program knows {VERSION}")]
    Version(u32),
    #[error("the file was replaced by one with another key")]
    AnotherKey,
    #[error("the system gives no random numbers")]
    Randomness,
}

impl StateError {
    /// Whether nothing can be written there, ever, by anyone.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Directory(error) | Self::Lock(error) | Self::Write(error)
            if error.kind() == ErrorKind::ReadOnlyFilesystem)
    }

    /// The way out, for an operator.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Directory(_) | Self::Lock(_) | Self::Write(_) => {
                "make its directory writable for this user, with space left, or set auth.state_dir to one that is"
            }
            Self::Busy => "look for a stopped process that uses the same auth.state_dir, and end it",
            Self::Read(_) => "make it readable for this user, or set auth.state_dir to another directory",
            Self::TooLarge | Self::Damaged { .. } | Self::DamagedKey | Self::Version(_) => {
                "it keeps rejected credentials from being tried until the vendor locks the account, so put a good copy \
                 back, or, when the credentials in use are known to be right, remove it"
            }
            Self::AnotherKey => "restart, so that it is read anew",
            Self::Randomness => "see what keeps the system's random number generator from working",
        }
    }
}
