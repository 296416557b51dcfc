//! The endpoints that are the proxy's own to call, where tokens are granted and revoked, and the one that it offers itself.
//!
//! A caller that reached one could have a token made or taken away, or change the secret, and could lock the account by
//! guessing. So a path that names one in any spelling is never forwarded.

use crate::{
    message::path::{Ambiguous, canonical, is_already_canonical, may_be_read_as},
    token::scheme::{oauth2, partner},
};

/// What a path that callers must not reach is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthEndpoint {
    /// It grants tokens, and answers in this shape.
    Token(ResponseShape),
    /// It revokes tokens (`auth.revocation_path`).
    Revocation,
    /// It verifies webhooks, and is the proxy's own.
    WebhookVerification,
}

/// Where callers have a webhook verified. The vendor has no such path.
const WEBHOOK_VERIFICATION_PATH: &str = "/finicity-proxy/webhooks/verify";

/// How a token call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseShape {
    /// As OAuth 2.0 has it.
    OAuth2,
    /// As the vendor's partner authentication has it.
    Partner,
    /// As the scheme in use has it: that of `auth.token_path`.
    Configured,
}

/// The endpoints, each by the canonical form of its path.
#[derive(Clone, Debug)]
pub struct AuthEndpoints(Vec<(String, AuthEndpoint)>);

impl AuthEndpoints {
    /// Both schemes' own endpoints, used or not, and those that are configured.
    ///
    /// # Panics
    ///
    /// When a configured path has no canonical form, which the configuration refuses.
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

    /// The endpoint that `path` names, in whatever spelling.
    ///
    /// # Errors
    ///
    /// When it cannot be told what the path names.
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
