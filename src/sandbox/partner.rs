//! The partner of a seed: secret, tokens, and lock-out.

use std::time::Duration;

use serde_json::{Map, Value};

use super::value::json;
use super::{credentials::CREDENTIALS, dates::DAY, recorder::Credential, reply::Failure};

/// The number of failed authentications that locks the partner, until `POST /sandbox/reset`, `PUT /sandbox/partner` or a restart.
const MAX_FAILURES: u32 = 5;

/// How long the previous secret is accepted after a rotation, unless it is immediate.
const GRACE_MS: i64 = 30 * DAY * 1000;

/// Separates the client identifier from the name of a seed.
pub(super) const SEED_SEPARATOR: char = '.';

/// Credentials and tokens of one partner.
#[derive(Debug)]
pub(super) struct Partner {
    id: String,
    lifetime: Duration,
    secret: String,
    /// The secret before the last rotation, and its expiry in milliseconds since the epoch.
    previous: Option<(String, i64)>,
    /// All issued tokens, each with its expiry in milliseconds since the epoch.
    tokens: Map<String, Value>,
    token_requests: u64,
    failures: u32,
}

impl Partner {
    pub(super) fn new(seed: &str, lifetime: Duration) -> Self {
        let id = match seed {
            "" => CREDENTIALS.client_id.to_owned(),
            _ => format!("{}{SEED_SEPARATOR}{seed}", CREDENTIALS.client_id),
        };
        Self {
            id,
            lifetime,
            secret: CREDENTIALS.client_secret.to_owned(),
            previous: None,
            tokens: Map::new(),
            token_requests: 0,
            failures: 0,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The current secret, which is also the key of webhook signatures.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether this partner issued `token`, expired or not.
    pub(super) fn issued(&self, token: &str) -> bool {
        self.tokens.contains_key(token)
    }

    /// Whether `token` was issued, and has not expired at `now_ms`.
    pub(super) fn check_token(&self, token: &str, now_ms: i64) -> Credential {
        match self.tokens.get(token).and_then(Value::as_i64) {
            None => Credential::Wrong,
            Some(expires_at) if expires_at <= now_ms => Credential::Expired,
            Some(_) => Credential::Valid,
        }
    }

    /// The status, as the control API returns it.
    pub(super) fn status(&self) -> Value {
        json!({
            "clientId": self.id, "locked": self.failures >= MAX_FAILURES, "failures": self.failures,
            "tokenRequests": self.token_requests, "tokens": self.tokens.len(), "tokenLifetimeSeconds": self.lifetime.as_secs_f64(),
        })
    }

    /// Expires all issued tokens.
    pub(super) fn expire_tokens(&mut self) {
        self.tokens.values_mut().for_each(|expires_at| *expires_at = json!(i64::MIN));
    }

    /// Sets the lifetime of tokens that are issued from now on.
    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Locks or unlocks the partner.
    pub(super) fn set_locked(&mut self, locked: bool) {
        self.failures = if locked { MAX_FAILURES } else { 0 };
    }

    /// Checks `id` and `secret`, and counts failures.
    ///
    /// # Errors
    ///
    /// Invalid credentials, or the partner is locked after [`MAX_FAILURES`].
    pub(super) fn authenticate(&mut self, id: &str, secret: &str, now_ms: i64) -> Result<(), Failure> {
        self.token_requests += 1;
        if self.failures >= MAX_FAILURES {
            return Err(Failure::new(500, "24302", "The account is locked"));
        }
        let is_previous = self.previous.as_ref().is_some_and(|(previous, until)| previous == secret && now_ms < *until);
        if id == self.id && (secret == self.secret || is_previous) {
            return Ok(());
        }
        self.failures += 1;
        if id == self.id {
            Err(Failure::new(401, "10001", "Invalid credentials"))
        } else {
            Err(Failure::new(404, "12401", "Partner not found"))
        }
    }

    /// Issues a token.
    pub(super) fn issue(&mut self, now_ms: i64) -> String {
        let token = format!("sandbox{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let lifetime = i64::try_from(self.lifetime.as_millis()).unwrap_or(i64::MAX);
        self.tokens.insert(token.clone(), json!(now_ms.saturating_add(lifetime)));
        token
    }

    /// Replaces the secret with `new` at `now_ms`. The old one is accepted for 30 days unless `immediate` is set.
    ///
    /// # Errors
    ///
    /// When `new` does not meet the policy or equals the current secret.
    pub(super) fn rotate(&mut self, new: &str, immediate: bool, now_ms: i64) -> Result<(), Failure> {
        if !is_permitted_secret(new) || new == self.secret {
            return Err(Failure::new(400, "24437", "The new secret does not meet the policy"));
        }
        let old = std::mem::replace(&mut self.secret, new.to_owned());
        self.previous = (!immediate).then_some((old, now_ms + GRACE_MS));
        Ok(())
    }

    /// Lifetime of new tokens.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

/// The vendor's policy: 12 to 255 letters, digits and characters of `!@#$%&*_-+`, with at least one of each kind.
fn is_permitted_secret(secret: &str) -> bool {
    let is_special = |byte: u8| b"!@#$%&*_-+".contains(&byte);
    let has = |kind: fn(&u8) -> bool| secret.bytes().any(|byte| kind(&byte));
    (12..=255).contains(&secret.len())
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_special(byte))
        && has(u8::is_ascii_alphabetic)
        && has(u8::is_ascii_digit)
        && secret.bytes().any(is_special)
}
