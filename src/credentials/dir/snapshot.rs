//! The state of the directory, determined without opening a file.

use std::{
    array, fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{credentials::field::Field, process::file_watch::FileId};

/// The symbolic link that the kubelet replaces.
const CURRENT: &str = "..data";

/// The state of the directory at one time. Equal snapshots mean that nothing changed.
///
/// There is one exception: overwriting a file in place twice, with the same length and within one tick of the file system's clock
/// (milliseconds), yields equal snapshots after both writes. A swap has no such gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The target of `..data`. A swap between reading the link and following it leaves a missing generation. If that happens to two
    /// snapshots in a row, only this field distinguishes them.
    link: Option<PathBuf>,
    generation: Result<Generation, ErrorKind>,
}

impl Snapshot {
    /// The directory that contains the files: a generation or a plain directory. It may no longer exist.
    pub(super) fn dir(&self) -> Result<&Path, ErrorKind> {
        self.generation.as_ref().map(|generation| generation.path.as_path()).map_err(|kind| *kind)
    }
}

/// The directory that contains the files, with links resolved, and the identity of each file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Generation {
    path: PathBuf,
    device: u64,
    inode: u64,
    files: [Result<FileId, ErrorKind>; Field::ALL.len()],
}

/// The current state of `dir`. Never fails: an absent directory has a snapshot too.
pub fn snapshot(dir: &Path) -> Snapshot {
    let (link, generation) = match fs::read_link(dir.join(CURRENT)) {
        Ok(target) => {
            let generation = read_generation(&dir.join(&target));
            (Some(target), generation)
        }
        // `..data` does not exist or is not a link: a plain directory.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            (None, read_generation(dir))
        }
        Err(error) => (None, Err(error)),
    };
    Snapshot { link, generation: generation.map_err(|error| error.kind()) }
}

/// The generation at `path`, which may be a link.
fn read_generation(path: &Path) -> io::Result<Generation> {
    let path = fs::canonicalize(path)?;
    let directory = fs::metadata(&path)?;
    let files = array::from_fn(|i| file_id(&path.join(Field::ALL[i].file_name())).map_err(|error| error.kind()));
    Ok(Generation { path, device: directory.dev(), inode: directory.ino(), files })
}

/// The identity of the file at `path`, or of the link itself if it is dangling.
fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).or_else(|_| fs::symlink_metadata(path)).map(|metadata| FileId::from(&metadata))
}
