//! Small files of state that outlive the process, and that processes with one directory share.
//!
//! A file is read, merged with what the process knows and replaced as a whole, under a lock, so that no process overwrites what
//! another one counted, and a crash leaves the old file or the new one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often, and after what pause, the lock is tried: for a second in all. A process holds it for some milliseconds.
const LOCK_RETRIES: u32 = 100;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A file that is larger is something else.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// State that is kept in a file.
pub trait SharedState: Send + Sync {
    /// The name of its file in the state directory.
    fn file_name(&self) -> &'static str;

    /// Whether there is anything that was not written yet.
    fn has_changed(&self) -> bool;

    /// Takes over what `found`, the content of the file, says, and returns the content that replaces it. Content that cannot be read
    /// is replaced. Called again with what is there then if that fails.
    fn merge(&self, found: Option<&[u8]>) -> Vec<u8>;

    /// The content that was returned last is in the file.
    fn saved(&self);

    /// Takes over what `found` says, at the start of the process.
    ///
    /// # Errors
    ///
    /// Where the file is damaged. Then the state is as if there were no file.
    fn load(&self, found: &[u8]) -> Result<(), Damaged>;
}

/// The content of a state file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is damaged, or was written by another version of this program")]
pub struct Damaged;

/// Loads `state` from its file in `dir`. Nothing is created.
///
/// # Errors
///
/// When the file cannot be read, or is damaged.
pub fn load(dir: &Path, state: &dyn SharedState) -> io::Result<()> {
    match read(&dir.join(state.file_name()))? {
        Some(found) => state.load(&found).map_err(io::Error::other),
        None => Ok(()),
    }
}

/// Merges `state` with its file in `dir` and replaces that. It blocks while another process does the same, for a second at most.
///
/// # Errors
///
/// When the file cannot be replaced; it is then the old one, or the new one as a whole.
pub fn save(dir: &Path, state: &dyn SharedState) -> io::Result<()> {
    let path = dir.join(state.file_name());
    let lock = beside(&path, ".lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
    take(&lock)?;
    let content = state.merge(read(&path).ok().flatten().as_deref());
    replace(&path, &content)?;
    state.saved();
    Ok(())
}

/// Locks the file, within a second: a process that was stopped while it held the lock must not keep this one from ending.
fn take(lock: &File) -> io::Result<()> {
    for _ in 0..LOCK_RETRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        #[expect(clippy::disallowed_methods, reason = "it is called on a thread for what blocks")]
        thread::sleep(LOCK_RETRY_INTERVAL);
    }
    Err(io::Error::new(ErrorKind::WouldBlock, "another process holds its lock"))
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(Some(content))
}

/// Replaces the content of the file at `path`, and returns once it is on the disk. The caller holds the lock.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A new file, so that the mode applies and a symbolic link left at the name is not followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt as _,
        sync::{Mutex, PoisonError},
    };

    use super::*;

    /// A sum over all processes: what was found, and what was added and not written yet.
    #[derive(Default)]
    struct Sum(Mutex<(u64, u64)>);

    impl SharedState for Sum {
        fn file_name(&self) -> &'static str {
            "sum"
        }

        fn has_changed(&self) -> bool {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).1 > 0
        }

        fn merge(&self, found: Option<&[u8]>) -> Vec<u8> {
            let mut state = self.0.lock().unwrap();
            let found =
                found.and_then(|found| std::str::from_utf8(found).ok()?.parse::<u64>().ok()).unwrap_or_default();
            state.0 = found + state.1;
            state.0.to_string().into_bytes()
        }

        fn saved(&self) {
            self.0.lock().unwrap().1 = 0;
        }

        fn load(&self, found: &[u8]) -> Result<(), Damaged> {
            let found = std::str::from_utf8(found).ok().and_then(|found| found.parse().ok()).ok_or(Damaged)?;
            self.0.lock().unwrap().0 = found;
            Ok(())
        }
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let sum = Sum::default();
                    for _ in 0..10 {
                        sum.0.lock().unwrap().1 += 1;
                        // A busy machine may keep the lock from one of them for longer than it is waited for.
                        while let Err(error) = save(dir.path(), &sum) {
                            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                        }
                    }
                });
            }
        });
        let sum = Sum::default();
        load(dir.path(), &sum).unwrap();
        assert_eq!(sum.0.lock().unwrap().0, 40);
        let mode = fs::metadata(dir.path().join("sum")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_reported_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let sum = Sum::default();
        load(dir.path(), &sum).unwrap();
        for damaged in [&b"canary"[..], b"", &vec![b'1'; 5 * 1024 * 1024]] {
            fs::write(dir.path().join("sum"), damaged).unwrap();
            let error = load(dir.path(), &sum).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
            sum.0.lock().unwrap().1 = 7;
            save(dir.path(), &sum).unwrap();
            assert_eq!(fs::read(dir.path().join("sum")).unwrap(), b"7");
        }
        // What a crash left behind is in nobody's way.
        fs::write(dir.path().join("sum.tmp"), "half").unwrap();
        save(dir.path(), &sum).unwrap();
        assert!(!dir.path().join("sum.tmp").exists());
    }
}
