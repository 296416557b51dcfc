//! OAuth 2.0 client credentials (RFC 6749, 4.4) with the vendor's App Key beside them.
//!
//! The credentials go in a JSON body, as this product's specification has it; the RFC's own form is
//! `application/x-www-form-urlencoded`.

use http::{HeaderValue, header};
use serde::Serialize;

use super::{FINICITY_APP_KEY, Grant};
use crate::{credentials::Credentials, secret::Secret, token::classify::Minted};

/// The member of the answer that holds the token.
pub const TOKEN_FIELD: &str = "access_token";

/// The path of the token endpoint where none is configured.
pub const TOKEN_PATH: &str = "/oauth/token";

#[derive(Serialize)]
struct Body<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    grant_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

/// The JSON body of the token call.
pub fn body(credentials: &Credentials, scope: Option<&str>) -> Secret<Vec<u8>> {
    let body = Body {
        client_id: credentials.client_id.expose(),
        client_secret: credentials.client_secret.expose(),
        grant_type: "client_credentials",
        scope,
    };
    Secret::new(serde_json::to_vec(&body).expect("strings are always serialisable"))
}

/// The header fields that a request carries: `Finicity-App-Key`, and `Authorization: Bearer` (RFC 6750, 2.1).
pub fn grant(credentials: &Credentials, minted: Minted) -> Grant {
    let bearer = Secret::new(format!("Bearer {}", minted.token.expose()));
    let mut bearer = HeaderValue::from_str(bearer.expose()).expect("a minted token is legal in a header");
    bearer.set_sensitive(true);
    Grant {
        headers: [(FINICITY_APP_KEY, credentials.app_key.header()), (header::AUTHORIZATION, bearer)],
        expires_in: minted.expires_in,
        untyped: minted.untyped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::AppKey;

    fn credentials() -> Credentials {
        Credentials {
            client_id: "id".into(),
            client_secret: Secret::from("s\"3\\cret\u{e9}"),
            app_key: AppKey::new("key".into()).unwrap(),
        }
    }

    #[test]
    fn the_body_is_the_specified_json() {
        let expected = r#"{"client_id":"id","client_secret":"s\"3\\creté","grant_type":"client_credentials"}"#;
        assert_eq!(body(&credentials(), None).expose(), expected.as_bytes());
        let scoped = body(&credentials(), Some("accounts transactions"));
        assert!(String::from_utf8_lossy(scoped.expose()).ends_with(r#","scope":"accounts transactions"}"#));
    }

    #[test]
    fn d07_the_granted_headers_are_sensitive() {
        let minted = Minted { token: "tok".into(), expires_in: None, untyped: false };
        let grant = grant(&credentials(), minted);
        let fields: Vec<_> =
            grant.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("finicity-app-key", "key"), ("authorization", "Bearer tok")]);
        assert!(grant.headers.iter().all(|(_, value)| value.is_sensitive()));
        assert!(!format!("{grant:?}").contains("tok\""));
    }
}
