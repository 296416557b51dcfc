//! A Unix socket that only the proxy's own user can open.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use rustix::{fs::Mode, process::umask};
use tokio::net::UnixListener;

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {path}", path = path.display())]
pub struct SocketError {
    key: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Listens on `path`, which the configuration key `key` named, with mode 0600 from its first moment. A socket that a process left
/// behind is replaced; one that somebody listens on is not.
///
/// # Errors
///
/// When the path is taken by something else, or cannot be bound.
pub fn bind_socket(key: &'static str, path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError { key, path: path.to_owned(), source };
    remove_stale(path).map_err(failed)?;
    // The mask is the process's; at this point of the start nothing else makes files.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(failed)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn k07_a_socket_is_the_owners_alone_and_only_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = bind_socket("admin.socket", &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_socket("admin.socket", &path).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind_socket("admin.socket", &path).unwrap();

        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(bind_socket("admin.socket", &file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
