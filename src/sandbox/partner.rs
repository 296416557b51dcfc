//! The partner of a seed: its secret, its tokens, and whether it is locked.

use std::time::Duration;

use serde_json::{Map, Value};

use super::value::json;
use super::{credentials::CREDENTIALS, dates::DAY, recorder::Credential, reply::Failure};

/// The number of failed authentications that locks the partner. Only `POST /sandbox/reset` and a restart unlock it.
const MAX_FAILURES: u32 = 5;

/// How long the previous secret is accepted after a rotation that is not immediate.
const GRACE_MS: i64 = 30 * DAY * 1000;

/// What separates the client identifier from the name of a seed.
pub(super) const SEED_SEPARATOR: char = '.';

/// Credentials and tokens of one partner.
#[derive(Debug)]
pub(super) struct Partner {
    id: String,
    lifetime: Duration,
    secret: String,
    /// The secret before the last rotation, and until when it is accepted, in milliseconds since the epoch.
    previous: Option<(String, i64)>,
    /// Every token that was issued, with its expiry in milliseconds since the epoch.
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

    /// Whether `token` is valid at `now_ms`.
    pub(super) fn check_token(&self, token: &str, now_ms: i64) -> Credential {
        match self.tokens.get(token).and_then(Value::as_i64) {
            None => Credential::Wrong,
            Some(expires_at) if expires_at <= now_ms => Credential::Expired,
            Some(_) => Credential::Valid,
        }
    }

    /// What the control API shows.
    pub(super) fn status(&self) -> Value {
        json!({
            "clientId": self.id, "locked": self.failures >= MAX_FAILURES, "failures": self.failures,
            "tokenRequests": self.token_requests, "tokens": self.tokens.len(), "tokenLifetimeSeconds": self.lifetime.as_secs_f64(),
        })
    }

    /// Ends every token that was issued so far.
    pub(super) fn expire_tokens(&mut self) {
        self.tokens.values_mut().for_each(|expires_at| *expires_at = json!(i64::MIN));
    }

    /// Changes the lifetime of tokens that are issued from now on.
    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Locks or unlocks the partner.
    pub(super) fn set_locked(&mut self, locked: bool) {
        self.failures = if locked { MAX_FAILURES } else { 0 };
    }

    /// Checks `id` and `secret`, and counts a failure.
    ///
    /// # Errors
    ///
    /// As the vendor reports it; the partner is locked after five.
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

    /// A new token.
    pub(super) fn issue(&mut self, now_ms: i64) -> String {
        let token = format!("sandbox{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let lifetime = i64::try_from(self.lifetime.as_millis()).unwrap_or(i64::MAX);
        self.tokens.insert(token.clone(), json!(now_ms.saturating_add(lifetime)));
        token
    }

    /// Replaces the secret by `new`, at `now_ms`; the old one is accepted for 30 days, unless `immediate`.
    ///
    /// # Errors
    ///
    /// When `new` does not meet the policy, or is the current one.
    pub(super) fn rotate(&mut self, new: &str, immediate: bool, now_ms: i64) -> Result<(), Failure> {
        if !is_permitted_secret(new) || new == self.secret {
            return Err(Failure::new(400, "24437", "The new secret does not meet the policy"));
        }
        let old = std::mem::replace(&mut self.secret, new.to_owned());
        self.previous = (!immediate).then_some((old, now_ms + GRACE_MS));
        Ok(())
    }

    /// How long a token lives.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

/// Whether `secret` has 12 to 255 characters, and a letter, a digit and one of `!@#$%&*_-+` among them and nothing else.
fn is_permitted_secret(secret: &str) -> bool {
    let is_special = |byte: u8| b"!@#$%&*_-+".contains(&byte);
    let has = |kind: fn(&u8) -> bool| secret.bytes().any(|byte| kind(&byte));
    (12..=255).contains(&secret.len())
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_special(byte))
        && has(u8::is_ascii_alphabetic)
        && has(u8::is_ascii_digit)
        && secret.bytes().any(is_special)
}
