//! The state on the disk: two small JSON files, each replaced atomically under a lock.
//!
//! Rejections keep the layout of version 1, which earlier releases read. Attempts are in a file of their own, so that an upgrade
//! and a rollback both find what they know.

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

/// Locked instead of the state files, whose inodes change with each write. Never removed: two processes could hold two.
const LOCK_FILE: &str = "lockout.lock";

/// Locked for as long as a token request with unproven credentials takes. Never removed, for the same reason.
const ATTEMPT_LOCK_FILE: &str = "attempts.lock";

/// How often, and after what pause, the lock is tried: for a second in all. A process holds it for some milliseconds;
/// one that was stopped while it held it must not stop the others for ever.
const LOCK_RETRIES: u32 = 100;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The file's layout.
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
    /// Identifies the key of the hashes: records that were made with another key match nothing.
    key: Hash,
    accounts: A,
}

/// The version alone, which must be readable in every layout.
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

/// The state file in `dir`.
pub(super) fn rejections_path(dir: &Path) -> PathBuf {
    dir.join(REJECTIONS_FILE)
}

impl StateDirectory {
    /// The state in `dir`. Nothing is read or created.
    pub(super) fn at(dir: &Path) -> Self {
        let (rejections, attempts) = (StateFile::new(rejections_path(dir)), StateFile::new(dir.join(ATTEMPTS_FILE)));
        Self { dir: dir.to_owned(), rejections, attempts, last_read: None }
    }

    /// Opens `dir`, and creates what is missing of directory, key and state.
    pub(super) fn open(dir: &Path) -> Result<(Self, Key, Rejections), StateError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StateError::Directory)?;
        let mut directory = Self::at(dir);
        // First without the lock: reading needs none, and must work in a directory that only others may write.
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

    /// The file of rejections.
    pub(super) fn rejections_path(&self) -> PathBuf {
        self.rejections.path().clone()
    }

    /// The file of attempts.
    pub(super) fn attempts_path(&self) -> PathBuf {
        self.attempts.path().clone()
    }

    /// Whether the state can be written, as far as permissions say. Nothing is created, written or locked.
    ///
    /// # Errors
    ///
    /// What a write would find.
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

    /// Whether a process has created the lock that every writer holds.
    pub(super) fn has_lock(&self) -> bool {
        self.dir.join(LOCK_FILE).exists()
    }

    /// Takes the lock that every writer holds, until the file is dropped. Waits for a second at most.
    pub(super) fn lock(&self) -> Result<File, StateError> {
        let file = self.lock_file(LOCK_FILE)?;
        for _ in 0..LOCK_RETRIES {
            if try_lock(&file)? {
                return Ok(file);
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "no token request may be sent before the write; a second at most"
            )]
            thread::sleep(LOCK_RETRY_INTERVAL);
        }
        Err(StateError::Busy)
    }

    /// Takes the lock on attempts, until the file is dropped, or returns `None` at once when another process has it.
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

    /// The state on the disk when it is not the one last seen. `None` also when the file was removed: what this process
    /// knows is then the best there is, and the next write puts it back.
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

    /// Notes that the caller knows the state `seen`.
    pub(super) fn remember(&mut self, snapshot: OpenSnapshot) {
        self.last_read = Some(snapshot);
    }

    /// Replaces the rejections. The caller holds the lock.
    ///
    /// After an error the file is the old one, or else the new one as a whole; counting a rejection once more then errs on the
    /// safe side.
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

    /// The attempts on the disk. None where there is no file, and where it was written with another key: an operator removed the
    /// rejections, and with them what the attempts belong to.
    pub(super) fn read_attempts(&self, key: &Key) -> Result<Attempts, StateError> {
        let Some(FileContent { text, .. }) = self.attempts.read()? else { return Ok(Attempts::default()) };
        check_version(&text)?;
        let layout: AttemptsLayout<Attempts> = serde_json::from_slice(&text).map_err(parse_error)?;
        Ok(if layout.key == key.id() { layout.accounts } else { Attempts::default() })
    }

    /// Replaces the attempts. The caller holds the lock.
    pub(super) fn write_attempts(&self, key: &Key, attempts: &Attempts) -> Result<(), StateError> {
        let text = to_json(&AttemptsLayout { version: VERSION, key: key.id(), accounts: attempts })?;
        self.attempts.replace(&text).map_err(StateError::Write)?;
        Ok(())
    }
}

/// Whether the lock was free and is now held by `file`.
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

/// Without the parser's own error, which quotes the file.
fn parse_error(error: serde_json::Error) -> StateError {
    StateError::Damaged { line: error.line(), column: error.column() }
}

fn parse_rejections(text: &[u8]) -> Result<(Key, Rejections), StateError> {
    check_version(text)?;
    let layout: RejectionsLayout<'_, Rejections> = serde_json::from_slice(text).map_err(parse_error)?;
    let key = Key::from_hex(layout.key).ok_or(StateError::DamagedKey)?;
    Ok((key, layout.ids))
}
