//! What was wrong with a TLS handshake, in this program's words.

use std::{error::Error, fmt};

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};

use super::pin::NotPinned;
use crate::error_chain;

labels! {
    /// The faults that an operator can do something about. The words of rustls are not used for these: they quote names out of the
    /// certificate, which are the peer's words, and nobody has verified the peer.
    pub enum TlsFailure {
        /// The chain ends at no authority that is trusted.
        UnknownIssuer = "authority",
        /// A certificate of the chain is past its time.
        Expired = "expired",
        /// A certificate of the chain is ahead of its time.
        NotYetValid = "not_yet_valid",
        /// The certificate is for another host.
        NameMismatch = "name",
        /// The key is none of the pinned ones.
        PinMismatch = "pin",
        /// The certificate cannot be used for another reason.
        BadCertificate = "certificate",
        /// There is no version of TLS that both sides accept.
        ProtocolVersion = "version",
    }
}

impl TlsFailure {
    /// The fault in the chain of causes of `error`, where there is one.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        error_chain::find::<rustls::Error>(error).and_then(Self::classify)
    }

    /// The fault that `error` is, unless it is none of these.
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
            // A bad signature is what an authority leaves that only has the name of a trusted one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::NameMismatch,
            CertificateError::Other(OtherError(error)) if error.is::<NotPinned>() => Self::PinMismatch,
            _ => Self::BadCertificate,
        }
    }

    /// Whether the certificate is at fault, as opposed to the handshake.
    pub fn is_certificate(self) -> bool {
        self != Self::ProtocolVersion
    }

    /// One sentence for logs.
    pub fn description(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "the upstream's certificate is self-signed or of an authority that is not trusted: see upstream.ca_file"
            }
            Self::Expired => "the upstream's certificate has expired, or this machine's clock is ahead",
            Self::NotYetValid => "the upstream's certificate is not valid yet, or this machine's clock is behind",
            Self::NameMismatch => "the upstream's certificate is for another host than upstream.url names",
            Self::PinMismatch => "the upstream's certificate has a key that upstream.pinned_keys does not list",
            Self::BadCertificate => "the upstream's certificate cannot be used",
            Self::ProtocolVersion => "the upstream does not speak TLS 1.2 or 1.3",
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}
