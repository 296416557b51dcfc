//! The trait of a credential source, and the assembly of its values into one set of credentials.

use std::{collections::BTreeMap, fmt, future};

use futures_util::future::BoxFuture;

use super::{
    AppKey, Credentials, Scheme,
    field::{Field, Sourced},
    problem::{Problem, ValueDefect},
    value::check,
};

/// The values in a source, all read at one time or from one version. A value that exists but cannot be read is a [`Problem`].
pub type Values = BTreeMap<Field, Result<Sourced, Problem>>;

/// The end of a line of [`CredentialSource::outline`] for a value that is not set.
pub const NOT_SET: &str = "not set";

/// A source of credentials.
///
/// To add a source, implement this trait, add a variant to [`SourceConfig`](super::SourceConfig), and add its keys to
/// `config/default.toml`. Sources are used through `dyn`, so other code does not depend on which of them are compiled in.
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// The kind of source, as one word: the field `source` in logs and `credentials_source` in the status.
    fn kind(&self) -> &'static str;

    /// The source, phrased to follow the word "from": `the directory /etc/finicity-proxy/credentials`. Never shows a value.
    fn description(&self) -> String;

    /// Whether [`load`](Self::load) uses the network, which `check` must not do.
    fn uses_network(&self) -> bool {
        false
    }

    /// One line for each value: its name in this source, and whether it is set. `config --redacted` prints these lines, so they must
    /// not require the network; a source that does require it returns none.
    fn outline(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reads all values, from one version if the source has versions. Takes up to several seconds if it uses the network.
    ///
    /// # Errors
    ///
    /// If the source as a whole cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped load has no effect, and [`changed`](Self::changed) still reports a change that the load would have
    /// read.
    fn load(&mut self) -> BoxFuture<'_, Result<Values, Problem>>;

    /// The problem to report if the required value `field` is not set.
    fn missing(&self, field: Field) -> Problem;

    /// Waits until the source may hold other values than those last loaded. The source chooses its poll interval. If the source
    /// cannot change, this never completes.
    ///
    /// # Errors
    ///
    /// If a poll fails. The next call polls again after the source's interval.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping it and calling it again loses no change.
    fn changed(&mut self) -> BoxFuture<'_, Result<(), Problem>>;

    /// Waits until no change is in progress, so that a load does not read half of one. Called before each load except the first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    fn wait_until_stable(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }
}

/// Loads one set of credentials: for the `configured` scheme, or else for the scheme that has values in the source.
///
/// Removes one trailing line break from each value, because editors and `echo` add one; changes nothing else. A malformed value
/// ([`ValueDefect`]) is an error, because sending it would be a failed authentication.
///
/// # Errors
///
/// All problems of all values.
pub async fn load(source: &mut dyn CredentialSource, configured: Option<Scheme>) -> Result<Credentials, Vec<Problem>> {
    let values = source.load().await.map_err(|problem| vec![problem])?;
    assemble(values, configured, |field| source.missing(field))
}

fn assemble(
    mut values: Values,
    configured: Option<Scheme>,
    missing: impl Fn(Field) -> Problem,
) -> Result<Credentials, Vec<Problem>> {
    let any_of = |fields: [Field; 2]| fields.iter().any(|field| values.contains_key(field));
    let (oauth2, partner) = ([Field::ClientId, Field::ClientSecret], [Field::PartnerId, Field::PartnerSecret]);
    let scheme = match (configured, any_of(oauth2), any_of(partner)) {
        (Some(scheme), ..) => scheme,
        (None, true, true) => return Err(vec![Problem::BothSchemes]),
        (None, false, true) => Scheme::Partner,
        (None, _, false) => Scheme::OAuth2,
    };
    // Neither the configuration nor a value selects a scheme.
    let is_guess = configured.is_none() && !any_of(oauth2) && !any_of(partner);
    let [id, secret] = if scheme == Scheme::OAuth2 { oauth2 } else { partner };

    let mut take = |field: Field| match values.remove(&field) {
        Some(value) => value.and_then(|sourced| check(field.kind(), sourced)),
        None => Err(missing(field)),
    };
    let app_key = take(Field::AppKey).and_then(|Sourced { value, origin }| {
        AppKey::new(value).ok_or(Problem::Malformed(origin, ValueDefect::NotAscii))
    });
    match (take(id), take(secret), app_key) {
        (Ok(id), Ok(secret), Ok(app_key)) => Ok(Credentials { scheme, id: id.value, secret: secret.value, app_key }),
        (id, secret, app_key) => {
            let id = id
                .err()
                .map(|problem| if is_guess { with_alternatives(problem, partner.map(&missing)) } else { problem });
            Err([id, secret.err(), app_key.err()].into_iter().flatten().collect())
        }
    }
}

/// Adds the alternatives to `problem`, a missing id. `partner` holds the corresponding problems for partner authentication.
fn with_alternatives(problem: Problem, partner: [Problem; 2]) -> Problem {
    let (Problem::Missing(name, hint), [Problem::Missing(id, _), Problem::Missing(secret, _)]) = (&problem, &partner)
    else {
        return problem;
    };
    let no_account = if cfg!(feature = "sandbox") { "; without an account, run `finicity-proxy demo`" } else { "" };
    let hint = format!("{hint}; for partner authentication, set {id} and {secret} instead{no_account}");
    Problem::Missing(name.clone(), hint)
}
