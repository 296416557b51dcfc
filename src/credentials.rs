//! The credentials that the proxy holds for its callers, and where they are read from.
//!
//! A [`Config`] says which [`CredentialSource`] there is; [`load`] reads one set of [`Credentials`] from it. Each source is a file
//! or a folder: `env`, `dir`, and a secret store for each cargo feature of its name, over what they share (`store`).
//!
//! They are read straight from the environment or from files, never through the `config` crate, which turns digits into
//! numbers and prints values in its errors. A [`Problem`] names the place and the way out, never the value.

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
    /// OAuth 2.0 client credentials (RFC 6749, 4.4): this product's specification.
    OAuth2,
    /// Partner authentication: what the vendor's published API documents.
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

/// One set of credentials. Id, secret and key belong together: they are loaded together and they change together.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// What they authenticate with.
    pub scheme: Scheme,
    /// The client or partner identifier. Not a secret in OAuth's terms, but half of the pair that a lock-out counts, so it is
    /// kept out of every log all the same.
    pub id: Secret<String>,
    /// The client or partner secret.
    pub secret: Secret<String>,
    /// The App Key.
    pub app_key: AppKey,
}

impl Credentials {
    /// The partner's identifier and secret; `None` for OAuth 2.0 credentials, which have neither.
    pub fn partner(&self) -> Option<PartnerCredentials> {
        (self.scheme == Scheme::Partner)
            .then(|| PartnerCredentials { id: self.id.clone(), secret: self.secret.clone() })
    }

    /// What no output may ever show: the secret and the App Key.
    pub fn secrets(&self) -> Vec<Secret<Vec<u8>>> {
        vec![Secret::new(self.secret.expose().as_bytes().to_vec()), Secret::new(self.app_key.expose().to_vec())]
    }
}

/// What signs the vendor's notifications and identifies a partner in calls: a copy of a part of [`Credentials`], kept for these alone.
#[derive(Clone, Debug)]
pub struct PartnerCredentials {
    /// The partner identifier.
    pub id: Secret<String>,
    /// The partner secret.
    pub secret: Secret<String>,
}

/// An App Key that is known to be legal in a header field.
#[derive(Clone, Debug)]
pub struct AppKey(Secret<String>);

impl AppKey {
    /// Checks that `value` can be sent as a header field value (RFC 9110, 5.5): printable ASCII, without a space at either end.
    ///
    /// Returns `None` when it cannot.
    pub fn new(value: Secret<String>) -> Option<Self> {
        let text = value.expose();
        let legal = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim().len() == text.len();
        (legal && !text.is_empty()).then_some(Self(value))
    }

    /// The key as a header value; see [`sensitive`].
    pub fn header(&self) -> HeaderValue {
        sensitive(Zeroizing::new(self.expose().to_vec())).expect("printable ASCII is a legal header value")
    }

    /// The key's bytes, for what is derived from them.
    pub fn expose(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// The value of a header field that authorizes as Basic does (RFC 7617); see [`sensitive`].
pub fn basic(id: &str, secret: &str) -> HeaderValue {
    let pair = Zeroizing::new([id, ":", secret].concat());
    // Never moved while it grows, which would leave copies behind: base64 makes four characters of three bytes.
    let mut value = String::with_capacity("Basic ".len() + 4 * pair.len().div_ceil(3));
    value.push_str("Basic ");
    BASE64_STANDARD.encode_string(pair.as_bytes(), &mut value);
    sensitive(Zeroizing::new(value.into_bytes())).expect("base64 is legal in a header")
}

/// The password in the value of a header field that [`basic`] made.
pub fn basic_password(value: &HeaderValue) -> Option<Secret<Vec<u8>>> {
    let encoded = value.as_bytes().strip_prefix(b"Basic ")?;
    let mut pair = Zeroizing::new(Vec::with_capacity(encoded.len()));
    BASE64_STANDARD.decode_vec(encoded, &mut pair).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Secret::new(pair[colon + 1..].to_vec()))
}

/// A header value that is marked sensitive, so that `Debug` and HPACK tables leave it out, and whose memory is overwritten when
/// the last copy of it is dropped. `None` when the bytes are illegal in a header.
pub fn sensitive(bytes: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
