//! The ways to authenticate to the vendor. A scheme says what the token call looks like and which header fields a request
//! carries; everything else about tokens is the same for all.

pub mod oauth2;
pub mod partner;

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Config, classify::IssuedToken};
use crate::{
    credentials::{Credentials, Scheme, sensitive},
    secret::Secret,
};

/// The vendor's header for the App Key, on the token call and on every other call.
pub const FINICITY_APP_KEY: HeaderName = HeaderName::from_static("finicity-app-key");

/// The vendor's header for a partner's token.
pub const FINICITY_APP_TOKEN: HeaderName = HeaderName::from_static("finicity-app-token");

/// What a successful token request grants: the header fields that authenticate a request, made once for each token. App Key
/// and token travel together, so that no request can ever carry the key of one credential and the token of another.
#[derive(Clone, Debug)]
pub struct AuthHeaders {
    /// The fields to set on every request: the App Key's, then the token's. All values are marked sensitive.
    pub headers: [(HeaderName, HeaderValue); 2],
    /// The token's lifetime, counted from its request, where the answer named one.
    pub expires_in: Option<Duration>,
    /// Whether the answer left out a `token_type` that the scheme requires.
    pub untyped: bool,
}

impl AuthHeaders {
    /// The token alone, which no output may ever show.
    pub fn token(&self) -> Secret<Vec<u8>> {
        let value = self.headers[1].1.as_bytes();
        Secret::new(value.strip_prefix(b"Bearer ").unwrap_or(value).to_vec())
    }
}

/// A POST to be made with credentials in it.
#[derive(Debug)]
pub struct TokenRequest {
    /// The path on the upstream's host.
    pub path: String,
    /// All header fields but those that the HTTP client sets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// The token request of `credentials`.
pub fn token_request(credentials: &Credentials, config: &Config) -> TokenRequest {
    let (mut headers, body) = match credentials.scheme {
        Scheme::OAuth2 => oauth2::token_request(credentials, config.encoding, config.scope.as_deref()),
        Scheme::Partner => (vec![JSON], partner::body(credentials)),
    };
    headers.push((config.app_key_header.clone(), credentials.app_key.header()));
    // The vendor has been seen to answer in XML to a caller that asks for nothing.
    headers.push((header::ACCEPT, HeaderValue::from_static("application/json")));
    headers.push(UNCOMPRESSED);
    TokenRequest { path: token_path(credentials.scheme, config).to_owned(), headers, body }
}

/// The path of the token endpoint: the configured one, or else that of the scheme.
pub fn token_path(scheme: Scheme, config: &Config) -> &str {
    config.token_path.as_deref().unwrap_or(match scheme {
        Scheme::OAuth2 => oauth2::TOKEN_PATH,
        Scheme::Partner => partner::TOKEN_PATH,
    })
}

/// The request that revokes `token` (RFC 7009), where the scheme has one and its path is configured.
pub fn revocation_request(credentials: &Credentials, config: &Config, token: &HeaderValue) -> Option<TokenRequest> {
    let path = config.revocation_path.clone().filter(|_| credentials.scheme == Scheme::OAuth2)?;
    let (mut headers, body) = oauth2::revocation_request(credentials, config.encoding, token)?;
    headers.push((config.app_key_header.clone(), credentials.app_key.header()));
    headers.push(UNCOMPRESSED);
    Some(TokenRequest { path, headers, body })
}

/// The member of a token answer that holds the token.
pub fn token_field(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::OAuth2 => "access_token",
        Scheme::Partner => "token",
    }
}

/// The header fields that a request carries once `issued` is there.
pub fn auth_headers(credentials: &Credentials, config: &Config, issued: &IssuedToken) -> AuthHeaders {
    let token = issued.token.expose().as_bytes();
    let (name, value) = match credentials.scheme {
        // RFC 6750, 2.1.
        Scheme::OAuth2 => (header::AUTHORIZATION, [b"Bearer ", token].concat()),
        Scheme::Partner => (config.token_header.clone(), token.to_vec()),
    };
    let value = sensitive(Zeroizing::new(value)).expect("a minted token is legal in a header");
    AuthHeaders {
        headers: [(config.app_key_header.clone(), credentials.app_key.header()), (name, value)],
        expires_in: issued.expires_in,
        untyped: issued.untyped && credentials.scheme == Scheme::OAuth2,
    }
}

/// `body` as JSON, in memory that is overwritten in the end. It has room for every byte of `texts`, the texts in it, to be escaped,
/// so that it is never moved, which would leave a copy behind.
fn json(body: &impl Serialize, texts: &[&str]) -> Zeroizing<Vec<u8>> {
    let capacity = texts.iter().map(|text| JSON_ESCAPED * text.len()).sum::<usize>() + NAMES_AND_PUNCTUATION;
    let mut json = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *json, body).expect("texts are always serialisable");
    json
}

/// What a byte becomes at most: `\u0000`.
const JSON_ESCAPED: usize = 6;

/// What a body has besides the texts in it.
const NAMES_AND_PUNCTUATION: usize = 256;

/// Without this field every content coding would be acceptable (RFC 9110, 12.5.3).
const UNCOMPRESSED: (HeaderName, HeaderValue) = (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

#[cfg(test)]
mod tests;
