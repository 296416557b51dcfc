//! Checks the state directory as a start would find it, without creating or writing a file.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use rustix::fs::{Access, access};

use super::{OpenError, state_directory::StateDirectory, state_error::StateError};

/// What [`Lockout::open`](super::Lockout::open) would do with a usable directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOutlook {
    /// A state exists and would be used.
    Found,
    /// A state exists and would be used, but it is not writable: unproven credentials would not be tried.
    NotWritable,
    /// No state exists; directory and state would be created.
    Created,
    /// No state exists and the file system is read-only: the state would be in memory only.
    ReadOnly,
}

/// What [`Lockout::open`](super::Lockout::open) would find in `dir`. Takes no lock.
///
/// # Errors
///
/// The error of `Lockout::open`, as far as it can be determined without writing.
pub fn inspect(dir: &Path) -> Result<StateOutlook, OpenError> {
    let exists = match check_directory(dir) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(StateOutlook::ReadOnly),
        checked => checked.map_err(|error| OpenError { path: dir.to_owned(), source: StateError::Directory(error) })?,
    };
    if !exists {
        return Ok(StateOutlook::Created);
    }
    let directory = StateDirectory::at(dir);
    let failed = |source| OpenError { path: directory.rejections_path(), source };
    let found = directory.read_rejections().map_err(failed)?;
    match (found, directory.check_writable()) {
        (Some((key, ..)), writable) => {
            let attempts = directory.read_attempts(&key);
            attempts.map_err(|source| OpenError { path: directory.attempts_path(), source })?;
            Ok(if writable.is_ok() { StateOutlook::Found } else { StateOutlook::NotWritable })
        }
        (None, Ok(())) => Ok(StateOutlook::Created),
        (None, Err(error)) if error.is_read_only() => Ok(StateOutlook::ReadOnly),
        (None, Err(error)) => Err(failed(error)),
    }
}

/// Takes and releases the lock in `dir`, if the lock file exists. Waits up to a second while another process holds it. Creates no
/// file.
///
/// # Errors
///
/// If the lock cannot be taken.
pub fn check_lock(dir: &Path) -> Result<(), OpenError> {
    let directory = StateDirectory::at(dir);
    if !directory.has_lock() {
        return Ok(());
    }
    directory.lock().map(drop).map_err(|source| OpenError { path: directory.rejections_path(), source })
}

impl OpenError {
    /// The remedy for an operator.
    pub fn advice(&self) -> &'static str {
        self.source.advice()
    }

    /// Whether the cause is the configured directory, so that a retry is useless.
    pub fn is_configuration(&self) -> bool {
        !matches!(self.source, StateError::Busy | StateError::Randomness)
    }
}

/// Whether `dir` exists. Returns an error if it is missing and cannot be created.
fn check_directory(dir: &Path) -> io::Result<bool> {
    for path in dir.ancestors() {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => return Err(ErrorKind::NotADirectory.into()),
            Ok(_) if path == dir => return Ok(true),
            Ok(_) => return Ok(access(path, Access::WRITE_OK | Access::EXEC_OK).map(|()| false)?),
            // A dangling link prevents creation, so it is an error.
            Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::NotFound.into())
}
