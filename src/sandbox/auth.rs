//! The account of the sandbox: who gets a token, which tokens are valid, and when the account is locked.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{CREDENTIALS, Credential, recorder::FINICITY_APP_TOKEN};
use crate::token::scheme::FINICITY_APP_KEY;

/// The number of failed authentications that locks the account. Only a restart of the sandbox unlocks it.
const MAX_FAILURES: u32 = 5;

/// Tokens and failures.
#[derive(Debug)]
pub struct Accounts {
    lifetime: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every token that was issued, with its expiry.
    tokens: HashMap<String, Instant>,
    token_requests: u64,
    failures: u32,
}

impl Accounts {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, state: Mutex::default() }
    }

    /// Token requests that reached the check of the secret, successful or not.
    pub fn token_requests(&self) -> u64 {
        self.lock().token_requests
    }

    /// Whether the account is locked.
    pub fn is_locked(&self) -> bool {
        self.lock().failures >= MAX_FAILURES
    }

    /// Expires every token that was issued so far.
    pub fn expire_tokens(&self) {
        let now = Instant::now();
        self.lock().tokens.values_mut().for_each(|expires_at| *expires_at = now);
    }

    /// How the App Key was sent.
    pub(super) fn check_app_key(headers: &HeaderMap) -> Credential {
        match single_value(headers, &FINICITY_APP_KEY) {
            Ok(None) => Credential::Missing,
            Ok(Some(key)) if key == CREDENTIALS.app_key.as_bytes() => Credential::Valid,
            _ => Credential::Wrong,
        }
    }

    /// How the token was sent: as a bearer token or in `Finicity-App-Token`, but not both.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Credential {
        let bearer = single_value(headers, &header::AUTHORIZATION);
        let token = match (bearer, single_value(headers, &FINICITY_APP_TOKEN)) {
            (Ok(None), Ok(None)) => return Credential::Missing,
            (Ok(Some(bearer)), Ok(None)) => bearer.strip_prefix(b"Bearer "),
            (Ok(None), Ok(Some(token))) => Some(token),
            _ => None,
        };
        let expires_at =
            token.and_then(|t| std::str::from_utf8(t).ok()).and_then(|t| self.lock().tokens.get(t).copied());
        match expires_at {
            None => Credential::Wrong,
            Some(expires_at) if expires_at <= Instant::now() => Credential::Expired,
            Some(_) => Credential::Valid,
        }
    }

    /// `POST /oauth/token` with `body`, with a valid App Key.
    pub(super) fn issue_oauth_token(&self, body: &[u8]) -> Response {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct OAuthRequest {
            client_id: String,
            client_secret: String,
            grant_type: String,
            #[serde(default, rename = "scope")]
            _scope: String,
        }

        let reject = |status, error: &str| (status, Json(json!({ "error": error }))).into_response();
        let Ok(request) = serde_json::from_slice::<OAuthRequest>(body) else {
            return reject(StatusCode::BAD_REQUEST, "invalid_request");
        };
        if request.grant_type != "client_credentials" {
            return reject(StatusCode::BAD_REQUEST, "unsupported_grant_type");
        }
        match self.authenticate(&request.client_id, &request.client_secret) {
            Ok(token) => Json(json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self.lifetime.as_secs(),
            }))
            .into_response(),
            Err(AuthError::Locked) => locked(),
            Err(_) => reject(StatusCode::UNAUTHORIZED, "invalid_client"),
        }
    }

    /// `POST /aggregation/v2/partners/authentication` with `body`, with a valid App Key.
    pub(super) fn issue_partner_token(&self, body: &[u8]) -> Response {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct PartnerRequest {
            partner_id: String,
            partner_secret: String,
        }

        let Ok(request) = serde_json::from_slice::<PartnerRequest>(body) else {
            return error_response(StatusCode::BAD_REQUEST, "10005", "Missing or malformed parameter");
        };
        match self.authenticate(&request.partner_id, &request.partner_secret) {
            Ok(token) => Json(json!({ "token": token })).into_response(),
            Err(AuthError::Locked) => locked(),
            Err(AuthError::UnknownId) => error_response(StatusCode::NOT_FOUND, "12401", "Partner not found"),
            Err(AuthError::WrongSecret) => error_response(StatusCode::UNAUTHORIZED, "10001", "Invalid credentials"),
        }
    }

    fn authenticate(&self, id: &str, secret: &str) -> Result<String, AuthError> {
        let mut state = self.lock();
        state.token_requests += 1;
        if state.failures >= MAX_FAILURES {
            return Err(AuthError::Locked);
        }
        if id != CREDENTIALS.client_id || secret != CREDENTIALS.client_secret {
            state.failures += 1;
            return Err(if id == CREDENTIALS.client_id { AuthError::WrongSecret } else { AuthError::UnknownId });
        }
        let token = format!("sandbox{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        state.tokens.insert(token.clone(), Instant::now() + self.lifetime);
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum AuthError {
    UnknownId,
    WrongSecret,
    Locked,
}

/// The vendor reports a locked account as a server error.
fn locked() -> Response {
    error_response(StatusCode::INTERNAL_SERVER_ERROR, "24302", "The account is locked")
}

/// An error in the vendor's usual shape.
pub(super) fn error_response(status: StatusCode, code: &str, message: &str) -> Response {
    let body: Value = json!({ "code": code, "message": message });
    (status, Json(body)).into_response()
}

/// The one value of the field `name`; `None` when it is missing, an error when it occurs twice.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(()),
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
    }
}
