//! A Unix socket to listen on: access control, and its file, which exists as long as the listener.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{SocketAddr, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, Mode, access},
    process::{geteuid, umask},
};
use tokio::net::UnixListener;
use tracing::warn;

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The mode of the socket file; connecting requires write permission (`listen.socket_mode`).
    pub mode: u32,
    /// The UIDs admitted in addition to the proxy's own, among those that the mode permits. Empty: no UID check (`listen.socket_uids`).
    pub uids: Vec<u32>,
}

impl SocketAccess {
    /// Access for the proxy's own user only.
    pub fn owner_only() -> Self {
        Self { mode: 0o600, uids: Vec::new() }
    }

    /// Whether any user of the machine is admitted.
    pub fn is_open_to_all(&self) -> bool {
        self.mode & 0o002 != 0 && self.uids.is_empty()
    }

    /// Whether `uid` is admitted by a proxy that runs as `own_uid`. If there is a list, an unknown UID is not.
    fn admits(&self, uid: Option<u32>, own_uid: u32) -> bool {
        self.uids.is_empty() || uid.is_some_and(|uid| uid == own_uid || self.uids.contains(&uid))
    }
}

/// A bound socket. Dropping it removes its file, then stops listening; in this order, so that no client finds a dead socket.
#[derive(Debug)]
pub(super) struct UnixSocket {
    file: SocketFile,
    listener: UnixListener,
    uid_policy: UidPolicy,
}

/// Which UIDs are admitted, among those that can open the socket.
#[derive(Debug)]
pub(super) struct UidPolicy {
    access: SocketAccess,
    /// The proxy's own UID.
    own_uid: u32,
}

impl UidPolicy {
    /// Whether `uid` is admitted.
    pub(super) fn admits(&self, uid: Option<u32>) -> bool {
        self.access.admits(uid, self.own_uid)
    }
}

impl UnixSocket {
    /// Listens on `path`. The file has its mode from the start. A socket that a process left behind is replaced; one that is listened on is
    /// not.
    ///
    /// # Errors
    ///
    /// If the path is in use or cannot be bound.
    pub(super) fn bind(path: &Path, access: SocketAccess) -> io::Result<Self> {
        remove_stale(path)?;
        // The umask applies to the whole process; nothing else creates files at this point of the start. The owner keeps all permissions.
        let previous_mask = umask(Mode::from_raw_mode(0o077 & !access.mode));
        let bound = UnixListener::bind(path);
        umask(previous_mask);
        let listener = bound?;
        let file = SocketFile::of(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))?;
        Ok(Self { file, listener, uid_policy: UidPolicy { access, own_uid: geteuid().as_raw() } })
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The listener.
    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The same socket, as if the proxy ran as another user.
    #[cfg(test)]
    pub(super) fn with_own_uid(self, own_uid: u32) -> Self {
        let uid_policy = UidPolicy { own_uid, ..self.uid_policy };
        Self { uid_policy, ..self }
    }

    /// Which UIDs are admitted.
    pub(super) fn uid_policy(&self) -> &UidPolicy {
        &self.uid_policy
    }

    /// Removes the file, so that no new client finds the socket, and returns the listener: connections in the kernel's queue can still be
    /// accepted.
    pub(super) fn into_parts(self) -> (UnixListener, UidPolicy) {
        let Self { file, listener, uid_policy } = self;
        drop(file);
        (listener, uid_policy)
    }
}

/// Checks whether [`UnixSocket::bind`] could listen on `path`. Creates and removes no file.
///
/// # Errors
///
/// Those of [`UnixSocket::bind`].
pub(super) fn inspect(path: &Path) -> io::Result<()> {
    SocketAddr::from_pathname(path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        },
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) => Err(error),
        },
    }
}

/// The file of a socket. Dropping this removes the file, unless another one has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    file_identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file_identity: file_identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The inode exists as long as we listen, so no other file can have its number.
        if file_identity(&self.path).is_ok_and(|file_identity| file_identity == self.file_identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "cannot remove the socket file; the next start removes it");
        }
    }
}

fn file_identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path, mode: u32) -> io::Result<UnixSocket> {
        UnixSocket::bind(path, SocketAccess { mode, uids: Vec::new() })
    }

    #[tokio::test]
    async fn k07_a_socket_has_its_mode_and_replaces_only_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        for mode in [0o600, 0o660, 0o666, 0o777] {
            let first = bind(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            assert_eq!(bind(&path, mode).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(first);
            assert!(!path.exists(), "the file is removed with the socket");
        }
        // As left behind by a killed process.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        bind(&path, 0o600).unwrap();

        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert_eq!(bind(&file, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_file_that_replaced_the_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let first = bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&path, 0o600).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn k08_listed_uids_and_the_proxys_own_are_admitted() {
        let admits = |uids: &[u32], uid| SocketAccess { mode: 0o660, uids: uids.to_vec() }.admits(uid, 1000);
        for (uids, uid, expected) in [
            (&[][..], Some(7), true),
            (&[], None, true),
            (&[7, 8], Some(8), true),
            (&[7], Some(1000), true),
            (&[7], Some(0), false),
            (&[7], None, false),
        ] {
            assert_eq!(admits(uids, uid), expected, "{uids:?} {uid:?}");
        }
    }
}
