//! Credentials from a directory of files: a mounted Kubernetes Secret, or a plain directory.
//!
//! Id, secret and key change together, and half of a change is a failed authentication of which the vendor allows few.
//! The kubelet therefore writes a new generation beside the old one and swaps them with one rename:
//!
//! ```text
//! client_id -> ..data/client_id
//! ..data    -> ..2026_01_31_09_00_00.1234     rename() puts another link here
//! ..2026_01_31_09_00_00.1234/client_id        removed right after the swap
//! ```
//!
//! [`read()`] resolves `..data` once and takes all files from what it found. A plain directory has no generations: its
//! files are read as they stand at one moment, which may lie between two writes of an operator's.
//!
//! To miss no change, take the [`snapshot()`] first, [`read()`] second, and wait with [`wait_for_change`] for that snapshot to become outdated.
//!
//! Deliberately absent: whether a value can be used, and which of the files are needed; other watchers than a poll.

mod read;
mod snapshot;
mod source;

pub use read::{Files, ReadError, read, wait_for_change};
pub use snapshot::{Snapshot, snapshot};
pub(super) use source::DirectorySource;
