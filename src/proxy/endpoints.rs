//! The endpoints that only the proxy calls, which grant and revoke tokens, and the one that it provides itself.
//!
//! A caller that reached one could obtain or revoke a token, change the secret, or lock the account with wrong credentials. So a path that
//! names one in any spelling is never forwarded.

use crate::{
    message::path::{Ambiguous, canonical, is_already_canonical, may_be_read_as},
    token::scheme::{oauth2, partner},
};

/// The purpose of a path that is never forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthEndpoint {
    /// Grants tokens, with a response of this shape.
    Token(ResponseShape),
    /// Revokes tokens (`auth.revocation_path`).
    Revocation,
    /// Verifies webhooks; provided by the proxy.
    WebhookVerification,
}

/// The path at which the proxy verifies webhooks. The vendor has no such path.
const WEBHOOK_VERIFICATION_PATH: &str = "/finicity-proxy/webhooks/verify";

/// The shape of a response to a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseShape {
    /// OAuth 2.0.
    OAuth2,
    /// The vendor's partner authentication.
    Partner,
    /// The scheme in use, for `auth.token_path`.
    Configured,
}

/// The endpoints, each with the canonical form of its path.
#[derive(Clone, Debug)]
pub struct AuthEndpoints(Vec<(String, AuthEndpoint)>);

impl AuthEndpoints {
    /// The standard endpoints of both schemes, used or not, and the configured ones.
    ///
    /// # Panics
    ///
    /// If a configured path has no canonical form, which the configuration rejects.
    pub fn new(token_path: Option<&str>, revocation_path: Option<&str>) -> Self {
        let paths = [
            (Some(oauth2::TOKEN_PATH), AuthEndpoint::Token(ResponseShape::OAuth2)),
            (Some(partner::TOKEN_PATH), AuthEndpoint::Token(ResponseShape::Partner)),
            (token_path, AuthEndpoint::Token(ResponseShape::Configured)),
            (revocation_path, AuthEndpoint::Revocation),
            (Some(WEBHOOK_VERIFICATION_PATH), AuthEndpoint::WebhookVerification),
        ];
        let form = |path| canonical(path).expect("the paths of endpoints have a canonical form");
        Self(paths.into_iter().filter_map(|(path, endpoint)| Some((form(path?), endpoint))).collect())
    }

    /// The endpoint that `path` names, in any spelling.
    ///
    /// # Errors
    ///
    /// If the path is ambiguous.
    pub(super) fn find(&self, path: &str) -> Result<Option<AuthEndpoint>, Ambiguous> {
        if is_already_canonical(path) {
            return Ok(self.find_by(|endpoint_path| endpoint_path.eq_ignore_ascii_case(path)));
        }
        let form = canonical(path)?;
        Ok(self.find_by(|endpoint_path| may_be_read_as(&form, endpoint_path)))
    }

    fn find_by(&self, names_it: impl Fn(&str) -> bool) -> Option<AuthEndpoint> {
        self.0.iter().find(|(endpoint_path, _)| names_it(endpoint_path)).map(|(_, endpoint)| *endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OAUTH2: Option<AuthEndpoint> = Some(AuthEndpoint::Token(ResponseShape::OAuth2));
    const PARTNER: Option<AuthEndpoint> = Some(AuthEndpoint::Token(ResponseShape::Partner));
    const CONFIGURED: Option<AuthEndpoint> = Some(AuthEndpoint::Token(ResponseShape::Configured));

    #[test]
    fn c16_every_endpoint_is_found_in_any_spelling() {
        let endpoints = AuthEndpoints::new(Some("/Custom/Grant.v1/"), Some("/oauth/revoke"));
        for (path, expected) in [
            ("/oauth/token", OAUTH2),
            ("/OAuth/TOKEN", OAUTH2),
            ("/oauth//token", OAUTH2),
            ("/oauth/to\u{212a}en", OAUTH2),
            ("/aggregation/v2/partners/authentication", PARTNER),
            ("/aggregation/v2/partners%2Fauthentication", PARTNER),
            ("/custom/grant", CONFIGURED),
            ("/Custom/Grant.v1/", CONFIGURED),
            ("/oauth/%72evoke", Some(AuthEndpoint::Revocation)),
            ("/finicity-proxy/webhooks/verify", Some(AuthEndpoint::WebhookVerification)),
            ("/Finicity-Proxy//webhooks/%76erify/", Some(AuthEndpoint::WebhookVerification)),
            ("/finicity-proxy/webhooks", None),
            ("/oauth/token/x", None),
            ("/oauth/tokens", None),
            ("/oauth", None),
            ("/x/oauth/token", None),
            ("/aggregation/v1/partners/authentication", None),
            ("/", None),
        ] {
            assert_eq!(endpoints.find(path), Ok(expected), "{path}");
        }
        assert_eq!(AuthEndpoints::new(None, None).find("/oauth/revoke"), Ok(None));
        assert_eq!(endpoints.find("/oauth/../x"), Err(Ambiguous::Dots));
    }
}
