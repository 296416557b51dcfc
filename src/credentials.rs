//! The credentials that the proxy injects for its clients, and the sources that they are loaded from.
//!
//! A [`Config`] selects a [`CredentialSource`]; [`load`] reads one set of [`Credentials`] from it. Each source is one module:
//! `env`, `dir`, and one secret store for each cargo feature of the same name. The stores share the module `store`.
//!
//! Credentials are read directly from the environment or from files, never through the `config` crate, which parses digits as
//! numbers and prints values in its errors. A [`Problem`] names the origin of a value and the remedy, never the value.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod config;
pub mod dir;
mod env;
mod field;
#[cfg(feature = "gcp")]
mod gcp;
pub mod lockout;
mod open;
mod operator;
mod problem;
mod source;
#[cfg(feature = "store")]
mod store;
mod store_error;
mod value;
#[cfg(feature = "vault")]
mod vault;

pub use config::{
    AwsConfig, AzureConfig, AzureIdentity, Config, GcpAmbient, GcpConfig, KvVersion, SourceConfig, StoreConfig,
    VaultAuth, VaultConfig,
};
pub use field::{Field, Sourced};
pub use operator::{
    EGRESS_PASSWORD, EGRESS_USERNAME, WEBHOOK_SECRET, WebhookSecretSource, WebhookSecrets, admin_token,
    egress_authorization, operator_outline, secret_variables, variables,
};
pub use problem::{Problem, ValueDefect};
pub use source::{CredentialSource, NOT_SET, Values, load};
pub use store_error::{StoreError, StoreFault};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// How the proxy authenticates to the vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// OAuth 2.0 client credentials (RFC 6749, section 4.4), as in this product's specification.
    OAuth2,
    /// Partner authentication, as in the vendor's published API.
    Partner,
}

impl Scheme {
    /// The name in configuration, logs and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OAuth2 => "oauth2",
            Self::Partner => "partner",
        }
    }
}

/// One set of credentials. Id, secret and App Key are loaded together and change together.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The authentication scheme.
    pub scheme: Scheme,
    /// The client or partner identifier. OAuth does not treat it as a secret, but it identifies the account that the vendor
    /// can lock, so no log shows it.
    pub id: Secret<String>,
    /// The client or partner secret.
    pub secret: Secret<String>,
    /// The App Key.
    pub app_key: AppKey,
}

impl Credentials {
    /// The partner's identifier and secret; `None` for OAuth 2.0 credentials.
    pub fn partner(&self) -> Option<PartnerCredentials> {
        (self.scheme == Scheme::Partner)
            .then(|| PartnerCredentials { id: self.id.clone(), secret: self.secret.clone() })
    }

    /// The values that must never appear in any output: the secret and the App Key.
    pub fn secrets(&self) -> Vec<Secret<Vec<u8>>> {
        vec![Secret::new(self.secret.expose().as_bytes().to_vec()), Secret::new(self.app_key.expose().to_vec())]
    }
}

/// A copy of the partner id and secret in [`Credentials`]. The secret verifies webhooks; the id is added to Connect requests.
#[derive(Clone, Debug)]
pub struct PartnerCredentials {
    /// The partner identifier.
    pub id: Secret<String>,
    /// The partner secret.
    pub secret: Secret<String>,
}

/// An App Key that is a legal header field value.
#[derive(Clone, Debug)]
pub struct AppKey(Secret<String>);

impl AppKey {
    /// Checks that `value` is a legal header field value (RFC 9110, section 5.5): printable ASCII, not empty, and without a space at
    /// either end. Returns `None` otherwise.
    pub fn new(value: Secret<String>) -> Option<Self> {
        let text = value.expose();
        let legal = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim().len() == text.len();
        (legal && !text.is_empty()).then_some(Self(value))
    }

    /// The key as a header value; see [`sensitive`].
    pub fn header(&self) -> HeaderValue {
        sensitive(Zeroizing::new(self.expose().to_vec())).expect("printable ASCII is a legal header value")
    }

    /// The raw bytes of the key.
    pub fn expose(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// The header field value for Basic authentication (RFC 7617); see [`sensitive`].
pub fn basic(id: &str, secret: &str) -> HeaderValue {
    let pair = Zeroizing::new([id, ":", secret].concat());
    // Full capacity, because a reallocation would leave a copy in memory: base64 encodes three bytes as four characters.
    let mut value = String::with_capacity("Basic ".len() + 4 * pair.len().div_ceil(3));
    value.push_str("Basic ");
    BASE64_STANDARD.encode_string(pair.as_bytes(), &mut value);
    sensitive(Zeroizing::new(value.into_bytes())).expect("base64 is legal in a header")
}

/// The password in a header field value that [`basic`] created.
pub fn basic_password(value: &HeaderValue) -> Option<Secret<Vec<u8>>> {
    let encoded = value.as_bytes().strip_prefix(b"Basic ")?;
    let mut pair = Zeroizing::new(Vec::with_capacity(encoded.len()));
    BASE64_STANDARD.decode_vec(encoded, &mut pair).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Secret::new(pair[colon + 1..].to_vec()))
}

/// A header value that is marked sensitive: `Debug` hides it, and HPACK does not index it. Its memory is overwritten when the last
/// clone is dropped. `None` if the bytes are illegal in a header.
pub fn sensitive(bytes: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
