//! `upstream.ca_file`: certificate authorities in a PEM file.
//!
//! The file may be the wrong one, a private key for instance, so no error holds anything of its content: only the kind of what is
//! wrong, and the line. The parser's own errors quote lines.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use crate::secret::ShownPath;
use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, SectionKind},
    },
};

/// Several times what a whole operating system trusts. A file above this is no list of authorities, and must not fill the
/// memory.
const MAX_BYTES: u64 = 1024 * 1024;

/// What editors on Windows put at the start of a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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
    /// The file is text in another encoding.
    #[error("{path} is in UTF-16: save it in UTF-8")]
    Utf16 {
        /// The file.
        path: ShownPath,
    },
    /// The file is not PEM.
    #[error("{path} cannot be read as a PEM file: {block} {malformed}")]
    NotPem {
        /// The file.
        path: ShownPath,
        /// The block.
        block: Block,
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
    /// A block in the file holds or may hold certificates in a form that is not read.
    #[error("{path} holds in line {line} {kind}")]
    Unsupported {
        /// The file.
        path: ShownPath,
        /// Where the block begins, from 1.
        line: usize,
        /// What it holds.
        kind: Unsupported,
    },
    /// A certificate in the file cannot be used as a trust anchor.
    #[error(
        "{path} holds a certificate that cannot be used as a certificate authority: certificate {number} in line {line}"
    )]
    Unusable {
        /// The file.
        path: ShownPath,
        /// Which certificate of the file it is, from 1.
        number: usize,
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
    /// There is no line that begins it.
    #[error("is an END line without a BEGIN line")]
    NoBegin,
    /// What is between them.
    #[error("is not base64")]
    Base64,
    /// Something else.
    #[error("is malformed")]
    Other,
}

/// A block of PEM in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which certificate of the file it holds, from 1, if its label says that it holds one.
    pub number: Option<usize>,
    /// Where it begins, from 1.
    pub line: usize,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, line } = self;
        match number {
            Some(number) => write!(f, "certificate {number} in line {line}"),
            None => write!(f, "the block in line {line}"),
        }
    }
}

/// A form of certificates that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// OpenSSL's own form, with rules on what the certificate is trusted for, which may be nothing.
    #[error(
        "a TRUSTED CERTIFICATE of OpenSSL, whose trust settings are not read: convert it with `openssl x509 -in FILE`"
    )]
    TrustedCertificate,
    /// A message that holds certificates.
    #[error("certificates in a PKCS #7 message: extract them with `openssl pkcs7 -in FILE -print_certs`")]
    Container,
    /// Another label that names certificates.
    #[error("a block that is not a CERTIFICATE, though its label says something like it: remove or convert it")]
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
///
/// Indented blocks, byte order marks, and line ends of every system are read. What stands outside blocks, and blocks that hold neither a
/// certificate nor what looks like one, are skipped.
pub(super) fn add_cas(content: &[u8], path: &Path, roots: &mut RootCertStore) -> Result<usize, Error> {
    if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
        return Err(Error::Utf16 { path: path.into() });
    }
    let (mut ca_count, mut private_key_line) = (0, None);
    let mut lines = (1..).zip(lines(content));
    while let Some((line, text)) = lines.next() {
        let not_pem = |number, malformed| Error::NotPem { path: path.into(), block: Block { number, line }, malformed };
        let label = match Boundary::of(text) {
            Boundary::None => continue,
            Boundary::Malformed => return Err(not_pem(None, Malformed::Begin)),
            Boundary::End(_) => return Err(not_pem(None, Malformed::NoBegin)),
            Boundary::Begin(label) => label,
        };
        let kind = BlockKind::of(label);
        let number = (kind == BlockKind::Certificate).then_some(ca_count + 1);
        let body = block_body(&mut lines, label).map_err(|malformed| not_pem(number, malformed))?;
        match kind {
            BlockKind::Certificate => {
                let certificate = decode(&body).map_err(|malformed| not_pem(number, malformed))?;
                let unusable = |_| Error::Unusable { path: path.into(), number: ca_count + 1, line };
                roots.add(certificate).map_err(unusable)?;
                ca_count += 1;
            }
            BlockKind::Unsupported(kind) => return Err(Error::Unsupported { path: path.into(), line, kind }),
            BlockKind::PrivateKey => private_key_line = private_key_line.or(Some(line)),
            BlockKind::Other => {}
        }
    }
    match private_key_line {
        _ if ca_count > 0 => Ok(ca_count),
        Some(line) => Err(Error::PrivateKey { path: path.into(), line }),
        None => Err(Error::Empty { path: path.into() }),
    }
}

/// The lines of `content`, which end with LF, CR LF or CR, without spaces and byte order marks at either end.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.flat_map(|line| line.split(|byte| *byte == b'\r')).map(|line| {
        let line = line.trim_ascii();
        // One in the middle of a file comes of files that were put together.
        line.strip_prefix(BYTE_ORDER_MARK).map_or(line, <[u8]>::trim_ascii)
    })
}

/// What a line is to the blocks of PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boundary<'a> {
    /// It begins a block with that label.
    Begin(&'a [u8]),
    /// It ends one.
    End(&'a [u8]),
    /// It is meant to begin or end one, and does not.
    Malformed,
    /// Neither.
    None,
}

impl<'a> Boundary<'a> {
    fn of(line: &'a [u8]) -> Self {
        let label = |keyword: &[u8]| {
            let label = line.strip_prefix(b"-----")?.strip_prefix(keyword)?.strip_suffix(b"-----")?;
            (!label.windows(2).any(|pair| pair == b"--")).then_some(label)
        };
        if let Some(label) = label(b"BEGIN ") {
            Self::Begin(label)
        } else if let Some(label) = label(b"END ") {
            Self::End(label)
        } else if line.starts_with(b"-----BEGIN") || is_like_boundary(line) {
            Self::Malformed
        } else {
            Self::None
        }
    }
}

/// Whether `line`, which is no boundary, was one of a certificate before somebody or something changed it: dashes that were lost, or made
/// typographic ones, text before it, lower case. A comment is none.
fn is_like_boundary(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line).to_ascii_uppercase();
    let has_dashes = text.contains("--") || text.contains(['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}']);
    let has_words = (text.contains("BEGIN") || text.contains("END ")) && text.contains("CERTIFICATE");
    has_dashes && has_words && !text.starts_with('#')
}

/// The lines of a block up to its end, which must have `label`.
fn block_body<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a [u8])>,
    label: &[u8],
) -> Result<Vec<&'a [u8]>, Malformed> {
    let mut body = Vec::new();
    for (_, line) in lines {
        match Boundary::of(line) {
            Boundary::None => body.push(line),
            Boundary::End(end) if end == label => return Ok(body),
            _ => break,
        }
    }
    Err(Malformed::End)
}

/// The certificate whose block has the lines `body`.
fn decode(body: &[&[u8]]) -> Result<CertificateDer<'static>, Malformed> {
    let block =
        [b"-----BEGIN CERTIFICATE-----".as_slice(), &body.join(&b'\n'), b"-----END CERTIFICATE-----\n"].join(&b'\n');
    match pem::from_buf(&mut block.as_slice()) {
        Ok(Some((SectionKind::Certificate, certificate))) => Ok(CertificateDer::from(certificate)),
        Ok(_) => Err(Malformed::Other),
        Err(error) => Err(Malformed::from(&error)),
    }
}

/// What a block holds, by its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockKind {
    Certificate,
    PrivateKey,
    Unsupported(Unsupported),
    /// Nothing that is a certificate or looks like one.
    Other,
}

impl BlockKind {
    fn of(label: &[u8]) -> Self {
        let contains = |word: &[u8]| label.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
        match label {
            // The second is an old name of the first.
            b"CERTIFICATE" | b"X509 CERTIFICATE" => Self::Certificate,
            b"TRUSTED CERTIFICATE" => Self::Unsupported(Unsupported::TrustedCertificate),
            _ if contains(b"PKCS7") || contains(b"PKCS #7") || contains(b"CMS") => {
                Self::Unsupported(Unsupported::Container)
            }
            _ if contains(b"CERTIFICATE") => Self::Unsupported(Unsupported::Other),
            _ if contains(b"PRIVATE KEY") => Self::PrivateKey,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
