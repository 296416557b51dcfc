//! Whom the proxy trusts upstream. The data path and the token call share one [`TrustStore`].
//!
//! What is trusted at one moment is one immutable rustls configuration. A change of `upstream.ca_file` makes another one, and
//! connections take the one that is current when they begin. So there is no moment without verification, and since each
//! configuration has a verifier and a session store of its own, and rustls resumes a session only under the verifier that it
//! was made under, no authority that was removed lives on in a resumed session. A store that is emptied at a change would not
//! do: TLS 1.3 tickets come at any time, from connections that were verified before it too.
//!
//! Deliberately absent: any way to turn verification off, early data, a key log file, client certificates, revocation lists,
//! and the system's trust store (the image has none). `docs/tls.md` tells operators what this means to them.

mod ca_file;
mod describe;
mod failure;
mod pin;
mod stream;
mod trust_store;

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

pub use ca_file::{Error, Malformed};
pub use describe::{ChainDescription, describe_chain, exceeded_limit};
pub use failure::TlsFailure;
pub use pin::Pin;
pub use stream::Stream;
pub use trust_store::{TrustStore, TrustStoreWriter, trust_store};

/// What is trusted.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the authorities of Mozilla's list, which are compiled in, are trusted (`upstream.public_roots`).
    pub public_roots: bool,
    /// A PEM file with certificate authorities (`upstream.ca_file`), followed while the process runs.
    pub ca_file: Option<PathBuf>,
    /// Further certificate authorities, for a caller that made them itself: the demo and its sandbox.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The keys of which the upstream's must be one, besides all else (`upstream.pinned_keys`); none for any.
    pub pinned_keys: Vec<Pin>,
}

impl Default for Config {
    fn default() -> Self {
        Self { public_roots: true, ca_file: None, extra_roots: Vec::new(), pinned_keys: Vec::new() }
    }
}
