//! Secrets of the operator's in the environment: the administrator's token, and what an egress proxy is shown.

use std::collections::BTreeMap;

use http::HeaderValue;

use super::{
    basic,
    env::Variables,
    field::Field,
    problem::Problem,
    value::{ValueKind, check},
};
use crate::secret::Secret;

/// The variable of the administrator's token.
const ADMIN_TOKEN: &str = "FINICITY_ADMIN_TOKEN";

/// The variables of what an egress proxy is shown.
pub const EGRESS_USERNAME: &str = "FINICITY_EGRESS_PROXY_USERNAME";
/// See [`EGRESS_USERNAME`].
pub const EGRESS_PASSWORD: &str = "FINICITY_EGRESS_PROXY_PASSWORD";

/// The secrets that webhooks are signed with, where it is not the partner secret, and the one before it.
pub const WEBHOOK_SECRET: &str = "FINICITY_WEBHOOK_SECRET";
const WEBHOOK_SECRET_PREVIOUS: &str = "FINICITY_WEBHOOK_SECRET_PREVIOUS";

/// The variables of all secrets, each of which has a form with `_FILE`.
pub fn variables() -> Vec<&'static str> {
    let operator = [ADMIN_TOKEN, EGRESS_USERNAME, EGRESS_PASSWORD, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS];
    Field::ALL.map(Field::variable).into_iter().chain(operator).collect()
}

/// The values in `environment` that no output may ever show, whether they are usable or not.
pub fn secret_variables(environment: &BTreeMap<String, Secret<String>>) -> Vec<Secret<Vec<u8>>> {
    let names = [Field::ClientSecret, Field::PartnerSecret, Field::AppKey].map(Field::variable);
    let operator = [ADMIN_TOKEN, EGRESS_PASSWORD, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS];
    let values = names.into_iter().chain(operator).filter_map(|name| environment.get(name));
    values.map(|value| Secret::new(value.expose().trim_end_matches(['\r', '\n']).as_bytes().to_vec())).collect()
}

/// One line for each operator's secret in `environment`: its variable, and where its value comes from. No file is read.
pub fn operator_outline(environment: &BTreeMap<String, Secret<String>>) -> Vec<String> {
    let names = [ADMIN_TOKEN, EGRESS_USERNAME, EGRESS_PASSWORD, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS];
    let variables = Variables::select(environment, &names);
    names.map(|name| format!("{name}: {}", variables.describe(name))).into()
}

/// The administrator's token, `FINICITY_ADMIN_TOKEN` or the file that its `_FILE` form names, if either is set.
///
/// # Errors
///
/// When it is set and cannot be used.
pub fn admin_token(environment: &BTreeMap<String, Secret<String>>) -> Result<Option<Secret<String>>, Problem> {
    let sourced = Variables::select(environment, &[ADMIN_TOKEN]).read(ADMIN_TOKEN).transpose()?;
    sourced.map(|sourced| check(ValueKind::AdminToken, sourced).map(|sourced| sourced.value)).transpose()
}

/// The secrets of webhooks in the environment, or in the files that it names, which are read again when an operator says so.
#[derive(Clone, Debug, Default)]
pub struct WebhookSecretSource(Variables);

/// What [`WebhookSecretSource`] holds.
#[derive(Clone, Debug, Default)]
pub struct WebhookSecrets {
    /// The secret, where it is not the partner secret.
    pub current: Option<Secret<String>>,
    /// The one before it, or before the partner secret.
    pub previous: Option<Secret<String>>,
}

impl WebhookSecretSource {
    /// The variables of `environment` that concern webhooks.
    pub fn new(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self(Variables::select(environment, &[WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS]))
    }

    /// Reads both.
    ///
    /// # Errors
    ///
    /// When one is set and cannot be used.
    pub fn read(&self) -> Result<WebhookSecrets, Problem> {
        let read = |name| {
            let sourced = self.0.read(name).transpose()?;
            sourced.map(|sourced| check(ValueKind::Secret, sourced).map(|sourced| sourced.value)).transpose()
        };
        Ok(WebhookSecrets { current: read(WEBHOOK_SECRET)?, previous: read(WEBHOOK_SECRET_PREVIOUS)? })
    }
}

/// What an egress proxy is shown (RFC 7617), as a header value that is marked sensitive, if its credentials are set.
///
/// # Errors
///
/// When they are set and cannot be used, or only one of them is.
pub fn egress_authorization(environment: &BTreeMap<String, Secret<String>>) -> Result<Option<HeaderValue>, Problem> {
    let variables = Variables::select(environment, &[EGRESS_USERNAME, EGRESS_PASSWORD]);
    let read = |name| {
        let sourced = variables.read(name).transpose()?;
        sourced.map(|sourced| check(ValueKind::Egress, sourced)).transpose()
    };
    let missing = |name: &str| Problem::Missing(name.to_owned(), "the egress proxy's credentials are two".to_owned());
    match (read(EGRESS_USERNAME)?, read(EGRESS_PASSWORD)?) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing(EGRESS_USERNAME)),
        (Some(_), None) => Err(missing(EGRESS_PASSWORD)),
        (Some(username), Some(_)) if username.value.expose().contains(':') => Err(Problem::Colon(username.origin)),
        (Some(username), Some(password)) => Ok(Some(basic(username.value.expose(), password.value.expose()))),
    }
}
