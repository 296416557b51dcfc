//! Self-signed tokens of a service account (AIP-4111): a JSON Web Token that Secret Manager accepts without a request to an issuer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{rand::SystemRandom, rsa, signature::RSA_PKCS1_SHA256};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::json;
use zeroize::{Zeroize as _, Zeroizing};

use super::credentials_file::ServiceAccountKey;

/// The audience of the token: the service, regardless of the endpoint.
const AUDIENCE: &str = "https://secretmanager.googleapis.com/";

/// The maximum lifetime that Google accepts.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

/// How far the clock of this machine may be ahead of Google's.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

/// A token signed now with `key`. `None` if the key is not usable for signing.
pub(super) fn sign(key: &ServiceAccountKey) -> Option<Zeroizing<String>> {
    #[expect(clippy::disallowed_methods, reason = "the claims contain wall-clock times")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    sign_at(key, now)
}

fn sign_at(key: &ServiceAccountKey, now: Duration) -> Option<Zeroizing<String>> {
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(key.private_key.as_bytes()).ok()?;
    let pair = rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der());
    der.zeroize();
    let pair = pair.ok()?;
    let issued = now.saturating_sub(CLOCK_SKEW).as_secs();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": key.private_key_id});
    let claims = json!({
        "iss": key.client_email,
        "sub": key.client_email,
        "aud": AUDIENCE,
        "iat": issued,
        "exp": issued + LIFETIME.as_secs(),
    });
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
    Some(Zeroizing::new(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
}
