//! `upstream.ca_file`: CAs in a PEM file.
//!
//! The file may be the wrong one, such as a private key. So errors contain none of its content, only the kind of problem and the line. The
//! parser's errors are not passed on, because they quote lines.

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

/// Maximum size of the file, several times the CA list of an operating system. Larger files are the wrong ones, and must not fill the
/// memory.
const MAX_BYTES: u64 = 1024 * 1024;

/// Windows editors write it at the start of UTF-8 files.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why no trust store can be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No CA would be trusted.
    #[error("no CA would be trusted: set upstream.ca_file, or set upstream.public_roots = true")]
    NoRoots,
    /// Reading the file failed.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: ShownPath,
        /// The system's error.
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error("{path} is not a file")]
    NotAFile {
        /// The path.
        path: ShownPath,
    },
    /// The file is far larger than any CA list.
    #[error("{path} is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: ShownPath,
    },
    /// The file is UTF-16 text.
    #[error("{path} is in UTF-16: save it in UTF-8")]
    Utf16 {
        /// The file.
        path: ShownPath,
    },
    /// The file is not PEM.
    #[error("{path} is not a valid PEM file: {block} {malformed}")]
    NotPem {
        /// The file.
        path: ShownPath,
        /// The malformed block.
        block: Block,
        /// The kind of problem.
        malformed: Malformed,
    },
    /// The file contains no certificate.
    #[error("{path} contains no certificate: at least one BEGIN CERTIFICATE block is required")]
    Empty {
        /// The file.
        path: ShownPath,
    },
    /// The file contains a private key and no certificate.
    #[error(
        "{path} contains a private key in line {line}, but no certificate: use a file with CA certificates, and do not give the key \
         to this process"
    )]
    PrivateKey {
        /// The file.
        path: ShownPath,
        /// First line of the key, from 1.
        line: usize,
    },
    /// A block in the file contains, or may contain, certificates in an unsupported form.
    #[error("{path}: line {line} contains {kind}")]
    Unsupported {
        /// The file.
        path: ShownPath,
        /// First line of the block, from 1.
        line: usize,
        /// The content of the block.
        kind: Unsupported,
    },
    /// A certificate in the file cannot be used as a trust anchor.
    #[error(
        "{path} contains a certificate that is not usable as a CA certificate: certificate {number} in line {line}"
    )]
    Unusable {
        /// The file.
        path: ShownPath,
        /// Number of the certificate in the file, from 1.
        number: usize,
        /// First line of the certificate, from 1.
        line: usize,
    },
}

/// What is wrong with a PEM block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its BEGIN line is malformed.
    #[error("has a malformed BEGIN line")]
    Begin,
    /// It has no END line, or one with another label.
    #[error("has no matching END line")]
    End,
    /// It has no BEGIN line.
    #[error("is an END line without a BEGIN line")]
    NoBegin,
    /// Its content is not base64.
    #[error("is not base64")]
    Base64,
    /// Any other problem.
    #[error("is malformed")]
    Other,
}

/// A PEM block in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the certificate in the file, from 1. `None` if the label is not that of a certificate.
    pub number: Option<usize>,
    /// First line, from 1.
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

/// An unsupported form of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// OpenSSL's form with trust settings, which may restrict what the certificate is trusted for, or distrust it.
    #[error(
        "an OpenSSL TRUSTED CERTIFICATE, and its trust settings are not supported: convert it with `openssl x509 -in FILE`"
    )]
    TrustedCertificate,
    /// A PKCS #7 message with certificates.
    #[error("certificates in a PKCS #7 message: extract them with `openssl pkcs7 -in FILE -print_certs`")]
    Container,
    /// Another label that mentions certificates.
    #[error("a block with a label similar to CERTIFICATE, which is not supported: remove or convert it")]
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
    // Checked before opening, because opening a pipe blocks until there is a writer.
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

/// Adds the CAs in `content` to `roots`, and returns their number. `path` is used in errors only.
///
/// Accepts indented blocks, byte order marks, and the line ends of every system. Skips text outside blocks, and blocks that neither
/// contain a certificate nor look like one.
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

/// The lines of `content`, separated by LF, CR LF or CR. White space at both ends and a byte order mark are removed.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.flat_map(|line| line.split(|byte| *byte == b'\r')).map(|line| {
        let line = line.trim_ascii();
        // Concatenating files leaves byte order marks in the middle.
        line.strip_prefix(BYTE_ORDER_MARK).map_or(line, <[u8]>::trim_ascii)
    })
}

/// Whether a line is the boundary of a PEM block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boundary<'a> {
    /// A BEGIN line, with its label.
    Begin(&'a [u8]),
    /// An END line, with its label.
    End(&'a [u8]),
    /// A line that looks like a boundary and is malformed.
    Malformed,
    /// Any other line.
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

/// Whether `line` looks like a damaged boundary of a certificate: dashes missing or replaced with typographic ones, text before it, or
/// lower case. Comments do not count.
fn is_like_boundary(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line).to_ascii_uppercase();
    let has_dashes = text.contains("--") || text.contains(['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}']);
    let has_words = (text.contains("BEGIN") || text.contains("END ")) && text.contains("CERTIFICATE");
    has_dashes && has_words && !text.starts_with('#')
}

/// The lines of a block up to its END line, which must have `label`.
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

/// Decodes the certificate from the lines of its block.
fn decode(body: &[&[u8]]) -> Result<CertificateDer<'static>, Malformed> {
    let block =
        [b"-----BEGIN CERTIFICATE-----".as_slice(), &body.join(&b'\n'), b"-----END CERTIFICATE-----\n"].join(&b'\n');
    match pem::from_buf(&mut block.as_slice()) {
        Ok(Some((SectionKind::Certificate, certificate))) => Ok(CertificateDer::from(certificate)),
        Ok(_) => Err(Malformed::Other),
        Err(error) => Err(Malformed::from(&error)),
    }
}

/// The content of a block, judged by its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockKind {
    Certificate,
    PrivateKey,
    Unsupported(Unsupported),
    /// Neither a certificate nor similar to one.
    Other,
}

impl BlockKind {
    fn of(label: &[u8]) -> Self {
        let contains = |word: &[u8]| label.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
        match label {
            // The second is an old name for the first.
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
