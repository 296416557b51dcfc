//! Classifies TLS handshake failures, and describes them without text from the peer.

use std::{error::Error, fmt};

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};

use super::pin::NotPinned;
use crate::error_chain;

labels! {
    /// Failures on which an operator can act. The error texts of rustls are not used, because they quote names from the certificate of a
    /// peer that is not verified.
    pub enum TlsFailure {
        /// The chain does not end at a trusted CA.
        UnknownIssuer = "authority",
        /// A certificate of the chain has expired.
        Expired = "expired",
        /// A certificate of the chain is not valid yet.
        NotYetValid = "not_yet_valid",
        /// The certificate is for another host.
        NameMismatch = "name",
        /// The key is not pinned.
        PinMismatch = "pin",
        /// The certificate is invalid for another reason.
        BadCertificate = "certificate",
        /// The peers have no TLS version in common.
        ProtocolVersion = "version",
    }
}

impl TlsFailure {
    /// The failure in the chain of sources of `error`, if there is one.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        error_chain::find::<rustls::Error>(error).and_then(Self::classify)
    }

    /// The failure that `error` stands for. `None` for other errors.
    pub fn classify(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(error) => Some(Self::classify_certificate(error)),
            rustls::Error::NoCertificatesPresented => Some(Self::BadCertificate),
            rustls::Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => Some(Self::ProtocolVersion),
            _ => None,
        }
    }

    fn classify_certificate(error: &CertificateError) -> Self {
        match error {
            // A CA that only has the name of a trusted one produces a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::NameMismatch,
            CertificateError::Other(OtherError(error)) if error.is::<NotPinned>() => Self::PinMismatch,
            _ => Self::BadCertificate,
        }
    }

    /// Whether the certificate is invalid, as opposed to a failed negotiation.
    pub fn is_certificate(self) -> bool {
        self != Self::ProtocolVersion
    }

    /// One sentence for logs.
    pub fn description(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "the upstream's certificate is self-signed or issued by an untrusted CA: see upstream.ca_file"
            }
            Self::Expired => "the upstream's certificate has expired, or this machine's clock is ahead",
            Self::NotYetValid => "the upstream's certificate is not valid yet, or this machine's clock is behind",
            Self::NameMismatch => "the upstream's certificate is for another host than upstream.url names",
            Self::PinMismatch => "the upstream's certificate has a key that upstream.pinned_keys does not list",
            Self::BadCertificate => "the upstream's certificate is invalid",
            Self::ProtocolVersion => "the upstream does not speak TLS 1.2 or 1.3",
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}
