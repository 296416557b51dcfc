//! Pinned keys: in addition to the usual verification, the key of the upstream's certificate must be one of those listed.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Prefix of a pin.
const PREFIX: &str = "sha256/";

/// The SHA-256 of a certificate's `SubjectPublicKeyInfo` in DER (RFC 7469, 2.4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Parses `sha256/` and the base64 of 32 bytes. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let hash = BASE64_STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        hash.try_into().ok().map(Self)
    }

    /// The pin of a key's `SubjectPublicKeyInfo`.
    pub(super) fn of(key: &[u8]) -> Self {
        Self(digest(&SHA256, key).as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64_STANDARD.encode(self.0))
    }
}

/// The key is not pinned. The error deliberately does not contain its pin: otherwise an operator might copy the pin of an impostor into the
/// configuration.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the key is not pinned")]
pub(super) struct NotPinned;

/// Runs the usual verification, then checks the pins.
#[derive(Debug)]
pub(super) struct PinnedKeyVerifier {
    inner: Arc<WebPkiServerVerifier>,
    pins: Vec<Pin>,
}

impl PinnedKeyVerifier {
    /// Requires what `inner` requires, and one of `pins`.
    pub(super) fn new(inner: Arc<WebPkiServerVerifier>, pins: Vec<Pin>) -> Self {
        Self { inner, pins }
    }
}

impl ServerCertVerifier for PinnedKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        if self.pins.contains(&Pin::of(&key)) {
            return Ok(verified);
        }
        Err(CertificateError::Other(OtherError(Arc::new(NotPinned))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pin of 32 zero bytes.
    const ZEROS: &str = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn only_the_base64_of_32_bytes_is_a_pin() {
        assert_eq!(Pin::parse(ZEROS), Some(Pin([0; 32])));
        assert_eq!(format!("{:?}", Pin([0; 32])), ZEROS);
        let (base64, longer) = (&ZEROS[PREFIX.len()..], BASE64_STANDARD.encode([0; 33]));
        for invalid in [
            "",
            "sha256/",
            base64,
            &ZEROS.replace("sha256/", "sha1/"),
            &ZEROS.replace("sha256/", "SHA256/"),
            &ZEROS.replace("sha256/", "sha256//"),
            &ZEROS.replace('=', ""),
            &format!("{ZEROS} "),
            &format!("{PREFIX}{longer}"),
            &ZEROS.replace("AAA=", "AAB="),
            &ZEROS.replace("AAAA", "A-_A"),
        ] {
            assert_eq!(Pin::parse(invalid), None, "{invalid}");
        }
    }
}
