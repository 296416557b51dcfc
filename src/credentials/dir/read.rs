//! Reads one generation of the directory, completely or not at all.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    str,
    time::Duration,
};

use super::snapshot::{Snapshot, snapshot};
use crate::{
    credentials::field::Field,
    secret::{Secret, ShownPath, absolute},
};

/// Larger than any credential. A larger file is an error.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// Read attempts while the directory keeps changing.
///
/// An attempt takes well under a millisecond, so one change (a swap, or a script that writes one file after another) costs a few
/// attempts. A lower limit would fail during such a script; without a limit, a runaway writer would block the reader.
const MAX_ATTEMPTS: usize = 10;

/// How often the directory is polled.
///
/// The kubelet takes up to 90 seconds to update a mounted Secret, so two more seconds do not matter, and a poll is a `stat` of a
/// few files. Inotify misses swaps on some kinds of volume; polling works on all of them.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Why the directory cannot be read. Never contains a value.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ReadError {
    /// The directory is missing, is not a directory, or is not accessible.
    #[error(
        "{path} cannot be used as the credentials directory: mount the Secret there, and make it readable by the proxy's user"
    )]
    Directory { path: ShownPath, source: io::Error },
    /// A file exists but cannot be read.
    #[error(
        "{path} cannot be read: make it readable by the proxy's user (Kubernetes: `defaultMode` and `fsGroup`)",
        path = path.display()
    )]
    File { path: PathBuf, source: io::Error },
    /// The name belongs to a directory, a dangling link, or another object that is not a regular file.
    #[error("{path} is not a file: replace it with a file that contains the value, or remove it", path = path.display())]
    NotAFile { path: PathBuf },
    /// The file is far larger than a credential.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: the file must contain only the value", path = path.display())]
    TooLarge { path: PathBuf },
    /// The file is not text.
    #[error("{path} is not valid UTF-8: save the value as plain text", path = path.display())]
    NotUtf8 { path: PathBuf },
    /// The directory changed during each attempt. A retry can succeed once the writer is done.
    #[error("{path} kept changing while it was read: try again", path = path.display())]
    Changing { path: PathBuf },
}

/// The raw values of one generation, of those files that exist. Trailing line breaks are included.
pub struct Files(BTreeMap<&'static str, Secret<String>>);

impl Files {
    /// The value in the file `name`, if it exists.
    pub fn get(&self, name: &str) -> Option<&Secret<String>> {
        self.0.get(name)
    }

    /// The names of the existing files, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Reads all files of one generation.
///
/// # Errors
///
/// If the directory or one of its files cannot be read, or if the directory keeps changing.
pub fn read(dir: &Path) -> Result<Files, ReadError> {
    read_stable(|| snapshot(dir), |snapshot| read_files(dir, snapshot))
        .unwrap_or_else(|| Err(ReadError::Changing { path: absolute(dir) }))
}

/// Waits until the directory differs from `previous`, and returns the new snapshot.
///
/// # Cancel safety
///
/// Cancel safe: all its state is in `previous`, and it polls immediately, so dropping it and calling it again misses no change.
pub async fn wait_for_change(dir: &Path, previous: &Snapshot) -> Snapshot {
    loop {
        // Not on another thread: a few system calls on a local volume (tmpfs for a Secret) cost less than the hand-over.
        let now = snapshot(dir);
        if now != *previous {
            return now;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The outcome of the first `attempt` with equal snapshots before and after it; `None` after [`MAX_ATTEMPTS`] attempts without one.
///
/// An error is an outcome too: it is only reported if the directory did not change meanwhile.
fn read_stable<T>(mut take_snapshot: impl FnMut() -> Snapshot, mut attempt: impl FnMut(&Snapshot) -> T) -> Option<T> {
    let mut before = take_snapshot();
    for _ in 0..MAX_ATTEMPTS {
        let outcome = attempt(&before);
        let after = take_snapshot();
        if after == before {
            return Some(outcome);
        }
        before = after;
    }
    None
}

/// Reads the files of the generation in `snapshot`, even if `..data` now leads elsewhere.
fn read_files(dir: &Path, snapshot: &Snapshot) -> Result<Files, ReadError> {
    let current = snapshot.dir().map_err(|kind| ReadError::Directory { path: dir.into(), source: kind.into() })?;
    let mut files = BTreeMap::new();
    for name in Field::ALL.map(Field::file_name) {
        // An error shows the path that the operator knows, not the path of the generation.
        if let Some(value) = read_file(&current.join(name), || absolute(dir).join(name))? {
            files.insert(name, value);
        }
    }
    Ok(Files(files))
}

/// The value in the file at `path`, or `None` if it does not exist. Errors show `shown_path`.
fn read_file(path: &Path, shown_path: impl Fn() -> PathBuf) -> Result<Option<Secret<String>>, ReadError> {
    let unreadable = |source| ReadError::File { path: shown_path(), source };
    match fs::metadata(path) {
        // Checked before opening, because opening a pipe blocks until it has a writer.
        Ok(metadata) if !metadata.is_file() => return Err(ReadError::NotAFile { path: shown_path() }),
        Ok(_) => {}
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(unreadable(error)),
        Err(_) if fs::symlink_metadata(path).is_ok() => return Err(ReadError::NotAFile { path: shown_path() }),
        Err(_) => return Ok(None),
    }
    // Full capacity, because a reallocation would leave a copy in memory. The length in the metadata is not reliable: some file
    // systems report 0.
    let mut bytes = Vec::with_capacity(MAX_FILE_BYTES + 1);
    let outcome = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes));
    let bytes = Secret::new(bytes);
    if outcome.map_err(unreadable)? > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge { path: shown_path() });
    }
    let text = str::from_utf8(bytes.expose()).map_err(|_| ReadError::NotUtf8 { path: shown_path() })?;
    Ok(Some(Secret::from(text)))
}

#[cfg(test)]
mod tests;
