//! The trust store that is in use: one writer, any number of readers.

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

/// How long `upstream.ca_file` must be unchanged before it is applied. A writer that edits it in place is done by then.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Makes the two ends: the writer for the task that follows `upstream.ca_file`, the reader for whoever connects.
///
/// # Errors
///
/// When `upstream.ca_file` cannot be used, or nothing would be trusted.
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

/// The reading end, cheap to clone. It gives the TLS client configuration that is in use.
#[derive(Clone, Debug)]
pub struct TrustStore(Arc<ArcSwap<ClientConfig>>);

impl TrustStore {
    /// The configuration for a connection that begins now: TLS 1.2 and 1.3, no ALPN yet. To be asked for at each connection.
    pub fn client_config(&self) -> ClientConfig {
        // A copy shares verifier and session store with its original.
        ClientConfig::clone(&self.0.load())
    }
}

/// The writing end. There is one, and it is not `Clone`.
#[derive(Debug)]
pub struct TrustStoreWriter {
    config: Config,
    watcher: Watcher<Observation>,
    current: Arc<ArcSwap<ClientConfig>>,
}

impl TrustStoreWriter {
    /// The time until [`Self::check_file`] is due; `None` without a file.
    pub fn next_check(&self) -> Option<Duration> {
        self.config.ca_file.as_ref().map(|_| self.watcher.next_poll())
    }

    /// Reads the file, and applies its content when that has changed. Returns the number of its CAs, or `None` when it has not
    /// changed.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, once for each way in which it is wrong. The trust of before stays.
    pub fn check_file(&mut self) -> Result<Option<usize>, Error> {
        let Some(path) = self.config.ca_file.as_deref() else { return Ok(None) };
        let content = ca_file::read(path);
        if self.watcher.observe(Observation::new(content.as_deref())) {
            self.replace(&content?).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads the file again, whether it has changed or not.
    ///
    /// # Errors
    ///
    /// When the file cannot be used. The trust of before stays.
    pub fn reload(&mut self) -> Result<Option<usize>, Error> {
        let Some(path) = self.config.ca_file.as_deref() else { return Ok(None) };
        let content = ca_file::read(path);
        self.watcher.applied(Observation::new(content.as_deref()));
        self.replace(&content?).map(Some)
    }

    /// Empties the session store, so that the next connection verifies the upstream's certificate.
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

/// The content of the file at one check, short enough to keep. The content is compared, and not metadata: that holds for every way to change
/// a file, and a list of authorities is read in less time than a system call takes to describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Observation {
    /// The hash of the content.
    Content([u8; SHA256_OUTPUT_LEN]),
    /// Why there is none.
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

/// The configuration that trusts what `config` says, where its file holds `content`; and the number of CAs in that.
fn client_config(config: &Config, content: &[u8]) -> Result<(ClientConfig, usize), Error> {
    let (verifier, provider, ca_count) = verifier(config, content)?;
    Ok((with_verifier(provider, verifier, config), ca_count))
}

/// Verifies chains as `config` says, pinned keys apart, at a time that the caller chooses: to describe a chain that was verified before. And
/// the number of CAs in the file.
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

/// The outcome of a verification.
type Verified = Result<(), rustls::Error>;

/// What a server presents, the name that it must have, and the time that it must be valid at.
pub(super) struct Chain<'a> {
    pub(super) end_entity: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) name: &'a ServerName<'a>,
    pub(super) at: UnixTime,
}

/// The verifier of that without pinned keys, its cryptography, and the number of CAs in the file.
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
        roots.add(certificate.clone()).expect("a certificate authority that this program made is usable");
    }
    let provider = Arc::new(provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|_| Error::NoRoots)?;
    Ok((verifier, provider, ca_count))
}

/// ring, with AES-128 before AES-256 in what is offered: both are beyond reach, and of what the shorter key takes, 10 rounds and not 14, a
/// large answer is mostly made. Browsers offer them in this order too.
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
        // What is dangerous is a verifier that asks for less. This one asks for more.
        let pinned = PinnedKeyVerifier::new(verifier, config.pinned_keys.clone());
        builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
    };
    builder.with_no_client_auth()
}

#[cfg(test)]
mod tests;
