//! The endpoints that are the proxy's own to call: where tokens are granted and revoked.
//!
//! A caller that reached one could have a token made or taken away, or change the secret, and could lock the account by
//! guessing. So a path that names one in any spelling is never forwarded.

use crate::{
    message::path::{Ambiguous, canonical, is_already_canonical, may_be_read_as},
    token::scheme::{oauth2, partner},
};

/// What a path that callers must not reach is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// It grants tokens, and answers in this shape.
    Token(Shape),
    /// It revokes tokens (`auth.revocation_path`).
    Revocation,
}

/// How a token call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As OAuth 2.0 has it.
    OAuth2,
    /// As the vendor's partner authentication has it.
    Partner,
    /// As the scheme in use has it: that of `auth.token_path`.
    Configured,
}

/// The endpoints, each by the canonical form of its path.
#[derive(Clone, Debug)]
pub struct Endpoints(Vec<(String, Endpoint)>);

impl Endpoints {
    /// Both schemes' own endpoints, used or not, and those that are configured.
    ///
    /// # Panics
    ///
    /// When a configured path has no canonical form, which the configuration refuses.
    pub fn new(token_path: Option<&str>, revocation_path: Option<&str>) -> Self {
        let paths = [
            (Some(oauth2::TOKEN_PATH), Endpoint::Token(Shape::OAuth2)),
            (Some(partner::TOKEN_PATH), Endpoint::Token(Shape::Partner)),
            (token_path, Endpoint::Token(Shape::Configured)),
            (revocation_path, Endpoint::Revocation),
        ];
        let form = |path| canonical(path).expect("the paths of endpoints have a canonical form");
        Self(paths.into_iter().filter_map(|(path, endpoint)| Some((form(path?), endpoint))).collect())
    }

    /// The endpoint that `path` names, in whatever spelling.
    ///
    /// # Errors
    ///
    /// When it cannot be told what the path names.
    pub(super) fn find(&self, path: &str) -> Result<Option<Endpoint>, Ambiguous> {
        if is_already_canonical(path) {
            return Ok(self.find_form(|own| own.eq_ignore_ascii_case(path)));
        }
        let form = canonical(path)?;
        Ok(self.find_form(|own| may_be_read_as(&form, own)))
    }

    fn find_form(&self, is_it: impl Fn(&str) -> bool) -> Option<Endpoint> {
        self.0.iter().find(|(own, _)| is_it(own)).map(|(_, endpoint)| *endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OAUTH2: Option<Endpoint> = Some(Endpoint::Token(Shape::OAuth2));
    const PARTNER: Option<Endpoint> = Some(Endpoint::Token(Shape::Partner));
    const CONFIGURED: Option<Endpoint> = Some(Endpoint::Token(Shape::Configured));

    #[test]
    fn c16_every_endpoint_is_found_in_any_spelling() {
        let endpoints = Endpoints::new(Some("/Custom/Grant.v1/"), Some("/oauth/revoke"));
        for (path, expected) in [
            ("/oauth/token", OAUTH2),
            ("/OAuth/TOKEN", OAUTH2),
            ("/oauth//token", OAUTH2),
            ("/oauth/to\u{212a}en", OAUTH2),
            ("/aggregation/v2/partners/authentication", PARTNER),
            ("/aggregation/v2/partners%2Fauthentication", PARTNER),
            ("/custom/grant", CONFIGURED),
            ("/Custom/Grant.v1/", CONFIGURED),
            ("/oauth/%72evoke", Some(Endpoint::Revocation)),
            ("/oauth/token/x", None),
            ("/oauth/tokens", None),
            ("/oauth", None),
            ("/x/oauth/token", None),
            ("/aggregation/v1/partners/authentication", None),
            ("/", None),
        ] {
            assert_eq!(endpoints.find(path), Ok(expected), "{path}");
        }
        assert_eq!(Endpoints::new(None, None).find("/oauth/revoke"), Ok(None));
        assert_eq!(endpoints.find("/oauth/../x"), Err(Ambiguous::Dots));
    }
}
