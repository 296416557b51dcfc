//! Whom the proxy trusts upstream: one rustls configuration, used by the data path and by the token call alike.
//!
//! Deliberately absent: any way to turn verification off, a key log file, client certificates, and the system's trust
//! store (the image has none). Trust is Mozilla's list, compiled in, plus the certificates of `upstream.ca_file`.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// What is trusted besides the roots that are compiled in.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// A PEM file with further certificate authorities (`upstream.ca_file`).
    pub ca_file: Option<PathBuf>,
    /// Further certificate authorities, for a caller that made them itself: the demo and its sandbox.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// Why the TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or is not PEM.
    #[error("{path} cannot be read as a PEM file", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: rustls::pki_types::pem::Error,
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

/// The client configuration: TLS 1.2 and 1.3, the trust that `config` describes, no ALPN yet.
///
/// # Errors
///
/// When `upstream.ca_file` cannot be used.
pub fn client_config(config: &Config) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &config.ca_file {
        let unreadable = |source| Error::Unreadable { path: path.clone(), source };
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|source| Error::Unusable { path: path.clone(), source })?;
            found = true;
        }
        if !found {
            return Err(Error::Empty { path: path.clone() });
        }
    }
    for certificate in &config.extra_roots {
        roots.add(certificate.clone()).expect("a certificate authority that this program made is usable");
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, fs};

    use super::*;

    fn with_file(content: &str) -> Result<ClientConfig, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        fs::write(&path, content).unwrap();
        client_config(&Config { ca_file: Some(path), extra_roots: Vec::new() })
    }

    #[test]
    fn the_built_in_roots_are_enough() {
        let config = client_config(&Config::default()).unwrap();
        assert!(config.alpn_protocols.is_empty());
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_refused_with_its_path() {
        let missing = Config { ca_file: Some("/nonexistent/ca.pem".into()), extra_roots: Vec::new() };
        let error = client_config(&missing).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem") && error.source().is_some(), "{error}");
        assert!(matches!(with_file("no certificate here\n"), Err(Error::Empty { .. })));
        assert!(matches!(
            with_file("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            Err(Error::Unreadable { .. })
        ));
        assert!(matches!(
            with_file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Err(Error::Unusable { .. })
        ));
    }
}
