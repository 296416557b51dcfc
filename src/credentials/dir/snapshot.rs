//! What is in the directory now, found without opening a file.

use std::{
    array, fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{credentials::field::Field, process::file_watch::FileId};

/// The link that the kubelet swaps.
const CURRENT: &str = "..data";

/// What was in the directory at one moment, found without opening a file. Equal snapshots mean that nothing changed.
///
/// The one exception: a file that is overwritten in place, at the same length, twice within a tick of the file system's
/// clock (milliseconds) looks the same after both. A swap has no such gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What `..data` says. A swap between reading the link and following it leaves nothing to be found; when that happens
    /// to two snapshots in a row, this alone tells them apart.
    link: Option<PathBuf>,
    generation: Result<Generation, ErrorKind>,
}

impl Snapshot {
    /// The directory that holds the files: a generation's, or a plain one. It may be gone by now.
    pub(super) fn dir(&self) -> Result<&Path, ErrorKind> {
        self.generation.as_ref().map(|generation| generation.path.as_path()).map_err(|kind| *kind)
    }
}

/// The directory that holds the files, links resolved, and the files in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Generation {
    path: PathBuf,
    device: u64,
    inode: u64,
    files: [Result<FileId, ErrorKind>; Field::ALL.len()],
}

/// What is in `dir` now. Never fails: an absent directory has a snapshot too.
pub fn snapshot(dir: &Path) -> Snapshot {
    let (link, generation) = match fs::read_link(dir.join(CURRENT)) {
        Ok(target) => {
            let generation = read_generation(&dir.join(&target));
            (Some(target), generation)
        }
        // No such name, or not a link: a plain directory.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            (None, read_generation(dir))
        }
        Err(error) => (None, Err(error)),
    };
    Snapshot { link, generation: generation.map_err(|error| error.kind()) }
}

/// The generation in the directory `path`, which may be a link.
fn read_generation(path: &Path) -> io::Result<Generation> {
    let path = fs::canonicalize(path)?;
    let directory = fs::metadata(&path)?;
    let files = array::from_fn(|i| file_id(&path.join(Field::ALL[i].file_name())).map_err(|error| error.kind()));
    Ok(Generation { path, device: directory.dev(), inode: directory.ino(), files })
}

/// The identity of what `path` leads to, or of the link itself when it leads nowhere.
fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).or_else(|_| fs::symlink_metadata(path)).map(|metadata| FileId::from(&metadata))
}
