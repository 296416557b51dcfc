//! The operator's secrets in the environment: the admin token, the credentials for an egress proxy, and the webhook secrets.

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

/// The variable for the admin token.
const ADMIN_TOKEN: &str = "FINICITY_ADMIN_TOKEN";

/// The variables for the egress proxy's credentials.
pub const EGRESS_USERNAME: &str = "FINICITY_EGRESS_PROXY_USERNAME";
/// See [`EGRESS_USERNAME`].
pub const EGRESS_PASSWORD: &str = "FINICITY_EGRESS_PROXY_PASSWORD";

/// The variables for the current and the previous secret that webhooks are signed with, if it is not the partner secret.
pub const WEBHOOK_SECRET: &str = "FINICITY_WEBHOOK_SECRET";
const WEBHOOK_SECRET_PREVIOUS: &str = "FINICITY_WEBHOOK_SECRET_PREVIOUS";

/// The variables for all credentials and operator secrets. Each also has a `_FILE` form.
pub fn variables() -> Vec<&'static str> {
    let operator = [ADMIN_TOKEN, EGRESS_USERNAME, EGRESS_PASSWORD, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS];
    Field::ALL.map(Field::variable).into_iter().chain(operator).collect()
}

/// The values in `environment` that must never appear in any output, whether or not they are usable.
pub fn secret_variables(environment: &BTreeMap<String, Secret<String>>) -> Vec<Secret<Vec<u8>>> {
    let names = [Field::ClientSecret, Field::PartnerSecret, Field::AppKey].map(Field::variable);
    let operator = [ADMIN_TOKEN, EGRESS_PASSWORD, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS];
    let values = names.into_iter().chain(operator).filter_map(|name| environment.get(name));
    values.map(|value| Secret::new(value.expose().trim_end_matches(['\r', '\n']).as_bytes().to_vec())).collect()
}

/// One line for each operator secret: its variable, and whether and how it is set. Reads no file.
pub fn operator_outline(environment: &BTreeMap<String, Secret<String>>) -> Vec<String> {
    let names = [ADMIN_TOKEN, EGRESS_USERNAME, EGRESS_PASSWORD, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS];
    let variables = Variables::select(environment, &names);
    names.map(|name| format!("{name}: {}", variables.describe(name))).into()
}

/// The admin token from `FINICITY_ADMIN_TOKEN`, or from the file in its `_FILE` form, if either is set.
///
/// # Errors
///
/// If it is set but cannot be used.
pub fn admin_token(environment: &BTreeMap<String, Secret<String>>) -> Result<Option<Secret<String>>, Problem> {
    let sourced = Variables::select(environment, &[ADMIN_TOKEN]).read(ADMIN_TOKEN).transpose()?;
    sourced.map(|sourced| check(ValueKind::AdminToken, sourced).map(|sourced| sourced.value)).transpose()
}

/// The webhook secrets in the environment or in the files that it names. The files are read again when an operator requests it.
#[derive(Clone, Debug, Default)]
pub struct WebhookSecretSource(Variables);

/// The values of a [`WebhookSecretSource`].
#[derive(Clone, Debug, Default)]
pub struct WebhookSecrets {
    /// The current secret; `None` if it is the partner secret.
    pub current: Option<Secret<String>>,
    /// The secret before the current one.
    pub previous: Option<Secret<String>>,
}

impl WebhookSecretSource {
    /// Selects the webhook variables of `environment`.
    pub fn new(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self(Variables::select(environment, &[WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS]))
    }

    /// Reads both secrets.
    ///
    /// # Errors
    ///
    /// If one is set but cannot be used.
    pub fn read(&self) -> Result<WebhookSecrets, Problem> {
        let read = |name| {
            let sourced = self.0.read(name).transpose()?;
            sourced.map(|sourced| check(ValueKind::Secret, sourced).map(|sourced| sourced.value)).transpose()
        };
        Ok(WebhookSecrets { current: read(WEBHOOK_SECRET)?, previous: read(WEBHOOK_SECRET_PREVIOUS)? })
    }
}

/// The `Proxy-Authorization` value for the egress proxy (RFC 7617), marked sensitive, if its credentials are set.
///
/// # Errors
///
/// If they are set but cannot be used, or if only one of them is set.
pub fn egress_authorization(environment: &BTreeMap<String, Secret<String>>) -> Result<Option<HeaderValue>, Problem> {
    let variables = Variables::select(environment, &[EGRESS_USERNAME, EGRESS_PASSWORD]);
    let read = |name| {
        let sourced = variables.read(name).transpose()?;
        sourced.map(|sourced| check(ValueKind::Egress, sourced)).transpose()
    };
    let missing = |name: &str| {
        Problem::Missing(name.to_owned(), "set both username and password for the egress proxy".to_owned())
    };
    match (read(EGRESS_USERNAME)?, read(EGRESS_PASSWORD)?) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing(EGRESS_USERNAME)),
        (Some(_), None) => Err(missing(EGRESS_PASSWORD)),
        (Some(username), Some(_)) if username.value.expose().contains(':') => Err(Problem::Colon(username.origin)),
        (Some(username), Some(password)) => Ok(Some(basic(username.value.expose(), password.value.expose()))),
    }
}
