//! Small state files that survive restarts and are shared by all processes that use the same directory.
//!
//! A file is read, merged with the state of the process and replaced atomically, under a lock. No process overwrites the counts of
//! another one, and a crash leaves either the old file or the new one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The number of attempts to take the lock and the interval between them: one second in total. A process normally holds it for some
/// milliseconds.
const LOCK_RETRIES: u32 = 100;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A larger file is not a state file.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// State that is stored in a file.
pub trait SharedState: Send + Sync {
    /// The name of its file in the state directory.
    fn file_name(&self) -> &'static str;

    /// Whether there are changes that are not written yet.
    fn has_changed(&self) -> bool;

    /// Merges `found`, the content of the file, into this state and returns the content that replaces it. Ignores unreadable content.
    /// If writing fails, it is called again later with the content at that time.
    fn merge(&self, found: Option<&[u8]>) -> Vec<u8>;

    /// Called when the content last returned by `merge` has been written.
    fn saved(&self);

    /// Initializes the state from `found`, the content of the file, at startup.
    ///
    /// # Errors
    ///
    /// If the content is damaged. The state is then the same as without a file.
    fn load(&self, found: &[u8]) -> Result<(), Damaged>;
}

/// The content of a state file cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is damaged, or was written by another version of this program")]
pub struct Damaged;

/// Loads `state` from its file in `dir`, if the file exists. Creates nothing.
///
/// # Errors
///
/// If the file cannot be read or is damaged.
pub fn load(dir: &Path, state: &dyn SharedState) -> io::Result<()> {
    match read(&dir.join(state.file_name()))? {
        Some(found) => state.load(&found).map_err(io::Error::other),
        None => Ok(()),
    }
}

/// Merges `state` with its file in `dir` and replaces the file. Blocks up to a second while another process does the same.
///
/// # Errors
///
/// If the file cannot be replaced. It is then either the old file or the complete new one.
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

/// Takes the lock, waiting up to a second: a stopped process that holds the lock must not block the shutdown of this one.
fn take(lock: &File) -> io::Result<()> {
    for _ in 0..LOCK_RETRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        #[expect(clippy::disallowed_methods, reason = "it is called on a thread for blocking work")]
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

/// Replaces the content of the file at `path`, and returns once it is on disk. The caller must hold the lock.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Creates a new file, so that the mode applies and a symbolic link at this path is not followed.
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

    /// A sum over all processes: the amount on disk, and the amount not written yet.
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
    fn values_of_other_processes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let sum = Sum::default();
                    for _ in 0..10 {
                        sum.0.lock().unwrap().1 += 1;
                        // On a busy machine, a thread may fail to get the lock within the time limit.
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
        // A temporary file left by a crash is harmless.
        fs::write(dir.path().join("sum.tmp"), "half").unwrap();
        save(dir.path(), &sum).unwrap();
        assert!(!dir.path().join("sum.tmp").exists());
    }
}
