//! The state on disk: two small JSON files, each replaced atomically under a lock.
//!
//! Rejections keep the layout of version 1, which earlier releases read. Attempts are in a separate file, so that upgrades and
//! rollbacks both find the data that they know.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    attempts::Attempts,
    fingerprint::{Hash, Key},
    rejections::Rejections,
    state_error::{StateError, VERSION},
    state_file::{FileContent, OpenSnapshot, StateFile, TYPICAL_FILE_BYTES},
};

const REJECTIONS_FILE: &str = "lockout.json";

const ATTEMPTS_FILE: &str = "attempts.json";

/// Locked in place of the state files, because their inodes change with each write. Never removed, because two processes could then
/// each lock a different file.
const LOCK_FILE: &str = "lockout.lock";

/// Locked for the duration of a token request with unproven credentials. Never removed, for the same reason.
const ATTEMPT_LOCK_FILE: &str = "attempts.lock";

/// The number of attempts to take the lock and the interval between them: one second in total. A process normally holds the lock for
/// some milliseconds; a stopped process that holds it must not block the others indefinitely.
const LOCK_RETRIES: u32 = 100;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The layout of the rejections file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RejectionsLayout<'a, S> {
    version: u32,
    key: &'a str,
    ids: S,
}

/// The layout of the attempts file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AttemptsLayout<A> {
    version: u32,
    /// Identifies the key of the hashes. Records with another key are ignored.
    key: Hash,
    accounts: A,
}

/// The version only, which must be readable in every layout.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The state directory.
#[derive(Debug)]
pub(super) struct StateDirectory {
    dir: PathBuf,
    rejections: StateFile,
    attempts: StateFile,
    last_read: Option<OpenSnapshot>,
}

/// The rejections file in `dir`.
pub(super) fn rejections_path(dir: &Path) -> PathBuf {
    dir.join(REJECTIONS_FILE)
}

impl StateDirectory {
    /// The state directory `dir`. Nothing is read or created.
    pub(super) fn at(dir: &Path) -> Self {
        let (rejections, attempts) = (StateFile::new(rejections_path(dir)), StateFile::new(dir.join(ATTEMPTS_FILE)));
        Self { dir: dir.to_owned(), rejections, attempts, last_read: None }
    }

    /// Opens `dir`, and creates directory, key and state if they are missing.
    pub(super) fn open(dir: &Path) -> Result<(Self, Key, Rejections), StateError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StateError::Directory)?;
        let mut directory = Self::at(dir);
        // First without the lock: reading does not need it, and must work in a directory that is read-only for this user.
        let mut found = directory.read_rejections()?;
        if found.is_none() {
            let _lock = directory.lock()?;
            found = directory.read_rejections()?;
            if found.is_none() {
                let (key, rejections) = (Key::generate()?, Rejections::default());
                directory.write_rejections(&key, &rejections)?;
                return Ok((directory, key, rejections));
            }
        }
        let (key, rejections, snapshot) = found.expect("a missing state has been created above");
        directory.remember(snapshot);
        Ok((directory, key, rejections))
    }

    /// The path of the rejections file.
    pub(super) fn rejections_path(&self) -> PathBuf {
        self.rejections.path().clone()
    }

    /// The path of the attempts file.
    pub(super) fn attempts_path(&self) -> PathBuf {
        self.attempts.path().clone()
    }

    /// Checks by permissions whether the state can be written. Creates, writes and locks nothing.
    ///
    /// # Errors
    ///
    /// The error that a write would return.
    pub(super) fn check_writable(&self) -> Result<(), StateError> {
        let failed = |errno: Errno| StateError::Write(errno.into());
        access(&self.dir, Access::WRITE_OK | Access::EXEC_OK).map_err(failed)?;
        let lock = self.dir.join(LOCK_FILE);
        match access(&lock, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) if lock.is_dir() => return Err(StateError::Lock(ErrorKind::IsADirectory.into())),
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(StateError::Lock(errno.into())),
        }
        if [&self.rejections, &self.attempts].into_iter().any(|file| file.temporary().is_dir()) {
            return Err(StateError::Write(ErrorKind::IsADirectory.into()));
        }
        Ok(())
    }

    /// Whether the lock file that every writer locks exists.
    pub(super) fn has_lock(&self) -> bool {
        self.dir.join(LOCK_FILE).exists()
    }

    /// Takes the lock that every writer must hold, until the file is dropped. Waits up to a second.
    pub(super) fn lock(&self) -> Result<File, StateError> {
        let file = self.lock_file(LOCK_FILE)?;
        for _ in 0..LOCK_RETRIES {
            if try_lock(&file)? {
                return Ok(file);
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "no token request may be sent before the write; blocks up to a second"
            )]
            thread::sleep(LOCK_RETRY_INTERVAL);
        }
        Err(StateError::Busy)
    }

    /// Takes the lock on attempts, until the file is dropped. Returns `None` immediately if another process holds it.
    pub(super) fn try_lock_attempt(&self) -> Result<Option<File>, StateError> {
        let file = self.lock_file(ATTEMPT_LOCK_FILE)?;
        Ok(try_lock(&file)?.then_some(file))
    }

    fn lock_file(&self, name: &str) -> Result<File, StateError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(name))
            .map_err(StateError::Lock)
    }

    /// The rejections on disk if they changed since they were last read. `None` also if the file was removed: the state of this
    /// process is then the best available, and the next write restores the file.
    pub(super) fn read_if_changed(&self, key: &Key) -> Result<Option<(Rejections, OpenSnapshot)>, StateError> {
        if self.rejections.has_changed(self.last_read.as_ref())? != Some(true) {
            return Ok(None);
        }
        match self.read_rejections()? {
            Some((found, rejections, snapshot)) if found.is_same(key) => Ok(Some((rejections, snapshot))),
            Some(_) => Err(StateError::AnotherKey),
            None => Ok(None),
        }
    }

    /// Records that the caller knows the state in `snapshot`.
    pub(super) fn remember(&mut self, snapshot: OpenSnapshot) {
        self.last_read = Some(snapshot);
    }

    /// Replaces the rejections. The caller must hold the lock.
    ///
    /// After an error, the file is either the old one or the complete new one. A retry may then count a rejection twice, which is the
    /// safe direction.
    pub(super) fn write_rejections(&mut self, key: &Key, rejections: &Rejections) -> Result<(), StateError> {
        let key = key.to_hex();
        let text = to_json(&RejectionsLayout { version: VERSION, key: &key, ids: rejections })?;
        let snapshot = self.rejections.replace(&text).map_err(StateError::Write)?;
        self.remember(snapshot);
        Ok(())
    }

    pub(super) fn read_rejections(&self) -> Result<Option<(Key, Rejections, OpenSnapshot)>, StateError> {
        let Some(file) = self.rejections.read()? else { return Ok(None) };
        let (key, rejections) = parse_rejections(&file.text)?;
        Ok(Some((key, rejections, file.snapshot)))
    }

    /// The attempts on disk. Empty if there is no file, or if it was written with another key: then an operator removed the
    /// rejections file, and with it the key of the attempts.
    pub(super) fn read_attempts(&self, key: &Key) -> Result<Attempts, StateError> {
        let Some(FileContent { text, .. }) = self.attempts.read()? else { return Ok(Attempts::default()) };
        check_version(&text)?;
        let layout: AttemptsLayout<Attempts> = serde_json::from_slice(&text).map_err(parse_error)?;
        Ok(if layout.key == key.id() { layout.accounts } else { Attempts::default() })
    }

    /// Replaces the attempts. The caller must hold the lock.
    pub(super) fn write_attempts(&self, key: &Key, attempts: &Attempts) -> Result<(), StateError> {
        let text = to_json(&AttemptsLayout { version: VERSION, key: key.id(), accounts: attempts })?;
        self.attempts.replace(&text).map_err(StateError::Write)?;
        Ok(())
    }
}

/// Tries to lock `file`. Returns `false` if another process holds the lock.
fn try_lock(file: &File) -> Result<bool, StateError> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(StateError::Lock(error)),
        }
    }
}

fn to_json(layout: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let mut text = Zeroizing::new(Vec::with_capacity(TYPICAL_FILE_BYTES));
    serde_json::to_writer_pretty(&mut *text, layout).map_err(|error| StateError::Write(error.into()))?;
    text.push(b'\n');
    Ok(text)
}

fn check_version(text: &[u8]) -> Result<(), StateError> {
    match serde_json::from_slice(text).map_err(parse_error)? {
        Version { version: VERSION } => Ok(()),
        Version { version } => Err(StateError::Version(version)),
    }
}

/// Omits the parser's own error, which quotes the file.
fn parse_error(error: serde_json::Error) -> StateError {
    StateError::Damaged { line: error.line(), column: error.column() }
}

fn parse_rejections(text: &[u8]) -> Result<(Key, Rejections), StateError> {
    check_version(text)?;
    let layout: RejectionsLayout<'_, Rejections> = serde_json::from_slice(text).map_err(parse_error)?;
    let key = Key::from_hex(layout.key).ok_or(StateError::DamagedKey)?;
    Ok((key, layout.ids))
}
