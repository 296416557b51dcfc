//! The ways to authenticate to the vendor. A scheme says what the token call looks like and which header fields a request
//! carries; everything else about tokens is the same for all.

pub mod oauth2;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// The vendor's header for the App Key, on the token call and on every other call.
pub const FINICITY_APP_KEY: HeaderName = HeaderName::from_static("finicity-app-key");

/// What a successful token call grants: the header fields that authenticate a request, made once for each token. App Key
/// and token travel together, so that no request can ever carry the key of one credential and the token of another.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The fields to set on every request. All values are marked sensitive.
    pub headers: [(HeaderName, HeaderValue); 2],
    /// The token's lifetime, counted from its request, where the answer named one.
    pub expires_in: Option<Duration>,
    /// Whether the answer left out `token_type`.
    pub untyped: bool,
}
