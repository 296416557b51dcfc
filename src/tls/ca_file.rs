//! `upstream.ca_file`: certificate authorities in a PEM file.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};

/// Several times what a whole operating system trusts. A file above this is no list of authorities, and must not fill the
/// memory.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why there is no trust to build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No authority at all would be trusted.
    #[error("nothing would be trusted: without the public authorities, upstream.ca_file has to name others")]
    NoRoots,
    /// The system does not give the file out.
    #[error("{path} cannot be read", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, or something else that only has the file's name.
    #[error("{path} is not a file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is far larger than any list of authorities.
    #[error("{path} is larger than {MAX_BYTES} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not PEM.
    #[error("{path} cannot be read as a PEM file", path = path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file is PEM, but has no certificate.
    #[error("{path} holds no certificate: it needs at least one BEGIN CERTIFICATE block", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the file cannot be used as a trust anchor.
    #[error("{path} holds a certificate that cannot be used as a certificate authority", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// The content of the file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    // Asked before it is opened, since opening a pipe waits for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content)).map_err(unreadable)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { path: path.into() });
    }
    Ok(content)
}

/// Adds the authorities in `content` to `roots`, and returns how many they are. `path` is what an error calls the file.
pub(super) fn add(content: &[u8], path: &Path, roots: &mut RootCertStore) -> Result<usize, Error> {
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(content) {
        let certificate = certificate.map_err(|source| Error::NotPem { path: path.into(), source })?;
        roots.add(certificate).map_err(|source| Error::Unusable { path: path.into(), source })?;
        found += 1;
    }
    if found == 0 { Err(Error::Empty { path: path.into() }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_can_be_wrong_is_told_apart() {
        let added = |content: &str| add(content.as_bytes(), Path::new("ca.pem"), &mut RootCertStore::empty());
        let block = |inside: &str| format!("-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n");
        assert!(matches!(added(""), Err(Error::Empty { .. })));
        assert!(matches!(added("no certificate here\n"), Err(Error::Empty { .. })));
        assert!(matches!(added(&block("!")), Err(Error::NotPem { .. })));
        assert!(matches!(added("-----BEGIN CERTIFICATE-----\nAAAA\n"), Err(Error::NotPem { .. })), "half written");
        assert!(matches!(added(&block("AAAA")), Err(Error::Unusable { .. })));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(read(&path), Err(Error::Unreadable { .. })));
        assert!(matches!(read(dir.path()), Err(Error::NotAFile { .. })));
        fs::write(&path, vec![b'x'; 1024 * 1024]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1024 * 1024);
        fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(matches!(read(&path), Err(Error::TooLarge { .. })));
    }
}
