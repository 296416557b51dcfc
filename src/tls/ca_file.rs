//! `upstream.ca_file`: certificate authorities in a PEM file.
//!
//! The file may be the wrong one, a private key for instance, so no error holds anything of its content: only the kind of what is
//! wrong, and the line. The parser's own errors quote lines.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, SectionKind},
    },
};
use zeroize::Zeroizing;

use crate::secret::ShownPath;

/// Several times what a whole operating system trusts. A file above this is no list of authorities, and must not fill the
/// memory.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why no trust store can be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No authority at all would be trusted.
    #[error("nothing would be trusted: without the public authorities, upstream.ca_file has to name others")]
    NoRoots,
    /// The system does not give the file out.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The file.
        path: ShownPath,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, or something else that only has the file's name.
    #[error("{path} is not a file")]
    NotAFile {
        /// The path.
        path: ShownPath,
    },
    /// The file is far larger than any list of authorities.
    #[error("{path} is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: ShownPath,
    },
    /// The file is not PEM.
    #[error("{path} cannot be read as a PEM file: the block that begins in line {line} {malformed}")]
    NotPem {
        /// The file.
        path: ShownPath,
        /// Where the block begins, from 1.
        line: usize,
        /// What is wrong with it.
        malformed: Malformed,
    },
    /// The file is PEM, but has no certificate.
    #[error("{path} holds no certificate: it needs at least one BEGIN CERTIFICATE block")]
    Empty {
        /// The file.
        path: ShownPath,
    },
    /// The file has a private key and no certificate.
    #[error(
        "{path} holds no certificate, but a private key in line {line}: name a file with the certificates of authorities, and keep \
         the key away from this process"
    )]
    PrivateKey {
        /// The file.
        path: ShownPath,
        /// Where the key begins, from 1.
        line: usize,
    },
    /// A certificate in the file cannot be used as a trust anchor.
    #[error("{path} holds a certificate that cannot be used as a certificate authority: the one in line {line}")]
    Unusable {
        /// The file.
        path: ShownPath,
        /// Where the certificate begins, from 1.
        line: usize,
    },
}

/// What is wrong with a block of PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The line that begins it.
    #[error("has a malformed BEGIN line")]
    Begin,
    /// There is no line that ends it.
    #[error("has no END line that matches")]
    End,
    /// What is between them.
    #[error("is not base64")]
    Base64,
    /// Something else.
    #[error("is malformed")]
    Other,
}

impl From<&pem::Error> for Malformed {
    fn from(error: &pem::Error) -> Self {
        match error {
            pem::Error::IllegalSectionStart { .. } => Self::Begin,
            pem::Error::MissingSectionEnd { .. } => Self::End,
            pem::Error::Base64Decode(_) => Self::Base64,
            _ => Self::Other,
        }
    }
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

/// Adds the CAs in `content` to `roots`, and returns their number. `path` is the file's name in errors.
pub(super) fn add_cas(content: &[u8], path: &Path, roots: &mut RootCertStore) -> Result<usize, Error> {
    let (mut ca_count, mut private_key_line) = (0, None);
    let mut rest = content;
    loop {
        let block = pem::from_buf(&mut rest);
        let line = || block_start_line(content, content.len() - rest.len());
        match block {
            Ok(None) => break,
            Ok(Some((SectionKind::Certificate, certificate))) => {
                let result = roots.add(CertificateDer::from(certificate));
                result.map_err(|_| Error::Unusable { path: path.into(), line: line() })?;
                ca_count += 1;
            }
            Ok(Some((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, key))) => {
                drop(Zeroizing::new(key));
                private_key_line = private_key_line.or_else(|| Some(line()));
            }
            Ok(Some(_)) => {}
            Err(error) => {
                return Err(Error::NotPem { path: path.into(), line: line(), malformed: Malformed::from(&error) });
            }
        }
    }
    match private_key_line {
        _ if ca_count > 0 => Ok(ca_count),
        Some(line) => Err(Error::PrivateKey { path: path.into(), line }),
        None => Err(Error::Empty { path: path.into() }),
    }
}

/// The number of the last line before `end` that begins a block.
fn block_start_line(content: &[u8], end: usize) -> usize {
    let lines = content[..end].split(|byte| *byte == b'\n');
    let is_begin_line = |(_, line): &(usize, &[u8])| line.starts_with(b"-----BEGIN");
    (1..).zip(lines).filter(is_begin_line).last().map_or(1, |(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(label: &str, content: &str) -> String {
        format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
    }

    fn add(content: &str) -> Result<usize, Error> {
        add_cas(content.as_bytes(), Path::new("ca.pem"), &mut RootCertStore::empty())
    }

    #[test]
    fn each_defect_of_a_ca_file_has_its_own_error_with_the_line() {
        let key = block("PRIVATE KEY", "Y2FuYXJ5");
        assert!(matches!(add(""), Err(Error::Empty { .. })));
        assert!(matches!(add("no certificate here\n"), Err(Error::Empty { .. })));
        for (content, expected_line, expected) in [
            (block("CERTIFICATE", "!"), 1, Malformed::Base64),
            (format!("{key}# text\r\n{}", block("CERTIFICATE", "canary!")), 5, Malformed::Base64),
            ("\n-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), 2, Malformed::End),
            (format!("{key}-----BEGIN canary canary--\n"), 4, Malformed::Begin),
        ] {
            let error = add(&content).unwrap_err();
            assert!(
                matches!(error, Error::NotPem { line, malformed, .. } if line == expected_line && malformed == expected),
                "{error}"
            );
            assert!(
                error.to_string().contains(&format!("line {expected_line} "))
                    && !format!("{error:?}").contains("canary"),
                "{error}"
            );
        }
        assert!(matches!(add(&block("CERTIFICATE", "AAAA")), Err(Error::Unusable { line: 1, .. })));
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let error = add(&format!("\n{}", block(label, "Y2FuYXJ5"))).unwrap_err();
            assert!(matches!(error, Error::PrivateKey { line: 2, .. }), "{error}");
        }
    }

    #[test]
    fn an_unreadable_file_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(read(&path), Err(Error::Unreadable { .. })));
        assert!(matches!(read(dir.path()), Err(Error::NotAFile { .. })));
        fs::write(&path, vec![b'x'; 1024 * 1024]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1024 * 1024);
        fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(matches!(read(&path), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn no_error_contains_file_content_or_text_given_as_a_path() {
        let key = "-----BEGIN PRIVATE KEY-----\ncanary/canary+canary\n-----END PRIVATE KEY-----\n";
        for path in [key, "canary/canary", "/canary", &key.replace('\n', "")] {
            let error = read(Path::new(path)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
        for content in [
            key.replace("-----END", "-----canary"),
            key.replace("KEY-----\n", "KEY "),
            key.replace("KEY-----\n", "KEY----- "),
            key.replace('\n', " "),
            key.replace('\n', "\r"),
            key.replace("canary/", "canary!"),
            key.replace("PRIVATE KEY", "CERTIFICATE"),
            key.replace("PRIVATE KEY", "canary"),
            format!("\u{feff}{key}"),
        ] {
            let error = add(&content).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
