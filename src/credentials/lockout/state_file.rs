//! One small file of the state directory, read whole and replaced atomically.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use zeroize::Zeroizing;

use super::state_error::{MAX_FILE_BYTES, StateError};
use crate::process::file_watch::FileId;

/// Capacity for the state of a few ids, so that writing it leaves no copy of the key in a buffer that was outgrown.
pub(super) const TYPICAL_FILE_BYTES: usize = 4 * 1024;

/// One version of the file, as it was read or written.
#[derive(Debug)]
pub(super) struct OpenSnapshot {
    id: FileId,
    /// Kept open, so that its inode number cannot be reused by the file that replaces it.
    _file: File,
}

/// The file as it was read.
pub(super) struct FileContent {
    /// The content, which holds the key of the hashes.
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) snapshot: OpenSnapshot,
}

/// A file of the state directory.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// Written first and then renamed. Only the holder of the lock touches it; one that exists already is left from a crash.
    temporary: PathBuf,
}

impl StateFile {
    /// The file at `path`, which need not exist.
    pub(super) fn new(path: PathBuf) -> Self {
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        Self { path, temporary: temporary.into() }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The file that is written first and then renamed.
    pub(super) fn temporary(&self) -> &PathBuf {
        &self.temporary
    }

    /// The content, or `None` when there is no such file.
    pub(super) fn read(&self) -> Result<Option<FileContent>, StateError> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(StateError::Read)?,
        };
        // Read before the content: a change in between makes the content look newer, not older.
        let metadata = file.metadata().map_err(StateError::Read)?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(StateError::TooLarge);
        }
        let mut text = Zeroizing::new(Vec::with_capacity(TYPICAL_FILE_BYTES.max(metadata.len() as usize + 1)));
        io::Read::by_ref(&mut file).take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(StateError::Read)?;
        Ok(Some(FileContent { text, snapshot: OpenSnapshot { id: FileId::from(&metadata), _file: file } }))
    }

    /// Whether the file on the disk is another one than `seen`; `None` when there is no file.
    pub(super) fn has_changed(&self, last_read: Option<&OpenSnapshot>) -> Result<Option<bool>, StateError> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::Read(error)),
            Ok(found) => Ok(Some(last_read.is_none_or(|last_read| last_read.id != FileId::from(&found)))),
        }
    }

    /// Replaces the content, and returns once it is on the disk. The caller holds the lock.
    ///
    /// After an error the file is the old one, or else the new one as a whole.
    pub(super) fn replace(&self, text: &[u8]) -> io::Result<OpenSnapshot> {
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A new file, so that the mode applies and a symbolic link left at the name is not followed.
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        let snapshot = OpenSnapshot { id: FileId::from(&file.metadata()?), _file: file };
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(snapshot)
    }
}
