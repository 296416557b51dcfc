//! What was wrong with a TLS handshake, in this program's words.

use std::{error::Error, fmt};

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};

use super::pin::NotPinned;
use crate::error_chain;

labels! {
    /// The faults that an operator can do something about. The words of rustls are not used for these: they quote names out of the
    /// certificate, which are the peer's words, and nobody has verified the peer.
    pub enum Fault {
        /// The chain ends at no authority that is trusted.
        Authority = "authority",
        /// A certificate of the chain is past its time.
        Expired = "expired",
        /// A certificate of the chain is ahead of its time.
        NotYetValid = "not_yet_valid",
        /// The certificate is for another host.
        Name = "name",
        /// The key is none of the pinned ones.
        Pin = "pin",
        /// The certificate cannot be used for another reason.
        Certificate = "certificate",
        /// There is no version of TLS that both sides accept.
        Version = "version",
    }
}

impl Fault {
    /// The fault in the chain of causes of `error`, where there is one.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        error_chain::find::<rustls::Error>(error).and_then(Self::of)
    }

    /// The fault that `error` is, unless it is none of these.
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(error) => Some(Self::of_certificate(error)),
            rustls::Error::NoCertificatesPresented => Some(Self::Certificate),
            rustls::Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => Some(Self::Version),
            _ => None,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // A bad signature is what an authority leaves that only has the name of a trusted one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Authority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name,
            CertificateError::Other(OtherError(error)) if error.is::<NotPinned>() => Self::Pin,
            _ => Self::Certificate,
        }
    }

    /// Whether the certificate is at fault, as opposed to the handshake.
    pub fn is_of_certificate(self) -> bool {
        self != Self::Version
    }

    /// One sentence for logs.
    pub fn description(self) -> &'static str {
        match self {
            Self::Authority => {
                "the upstream's certificate is self-signed or of an authority that is not trusted: see upstream.ca_file"
            }
            Self::Expired => "the upstream's certificate has expired, or this machine's clock is ahead",
            Self::NotYetValid => "the upstream's certificate is not valid yet, or this machine's clock is behind",
            Self::Name => "the upstream's certificate is for another host than upstream.url names",
            Self::Pin => "the upstream's certificate has a key that upstream.pinned_keys does not list",
            Self::Certificate => "the upstream's certificate cannot be used",
            Self::Version => "the upstream does not speak TLS 1.2 or 1.3",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}
