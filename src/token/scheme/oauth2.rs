//! OAuth 2.0 client credentials (RFC 6749, 4.4), plus the vendor's App Key.
//!
//! This product's specification puts the credentials in a JSON body; the RFC puts them in a form body or in `Authorization:
//! Basic`. All three are configurable, because the vendor's choice could not be confirmed.

use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{JSON, NAMES_AND_PUNCTUATION, json};
use crate::credentials::{Credentials, basic};

/// The default path of the token endpoint.
pub const TOKEN_PATH: &str = "/oauth/token";

const FORM: (HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));

/// Where a token request carries the credentials (`auth.encoding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON body.
    Json,
    /// A form body (RFC 6749, 2.3.1).
    Form,
    /// `Authorization: Basic` (RFC 6749, 2.3.1); the other parameters are in a form body.
    Basic,
}

/// Header fields and body of a request.
type RequestParts = (Vec<(HeaderName, HeaderValue)>, Zeroizing<Vec<u8>>);

/// The token request.
pub fn token_request(credentials: &Credentials, encoding: Encoding, scope: Option<&str>) -> RequestParts {
    #[derive(Serialize)]
    struct Body<'a> {
        client_id: &'a str,
        client_secret: &'a str,
        grant_type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<&'a str>,
    }

    let grant_type = "client_credentials";
    if encoding == Encoding::Json {
        let (client_id, client_secret) = (credentials.id.expose(), credentials.secret.expose());
        let body = Body { client_id, client_secret, grant_type, scope };
        return (vec![JSON], json(&body, &[client_id, client_secret, scope.unwrap_or_default()]));
    }
    let mut fields = vec![("grant_type", grant_type)];
    fields.extend(scope.map(|scope| ("scope", scope)));
    form(credentials, encoding, fields)
}

/// The revocation request (RFC 7009, 2.1) for the token in `bearer`, a value of `Authorization`. The RFC defines no JSON body for
/// it, so the body is a form for every [`Encoding`].
pub fn revocation_request(credentials: &Credentials, encoding: Encoding, bearer: &HeaderValue) -> Option<RequestParts> {
    let token = bearer.to_str().ok()?.strip_prefix("Bearer ")?;
    Some(form(credentials, encoding, vec![("token", token), ("token_type_hint", "access_token")]))
}

fn form<'a>(credentials: &'a Credentials, encoding: Encoding, mut fields: Vec<(&'a str, &'a str)>) -> RequestParts {
    let mut headers = vec![FORM];
    let (id, secret) = (credentials.id.expose().as_str(), credentials.secret.expose().as_str());
    if encoding == Encoding::Basic {
        headers.push((header::AUTHORIZATION, basic(&form_encoded(id), &form_encoded(secret))));
    } else {
        fields.extend([("client_id", id), ("client_secret", secret)]);
    }
    // As for JSON, the buffer must not be reallocated.
    let capacity = fields.iter().map(|(_, value)| URL_ENCODED * value.len()).sum::<usize>() + NAMES_AND_PUNCTUATION;
    let body = form_urlencoded::Serializer::new(String::with_capacity(capacity)).extend_pairs(fields).finish();
    (headers, Zeroizing::new(body.into_bytes()))
}

/// The longest encoding of one byte: `%00`.
const URL_ENCODED: usize = 3;

/// RFC 6749, 2.3.1: id and secret are form-encoded before they are joined, so neither contains a colon.
fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(URL_ENCODED * text.len()));
    encoded.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    encoded
}
