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

/// Capacity for the state of a few ids, so that writing it does not reallocate the buffer and leave a copy of the key in memory.
pub(super) const TYPICAL_FILE_BYTES: usize = 4 * 1024;

/// Identifies the file as it was read or written.
#[derive(Debug)]
pub(super) struct OpenSnapshot {
    id: FileId,
    /// Kept open, so that the file that replaces it cannot reuse its inode number.
    _file: File,
}

/// The file as it was read.
pub(super) struct FileContent {
    /// The content, which includes the key of the hashes.
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) snapshot: OpenSnapshot,
}

/// A file in the state directory.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// Written first and then renamed. Only the holder of the lock uses it; an existing one is left over from a crash.
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

    /// The content, or `None` if the file does not exist.
    pub(super) fn read(&self) -> Result<Option<FileContent>, StateError> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(StateError::Read)?,
        };
        // Read before the content: after a change in between, the metadata is older than the content, never newer.
        let metadata = file.metadata().map_err(StateError::Read)?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(StateError::TooLarge);
        }
        let mut text = Zeroizing::new(Vec::with_capacity(TYPICAL_FILE_BYTES.max(metadata.len() as usize + 1)));
        io::Read::by_ref(&mut file).take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(StateError::Read)?;
        Ok(Some(FileContent { text, snapshot: OpenSnapshot { id: FileId::from(&metadata), _file: file } }))
    }

    /// Whether the file on disk differs from `last_read`; `None` if it does not exist.
    pub(super) fn has_changed(&self, last_read: Option<&OpenSnapshot>) -> Result<Option<bool>, StateError> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::Read(error)),
            Ok(found) => Ok(Some(last_read.is_none_or(|last_read| last_read.id != FileId::from(&found)))),
        }
    }

    /// Replaces the content, and returns once it is on disk. The caller must hold the lock.
    ///
    /// After an error, the file is either the old one or the complete new one.
    pub(super) fn replace(&self, text: &[u8]) -> io::Result<OpenSnapshot> {
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Creates a new file, so that the mode applies and a symbolic link at this path is not followed.
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
