//! What was wrong with a TLS handshake, in this program's words.

use std::{error::Error, fmt};

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};

use super::pin::NotPinned;
use crate::error_chain;

/// The faults that an operator can do something about. The words of rustls are not used for these: they quote names out of the
/// certificate, which are the peer's words, and nobody has verified the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The chain ends at no authority that is trusted.
    Authority,
    /// A certificate of the chain is past its time.
    Expired,
    /// A certificate of the chain is ahead of its time.
    NotYetValid,
    /// The certificate is for another host.
    Name,
    /// The key is none of the pinned ones.
    Pin,
    /// The certificate cannot be used for another reason.
    Certificate,
    /// There is no version of TLS that both sides accept.
    Version,
}

impl Fault {
    /// One word for each, in the order of the declaration, for metrics.
    pub const WORDS: [&str; 7] = ["authority", "expired", "not_yet_valid", "name", "pin", "certificate", "version"];

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
    pub fn as_str(self) -> &'static str {
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
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_word() {
        let all = [
            (Fault::Authority, "authority"),
            (Fault::Expired, "expired"),
            (Fault::NotYetValid, "not_yet_valid"),
            (Fault::Name, "name"),
            (Fault::Pin, "pin"),
            (Fault::Certificate, "certificate"),
            (Fault::Version, "version"),
        ];
        for (fault, word) in all {
            assert_eq!(Fault::WORDS[fault as usize], word);
        }
    }
}
