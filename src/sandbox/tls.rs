//! The sandbox's CA, created at the start or kept in a directory, and its server certificate.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _},
};

/// The names that are always in the certificate.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The files in the directory of a persistent CA.
const CA_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca-key.pem";

/// Why a persistent CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file or the directory cannot be read or written.
    #[error("cannot use {path}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The files are not a CA that the sandbox created.
    #[error("{path} is not a CA created by the sandbox; remove both files in the directory to create a new one", path = .0.display())]
    Invalid(PathBuf),
    /// A name that is not a host name.
    #[error("{0:?} is not a host name")]
    Name(String),
}

/// The sandbox's CA.
#[derive(Debug)]
pub(super) struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// The CA in `folder`, which is created there if it does not exist. Without a folder, a new CA for this process.
    ///
    /// # Errors
    ///
    /// When the folder or the files in it cannot be used.
    #[inline(never)]
    pub(super) fn load(folder: Option<&Path>) -> Result<Self, CaError> {
        let Some(folder) = folder else { return Ok(Self::new().0) };
        let (ca_file, key_file) = (folder.join(CA_FILE), folder.join(KEY_FILE));
        if key_file.exists() {
            let read = |path: &Path| fs::read_to_string(path).map_err(|error| CaError::Io(path.to_owned(), error));
            let (pem, key) = (read(&ca_file)?, read(&key_file)?);
            return Self::parse(&pem, &key).ok_or(CaError::Invalid(ca_file));
        }
        let write =
            |path: &Path, text: &str| fs::write(path, text).map_err(|error| CaError::Io(path.to_owned(), error));
        fs::create_dir_all(folder).map_err(|error| CaError::Io(folder.to_owned(), error))?;
        let (ca, key) = Self::new();
        write(&ca_file, &ca.pem)?;
        write_private(&key_file, &key).map_err(|error| CaError::Io(key_file, error))?;
        Ok(ca)
    }

    /// Creates a CA; returns it with its key in PEM.
    fn new() -> (Self, String) {
        let params = ca_params();
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let certificate = params.self_signed(&key).expect("the parameters are valid");
        let key_pem = key.serialize_pem();
        let ca =
            Self { certificate: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) };
        (ca, key_pem)
    }

    /// A CA from the certificate and key that [`Self::new`] created.
    fn parse(pem: &str, key: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let issuer = Issuer::new(ca_params(), KeyPair::from_pem(key).ok()?);
        Some(Self { certificate, pem: pem.to_owned(), issuer })
    }

    /// The CA certificate.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A server configuration with a certificate for [`NAMES`] and `names`, signed by this CA. TLS 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    ///
    /// When one of `names` is not a host name.
    #[inline(never)]
    pub(super) fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, CaError> {
        if let Some(name) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
            return Err(CaError::Name(name.clone()));
        }
        let all: Vec<String> = NAMES.into_iter().chain(names.iter().map(String::as_str)).map(str::to_owned).collect();
        let mut params = CertificateParams::new(all).map_err(|_| CaError::Name(names.join(" ")))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are valid");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring offers TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key belongs to the certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The parameters of the sandbox's CA certificates.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "finicity-proxy sandbox CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Writes `text` to a new file with mode 0600.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
