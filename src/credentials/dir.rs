//! Credentials from a directory of files: a mounted Kubernetes Secret, or a plain directory.
//!
//! Id, secret and App Key change together. Reading half of a change would cause a failed authentication, and five of these lock
//! the vendor account. The kubelet writes each new generation beside the old one and swaps them with one rename:
//!
//! ```text
//! client_id -> ..data/client_id
//! ..data    -> ..2026_01_31_09_00_00.1234     rename() replaces this link
//! ..2026_01_31_09_00_00.1234/client_id        removed right after the swap
//! ```
//!
//! [`read()`] resolves `..data` once and reads all files from the directory that it leads to. A plain directory has no generations:
//! its files are read as they are at one time, which may be between two writes by an operator.
//!
//! To miss no change, take a [`snapshot()`] first, then [`read()`], then wait with [`wait_for_change`] until the snapshot is outdated.
//!
//! Deliberately absent: validation of values, which files are required, and watchers other than polling.

mod read;
mod snapshot;
mod source;

pub use read::{Files, ReadError, read, wait_for_change};
pub use snapshot::{Snapshot, snapshot};
pub(super) use source::DirectorySource;
