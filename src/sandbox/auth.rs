//! The sandbox's accounts: who may have a token, which tokens are good, and when an account is locked.

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

/// So many failed authentications lock the account; only a restart of the sandbox unlocks it.
const FAILURES_TO_LOCK: u32 = 5;

/// Tokens and failures.
#[derive(Debug)]
pub struct Accounts {
    lifetime: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every token that was issued, with its end.
    tokens: HashMap<String, Instant>,
    token_calls: u64,
    failures: u32,
}

impl Accounts {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, state: Mutex::default() }
    }

    /// Authentications that were tried, well or badly.
    pub fn token_calls(&self) -> u64 {
        self.lock().token_calls
    }

    /// Whether the account is locked.
    pub fn is_locked(&self) -> bool {
        self.lock().failures >= FAILURES_TO_LOCK
    }

    /// Ends every token that was issued so far.
    pub fn expire_tokens(&self) {
        let now = Instant::now();
        self.lock().tokens.values_mut().for_each(|end| *end = now);
    }

    /// How the App Key was sent.
    pub(super) fn app_key(headers: &HeaderMap) -> Credential {
        match single(headers, &FINICITY_APP_KEY) {
            Ok(None) => Credential::Missing,
            Ok(Some(key)) if key == CREDENTIALS.app_key.as_bytes() => Credential::Right,
            _ => Credential::Wrong,
        }
    }

    /// How the token was sent: as a bearer token or in `Finicity-App-Token`, but not both.
    pub(super) fn token(&self, headers: &HeaderMap) -> Credential {
        let bearer = single(headers, &header::AUTHORIZATION);
        let token = match (bearer, single(headers, &FINICITY_APP_TOKEN)) {
            (Ok(None), Ok(None)) => return Credential::Missing,
            (Ok(Some(bearer)), Ok(None)) => bearer.strip_prefix(b"Bearer "),
            (Ok(None), Ok(Some(token))) => Some(token),
            _ => None,
        };
        let end = token.and_then(|t| std::str::from_utf8(t).ok()).and_then(|t| self.lock().tokens.get(t).copied());
        match end {
            None => Credential::Wrong,
            Some(end) if end <= Instant::now() => Credential::Expired,
            Some(_) => Credential::Right,
        }
    }

    /// `POST /oauth/token` with `body`, the App Key being right.
    pub(super) fn oauth(&self, body: &[u8]) -> Response {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Call {
            client_id: String,
            client_secret: String,
            grant_type: String,
            #[serde(default, rename = "scope")]
            _scope: String,
        }

        let refuse = |status, error: &str| (status, Json(json!({ "error": error }))).into_response();
        let Ok(call) = serde_json::from_slice::<Call>(body) else {
            return refuse(StatusCode::BAD_REQUEST, "invalid_request");
        };
        if call.grant_type != "client_credentials" {
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type");
        }
        match self.authenticate(&call.client_id, &call.client_secret) {
            Ok(token) => Json(json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self.lifetime.as_secs(),
            }))
            .into_response(),
            Err(Refusal::Locked) => locked(),
            Err(_) => refuse(StatusCode::UNAUTHORIZED, "invalid_client"),
        }
    }

    /// `POST /aggregation/v2/partners/authentication` with `body`, the App Key being right.
    pub(super) fn partner(&self, body: &[u8]) -> Response {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Call {
            partner_id: String,
            partner_secret: String,
        }

        let Ok(call) = serde_json::from_slice::<Call>(body) else {
            return error(StatusCode::BAD_REQUEST, "10005", "Missing or malformed parameter");
        };
        match self.authenticate(&call.partner_id, &call.partner_secret) {
            Ok(token) => Json(json!({ "token": token })).into_response(),
            Err(Refusal::Locked) => locked(),
            Err(Refusal::UnknownId) => error(StatusCode::NOT_FOUND, "12401", "Partner not found"),
            Err(Refusal::WrongSecret) => error(StatusCode::UNAUTHORIZED, "10001", "Invalid credentials"),
        }
    }

    fn authenticate(&self, id: &str, secret: &str) -> Result<String, Refusal> {
        let mut state = self.lock();
        state.token_calls += 1;
        if state.failures >= FAILURES_TO_LOCK {
            return Err(Refusal::Locked);
        }
        if id != CREDENTIALS.client_id || secret != CREDENTIALS.client_secret {
            state.failures += 1;
            return Err(if id == CREDENTIALS.client_id { Refusal::WrongSecret } else { Refusal::UnknownId });
        }
        let token = format!("sandbox{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        state.tokens.insert(token.clone(), Instant::now() + self.lifetime);
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Refusal {
    UnknownId,
    WrongSecret,
    Locked,
}

/// The vendor reports a locked account as a server error.
fn locked() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "24302", "The account is locked")
}

/// An error in the vendor's usual shape.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body: Value = json!({ "code": code, "message": message });
    (status, Json(body)).into_response()
}

/// The one value of the field `name`; `None` when it is missing, an error when it occurs twice.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(()),
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
    }
}
