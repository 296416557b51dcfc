//! The current trust store: one writer, any number of readers.

use std::{sync::Arc, time::Duration};

use ::ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};

use super::{Config, Error, ca_file, pin::PinnedKeyVerifier};
use crate::{error_chain, process::file_watch::Watcher};

/// How long a new `upstream.ca_file` must stay unchanged before it is applied, so that an edit in place has finished.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Creates the writer, for the task that watches `upstream.ca_file`, and the reader, for connections.
///
/// # Errors
///
/// `upstream.ca_file` is invalid, or no CA would be trusted.
pub fn trust_store(config: Config) -> Result<(TrustStoreWriter, TrustStore), Error> {
    let content = config.ca_file.as_deref().map(ca_file::read).transpose()?.unwrap_or_default();
    let (client_config, _) = client_config(&config, &content)?;
    let current = Arc::new(ArcSwap::from_pointee(client_config));
    let trust_store = TrustStore(Arc::clone(&current));
    Ok((
        TrustStoreWriter { watcher: Watcher::new(Observation::new(Ok(&content)), SETTLE_TIME), config, current },
        trust_store,
    ))
}

/// The reader: provides the current TLS client configuration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TrustStore(Arc<ArcSwap<ClientConfig>>);

impl TrustStore {
    /// The current configuration: TLS 1.2 and 1.3, no ALPN. Call this for each new connection.
    pub fn client_config(&self) -> ClientConfig {
        // The clone shares verifier and session store with the original.
        ClientConfig::clone(&self.0.load())
    }
}

/// The writer. There is only one, so it is not `Clone`.
#[derive(Debug)]
pub struct TrustStoreWriter {
    config: Config,
    watcher: Watcher<Observation>,
    current: Arc<ArcSwap<ClientConfig>>,
}

impl TrustStoreWriter {
    /// The time until [`Self::check_file`] is due. `None` without a file.
    pub fn next_check(&self) -> Option<Duration> {
        self.config.ca_file.as_ref().map(|_| self.watcher.next_poll())
    }

    /// Reads the file, and applies its content if that has changed. Returns the number of its CAs, or `None` if nothing has changed.
    ///
    /// # Errors
    ///
    /// The file is invalid; the previous trust store stays in use. The same content or read error is reported only once.
    pub fn check_file(&mut self) -> Result<Option<usize>, Error> {
        let Some(path) = self.config.ca_file.as_deref() else { return Ok(None) };
        let content = ca_file::read(path);
        if self.watcher.observe(Observation::new(content.as_deref())) {
            self.replace(&content?).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads and applies the file, even if it has not changed.
    ///
    /// # Errors
    ///
    /// The file is invalid; the previous trust store stays in use.
    pub fn reload(&mut self) -> Result<Option<usize>, Error> {
        let Some(path) = self.config.ca_file.as_deref() else { return Ok(None) };
        let content = ca_file::read(path);
        self.watcher.applied(Observation::new(content.as_deref()));
        self.replace(&content?).map(Some)
    }

    /// Clears the session store, so that the next connection verifies the upstream's certificate.
    pub fn clear_sessions(&self) {
        let mut client_config = ClientConfig::clone(&self.current.load());
        client_config.resumption = Resumption::default();
        self.current.store(Arc::new(client_config));
    }

    fn replace(&self, content: &[u8]) -> Result<usize, Error> {
        let (client_config, ca_count) = client_config(&self.config, content)?;
        self.current.store(Arc::new(client_config));
        Ok(ca_count)
    }
}

/// The result of one check of the file. It compares content instead of metadata, because that detects every kind of change, and reading a
/// CA list is as cheap as a system call for its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Observation {
    /// The hash of the content.
    Content([u8; SHA256_OUTPUT_LEN]),
    /// The error message.
    Unreadable(String),
}

impl Observation {
    fn new(content: Result<&[u8], &Error>) -> Self {
        match content {
            Ok(content) => {
                let hash = digest(&SHA256, content);
                Self::Content(hash.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
            }
            Err(error) => Self::Unreadable(error_chain::one_line(error)),
        }
    }
}

/// The client configuration for `config`, with `content` as the content of its file, and the number of CAs in the file.
fn client_config(config: &Config, content: &[u8]) -> Result<(ClientConfig, usize), Error> {
    let (verifier, provider, ca_count) = verifier(config, content)?;
    Ok((with_verifier(provider, verifier, config), ca_count))
}

/// A function that verifies chains according to `config`, without pinned keys, at a time chosen by the caller; and the number of CAs in the
/// file. Used to describe a chain that is already verified.
pub(super) fn chain_verifier(
    config: &Config,
    content: &[u8],
) -> Result<(impl Fn(&Chain<'_>) -> Verified, usize), Error> {
    let (verifier, _, ca_count) = verifier(config, content)?;
    let verify = move |chain: &Chain<'_>| {
        let Chain { end_entity, intermediates, name, at } = chain;
        verifier.verify_server_cert(end_entity, intermediates, name, &[], *at).map(drop)
    };
    Ok((verify, ca_count))
}

/// The result of a verification.
type Verified = Result<(), rustls::Error>;

/// The certificates of a server, the name to verify, and the time at which they must be valid.
pub(super) struct Chain<'a> {
    pub(super) end_entity: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) name: &'a ServerName<'a>,
    pub(super) at: UnixTime,
}

/// The verifier for `config` without pinned keys, its crypto provider, and the number of CAs in the file.
fn verifier(config: &Config, content: &[u8]) -> Result<(Arc<WebPkiServerVerifier>, Arc<CryptoProvider>, usize), Error> {
    let mut roots = RootCertStore::empty();
    if config.public_roots {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let ca_count = match &config.ca_file {
        Some(path) => ca_file::add_cas(content, path, &mut roots)?,
        None => 0,
    };
    for certificate in &config.extra_roots {
        roots.add(certificate.clone()).expect("a CA certificate generated by this program is usable");
    }
    let provider = Arc::new(provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|_| Error::NoRoots)?;
    Ok((verifier, provider, ca_count))
}

/// The ring provider, with AES-128 preferred over AES-256. Both are secure, AES-128 needs 10 rounds instead of 14, and decryption dominates
/// the cost of large responses. Browsers use the same order.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let is_aes_128 = matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        );
        (suite.tls13().is_none(), !is_aes_128)
    });
    provider
}

fn with_verifier(provider: Arc<CryptoProvider>, verifier: Arc<WebPkiServerVerifier>, config: &Config) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("ring offers TLS 1.2 and 1.3");
    let builder = if config.pinned_keys.is_empty() {
        builder.with_webpki_verifier(verifier)
    } else {
        // `dangerous` refers to verifiers that check less. This one checks more.
        let pinned = PinnedKeyVerifier::new(verifier, config.pinned_keys.clone());
        builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
    };
    builder.with_no_client_auth()
}

#[cfg(test)]
mod tests;
