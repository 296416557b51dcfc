//! The state on the disk: one small JSON file that is replaced as a whole, under a lock.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{fingerprint::Key, state::State};

const STATE_FILE: &str = "lockout.json";

/// Written first and then renamed. Only who holds the lock touches it, so one that is there is left over from a crash.
const TEMPORARY_FILE: &str = "lockout.json.tmp";

/// Locked instead of the state file, whose inode changes with each write. Never removed: two processes could hold two.
const LOCK_FILE: &str = "lockout.lock";

/// The layout of the file. Another number means another program wrote it, whose latches this one cannot read.
const VERSION: u32 = 1;

/// More than twice the largest state that the bounds of [`State`] allow. A file above this is something else.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Room for the state of a few ids, so that writing it leaves no copy of the key in a buffer that was outgrown: the key
/// comes first.
const USUAL_FILE_BYTES: usize = 4 * 1024;

/// How often, and after what pause, the lock is tried: for a second in all. A process holds it for some milliseconds;
/// one that was stopped while it held it must not stop the others for ever.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What went wrong with the state on the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
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
    // Without the parser's own error, which quotes the file.
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

impl Failure {
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

/// The file's layout.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Layout<'a, S> {
    version: u32,
    key: &'a str,
    ids: S,
}

/// The version alone, which must be readable in every layout.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// One state of the file, as it was read or written.
#[derive(Debug)]
pub(super) struct Seen {
    stamp: Stamp,
    /// Kept open, so that its inode number cannot be given to the file that replaces it.
    _file: File,
}

/// What tells a file from another, or from itself before somebody edited it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            length: metadata.len(),
        }
    }
}

/// The state directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    seen: Option<Seen>,
}

/// The state file in `dir`.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(STATE_FILE)
}

impl Store {
    /// Opens `dir`, and makes what is missing of directory, key and state.
    pub(super) fn open(dir: &Path) -> Result<(Self, Key, State), Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Failure::Directory)?;
        let mut store = Self { dir: dir.to_owned(), seen: None };
        // First without the lock: to read needs none, and must work in a directory that only others may write.
        let mut found = store.read()?;
        if found.is_none() {
            let _lock = store.lock()?;
            found = store.read()?;
            if found.is_none() {
                let (key, state) = (Key::generate()?, State::default());
                store.write(&key, &state)?;
                return Ok((store, key, state));
            }
        }
        let (key, state, seen) = found.expect("a missing state has been made above");
        store.saw(seen);
        Ok((store, key, state))
    }

    /// The state file.
    pub(super) fn path(&self) -> PathBuf {
        path(&self.dir)
    }

    /// Takes the lock that whoever writes holds, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(LOCK_FILE))
            .map_err(Failure::Lock)?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(Failure::Lock(error)),
            }
        }
        Err(Failure::Busy)
    }

    /// The state on the disk when it is not the one last seen. `None` also when the file was removed: what this process
    /// knows is then the best there is, and the next write puts it back.
    pub(super) fn newer(&self, key: &Key) -> Result<Option<(State, Seen)>, Failure> {
        match fs::metadata(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::Read(error)),
            Ok(found) if self.seen.as_ref().is_some_and(|seen| seen.stamp == Stamp::from(&found)) => return Ok(None),
            Ok(_) => {}
        }
        match self.read()? {
            Some((found, state, seen)) if found.is(key) => Ok(Some((state, seen))),
            Some(_) => Err(Failure::AnotherKey),
            None => Ok(None),
        }
    }

    /// Takes note that the caller knows the state `seen`.
    pub(super) fn saw(&mut self, seen: Seen) {
        self.seen = Some(seen);
    }

    /// Replaces the file. The caller holds the lock.
    ///
    /// After an error the file is the old one, or else the new one as a whole; who then counts a rejection once more errs
    /// on the safe side.
    pub(super) fn write(&mut self, key: &Key, state: &State) -> Result<(), Failure> {
        let key = key.to_hex();
        let mut text = Zeroizing::new(Vec::with_capacity(USUAL_FILE_BYTES));
        serde_json::to_writer_pretty(&mut *text, &Layout { version: VERSION, key: &key, ids: state })
            .map_err(|error| Failure::Write(error.into()))?;
        text.push(b'\n');
        let seen = self.replace(&text).map_err(Failure::Write)?;
        self.saw(seen);
        Ok(())
    }

    fn replace(&self, text: &[u8]) -> io::Result<Seen> {
        let temporary = self.dir.join(TEMPORARY_FILE);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made anew, so that its mode is this one, and a link that somebody put there is not followed.
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path())?;
        let seen = Seen { stamp: Stamp::from(&file.metadata()?), _file: file };
        File::open(&self.dir)?.sync_all()?;
        Ok(seen)
    }

    fn read(&self) -> Result<Option<(Key, State, Seen)>, Failure> {
        let mut file = match File::open(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Failure::Read)?,
        };
        // Before its content: whoever changes it in between makes it look newer, not older.
        let metadata = file.metadata().map_err(Failure::Read)?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(Failure::TooLarge);
        }
        let mut text = Zeroizing::new(Vec::with_capacity(USUAL_FILE_BYTES.max(metadata.len() as usize + 1)));
        Read::by_ref(&mut file).take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(Failure::Read)?;
        let (key, state) = parse(&text)?;
        Ok(Some((key, state, Seen { stamp: Stamp::from(&metadata), _file: file })))
    }
}

fn parse(text: &[u8]) -> Result<(Key, State), Failure> {
    let damaged = |error: serde_json::Error| Failure::Damaged { line: error.line(), column: error.column() };
    let Version { version } = serde_json::from_slice(text).map_err(damaged)?;
    if version != VERSION {
        return Err(Failure::Version(version));
    }
    let layout: Layout<'_, State> = serde_json::from_slice(text).map_err(damaged)?;
    let key = Key::from_hex(layout.key).ok_or(Failure::DamagedKey)?;
    Ok((key, layout.ids))
}
