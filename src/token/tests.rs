//! Helpers shared by the tests of this module.

use super::*;
use crate::credentials::{AppKey, Credentials, Scheme};

pub(super) fn config() -> Config {
    Config {
        base: "https://localhost:1".parse().unwrap(),
        egress: None,
        token_path: None,
        revocation_path: None,
        encoding: scheme::oauth2::Encoding::Json,
        scope: None,
        app_key_header: scheme::FINICITY_APP_KEY,
        token_header: scheme::FINICITY_APP_TOKEN,
        default_lifetime: Duration::from_secs(7200),
        startup_jitter: Duration::ZERO,
        token_wait: Duration::from_secs(2),
    }
}

pub(super) fn credentials(scheme: Scheme, id: &str, secret: &str) -> Credentials {
    Credentials { scheme, id: id.into(), secret: secret.into(), app_key: AppKey::new("key".into()).unwrap() }
}
