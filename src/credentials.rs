//! The credentials that the proxy holds for its callers, and where they are read from.
//!
//! They are read straight from the environment or from the files it names, never through the `config` crate, which
//! turns digits into numbers and prints values in its errors. A [`Problem`] names the variable and the way out, never
//! the value.

pub mod dir;
mod env;

pub use env::{Problem, VARIABLES, from_env};

use http::HeaderValue;

use crate::secret::Secret;

/// The OAuth 2.0 client credentials (RFC 6749, 4.4) and the vendor's App Key.
///
/// Id, secret and key belong together: they are loaded together and they change together.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The client identifier. Not a secret in OAuth's terms, but half of the pair that a lock-out counts, so it is kept out
    /// of every log all the same.
    pub client_id: Secret<String>,
    /// The client secret.
    pub client_secret: Secret<String>,
    /// The value of `Finicity-App-Key`.
    pub app_key: AppKey,
}

/// An App Key that is known to be legal in a header field.
#[derive(Clone, Debug)]
pub struct AppKey(Secret<String>);

impl AppKey {
    /// Checks that `value` can be sent as a header field value (RFC 9110, 5.5): visible ASCII, nothing around it.
    ///
    /// Returns `None` when it cannot.
    pub fn new(value: Secret<String>) -> Option<Self> {
        let legal = !value.expose().is_empty() && value.expose().bytes().all(|b| b.is_ascii_graphic());
        legal.then_some(Self(value))
    }

    /// The key as a header value that is marked sensitive, so that `Debug` and HPACK tables leave it out.
    pub fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(self.0.expose()).expect("visible ASCII is a legal header value");
        value.set_sensitive(true);
        value
    }
}
