//! The schemes of authentication to the vendor. A scheme defines the token request and the header fields that authenticate a
//! request; everything else about tokens is the same for all schemes.

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

/// The vendor's header for the App Key, on token requests and on all others.
pub const FINICITY_APP_KEY: HeaderName = HeaderName::from_static("finicity-app-key");

/// The vendor's header for a partner's token.
pub const FINICITY_APP_TOKEN: HeaderName = HeaderName::from_static("finicity-app-token");

/// The result of a successful token request: the header fields that authenticate requests, built once per token. App Key
/// and token are one value, so no request can carry the key of one credential and the token of another.
#[derive(Clone, Debug)]
pub struct AuthHeaders {
    /// The fields to set on every request: the App Key, then the token. All values are marked sensitive.
    pub headers: [(HeaderName, HeaderValue); 2],
    /// The token's lifetime, counted from its request, if the response has one.
    pub expires_in: Option<Duration>,
    /// Whether the response lacks a `token_type` that the scheme requires.
    pub untyped: bool,
}

impl AuthHeaders {
    /// The token without its `Bearer` prefix, for the scrubber.
    pub fn token(&self) -> Secret<Vec<u8>> {
        let value = self.headers[1].1.as_bytes();
        Secret::new(value.strip_prefix(b"Bearer ").unwrap_or(value).to_vec())
    }
}

/// A POST request that carries credentials.
#[derive(Debug)]
pub struct TokenRequest {
    /// The path on the upstream's host.
    pub path: String,
    /// All header fields except those that the HTTP client sets.
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
    // Without `Accept`, the vendor has been observed to respond with XML.
    headers.push((header::ACCEPT, HeaderValue::from_static("application/json")));
    headers.push(UNCOMPRESSED);
    TokenRequest { path: token_path(credentials.scheme, config).to_owned(), headers, body }
}

/// The path of the token endpoint: the configured one, or the scheme's default.
pub fn token_path(scheme: Scheme, config: &Config) -> &str {
    config.token_path.as_deref().unwrap_or(match scheme {
        Scheme::OAuth2 => oauth2::TOKEN_PATH,
        Scheme::Partner => partner::TOKEN_PATH,
    })
}

/// The request that revokes `token` (RFC 7009); `None` unless the scheme is OAuth 2.0 and a revocation path is configured.
pub fn revocation_request(credentials: &Credentials, config: &Config, token: &HeaderValue) -> Option<TokenRequest> {
    let path = config.revocation_path.clone().filter(|_| credentials.scheme == Scheme::OAuth2)?;
    let (mut headers, body) = oauth2::revocation_request(credentials, config.encoding, token)?;
    headers.push((config.app_key_header.clone(), credentials.app_key.header()));
    headers.push(UNCOMPRESSED);
    Some(TokenRequest { path, headers, body })
}

/// The member of a token response that holds the token.
pub fn token_field(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::OAuth2 => "access_token",
        Scheme::Partner => "token",
    }
}

/// The header fields that authenticate requests with `issued`.
pub fn auth_headers(credentials: &Credentials, config: &Config, issued: &IssuedToken) -> AuthHeaders {
    let token = issued.token.expose().as_bytes();
    let (name, value) = match credentials.scheme {
        // RFC 6750, 2.1.
        Scheme::OAuth2 => (header::AUTHORIZATION, [b"Bearer ", token].concat()),
        Scheme::Partner => (config.token_header.clone(), token.to_vec()),
    };
    let value = sensitive(Zeroizing::new(value)).expect("an issued token is valid in a header field");
    AuthHeaders {
        headers: [(config.app_key_header.clone(), credentials.app_key.header()), (name, value)],
        expires_in: issued.expires_in,
        untyped: issued.untyped && credentials.scheme == Scheme::OAuth2,
    }
}

/// `body` as JSON, in memory that is overwritten on drop. The capacity suffices even if every byte of `texts`, the strings in
/// `body`, is escaped: a reallocation would leave a copy of the secret in freed memory.
fn json(body: &impl Serialize, texts: &[&str]) -> Zeroizing<Vec<u8>> {
    let capacity = texts.iter().map(|text| JSON_ESCAPED * text.len()).sum::<usize>() + NAMES_AND_PUNCTUATION;
    let mut json = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *json, body).expect("texts are always serialisable");
    json
}

/// The longest escape of one byte: `\u0000`.
const JSON_ESCAPED: usize = 6;

/// Room for member names and punctuation, in addition to the values.
const NAMES_AND_PUNCTUATION: usize = 256;

/// Without this field, any content coding would be acceptable (RFC 9110, 12.5.3).
const UNCOMPRESSED: (HeaderName, HeaderValue) = (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

#[cfg(test)]
mod tests;
