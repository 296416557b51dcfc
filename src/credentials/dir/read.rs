//! One generation of the directory, read whole or not at all.

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

/// Larger than any credential; a file above this is not one, and is not read into memory.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// How often a read starts over when the directory changes under it.
///
/// One change, whether a swap or a script that writes one file after the other, costs a few tries at most, as a try takes
/// well under a millisecond. Fewer would refuse such a script; without a bound a runaway writer would hold the reader.
const MAX_ATTEMPTS: usize = 10;

/// How often the directory is looked at.
///
/// The kubelet takes up to 90 seconds to bring a new Secret, so two seconds add nothing that anyone would notice, and a
/// look is a `stat` of a few files. Inotify misses the swaps of some kinds of volume: a poll is the one rule that always works.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Why the directory gives no credentials. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory is missing, is none, or may not be entered.
    #[error(
        "{path} cannot be used as the credentials directory: mount the Secret there, and let the proxy's user read it"
    )]
    Directory {
        /// The directory.
        path: ShownPath,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there, and the system does not give it out.
    #[error(
        "{path} cannot be read: let the proxy's user read it (Kubernetes: `defaultMode` and `fsGroup`)",
        path = path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a link that leads nowhere, or something else that only has the file's name.
    #[error("{path} is not a file: put a file there that holds the value, or remove it", path = path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is far larger than a credential.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: put the value alone there", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{path} is not valid UTF-8: put the value there as plain text", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// The directory was different after each try. Trying again can help, once the writer is done.
    #[error("{path} kept changing while it was read: try again", path = path.display())]
    Changing {
        /// The directory.
        path: PathBuf,
    },
}

/// The raw values of one generation: whichever of the files exist.
///
/// As they are, the line break at the end included: what of a value counts is the reader's to say.
pub struct Files(BTreeMap<&'static str, Secret<String>>);

impl Files {
    /// The value of the file `name`, when there is such a file.
    pub fn get(&self, name: &str) -> Option<&Secret<String>> {
        self.0.get(name)
    }

    /// The files that are there, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Reads all files of one generation: id and secret together or not at all.
///
/// # Errors
///
/// When the directory or one of the files in it cannot be read, or keeps changing.
pub fn read(dir: &Path) -> Result<Files, ReadError> {
    read_stable(|| snapshot(dir), |snapshot| read_files(dir, snapshot))
        .unwrap_or_else(|| Err(ReadError::Changing { path: absolute(dir) }))
}

/// Waits until the directory is no longer as `previous` says, and returns the new snapshot.
///
/// # Cancel safety
///
/// Cancel safe: its whole state is in `previous`, and its first look is at once, so one that is dropped and called anew
/// misses nothing.
pub async fn wait_for_change(dir: &Path, previous: &Snapshot) -> Snapshot {
    loop {
        // A few calls to a local volume, held in memory for a Secret: less work than handing them to another thread.
        let now = snapshot(dir);
        if now != *previous {
            return now;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The outcome of the first `attempt` with equal snapshots around it, or `None` when there is none in [`MAX_ATTEMPTS`] attempts.
///
/// An error counts as an outcome as well: only what fails in a directory at rest is worth telling.
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

/// The files of the generation in `snapshot`, wherever `..data` leads by now.
fn read_files(dir: &Path, snapshot: &Snapshot) -> Result<Files, ReadError> {
    let current = snapshot.dir().map_err(|kind| ReadError::Directory { path: dir.into(), source: kind.into() })?;
    let mut files = BTreeMap::new();
    for name in Field::ALL.map(Field::file_name) {
        // An error names the path that the operator knows, not the generation's.
        if let Some(value) = read_file(&current.join(name), || absolute(dir).join(name))? {
            files.insert(name, value);
        }
    }
    Ok(Files(files))
}

/// The value in the file at `path`, or `None` when nothing has that name. `shown_path` is what an error calls it.
fn read_file(path: &Path, shown_path: impl Fn() -> PathBuf) -> Result<Option<Secret<String>>, ReadError> {
    let unreadable = |source| ReadError::File { path: shown_path(), source };
    match fs::metadata(path) {
        // Asked before it is opened, since opening a pipe waits for a writer.
        Ok(metadata) if !metadata.is_file() => return Err(ReadError::NotAFile { path: shown_path() }),
        Ok(_) => {}
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(unreadable(error)),
        Err(_) if fs::symlink_metadata(path).is_ok() => return Err(ReadError::NotAFile { path: shown_path() }),
        Err(_) => return Ok(None),
    }
    // Large enough never to be moved, which would leave a copy behind. The length that the system tells is no measure: some
    // file systems say 0.
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
