//! The trait of a source of credentials, and how its values become one set of credentials.

use std::{collections::BTreeMap, fmt, future};

use futures_util::future::BoxFuture;

use super::{
    AppKey, Credentials, Scheme,
    field::{Field, Sourced},
    problem::{Problem, ValueDefect},
    value::check,
};

/// The values that a source holds, of one moment or version. A value that is there and cannot be read is a problem of its own.
pub type Values = BTreeMap<Field, Result<Sourced, Problem>>;

/// How a line of [`CredentialSource::outline`] ends for a value that is not there.
pub const NOT_SET: &str = "not set";

/// A place that credentials are read from.
///
/// A new source is one implementation, one variant of [`SourceConfig`](super::SourceConfig), and its keys in
/// `config/default.toml`. Sources are used through `dyn`, so that one that was not compiled in is named nowhere else.
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// The kind of source, one word: the field `source` in logs and `credentials_source` in the status.
    fn kind(&self) -> &'static str;

    /// The source as it follows the word "from": `the directory /etc/finicity-proxy/credentials`. Never shows a value.
    fn description(&self) -> String;

    /// Whether [`load`](Self::load) uses a network, which `check` must not.
    fn uses_network(&self) -> bool {
        false
    }

    /// One line for each value: what it is called in this source, and whether it is there. For `config --redacted`, so it uses no
    /// network; a source that would have to has no lines.
    fn outline(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reads all values, of one version where the source has versions. It may take seconds where a network is used.
    ///
    /// # Errors
    ///
    /// When the source as a whole cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a load that is dropped has no effect, and a change that it would have read is reported by
    /// [`changed`](Self::changed) all the same.
    fn load(&mut self) -> BoxFuture<'_, Result<Values, Problem>>;

    /// The problem of a value that is required and not there.
    fn missing(&self, field: Field) -> Problem;

    /// Waits until the source may hold other values than those last loaded. How often it polls for that is the source's decision;
    /// for a source that cannot change it never completes.
    ///
    /// # Errors
    ///
    /// When a poll failed. The next call polls again after the source's interval.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no change is lost when it is dropped and called again.
    fn changed(&mut self) -> BoxFuture<'_, Result<(), Problem>>;

    /// Waits until no change is in progress, so that a load does not read half of one. Called before each load but the first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    fn wait_until_stable(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }
}

/// Loads one set of credentials: of the `configured` scheme, or else of the one whose values are there.
///
/// One line break at the end of a value is dropped, since editors and `echo` add one; nothing else of it is changed. A malformed
/// value is refused, see [`ValueDefect`]: each that is sent is a failed authentication.
///
/// # Errors
///
/// Every problem of every value at once.
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
    // Nobody said which scheme is meant.
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

/// `problem` of an id that is not there, with what else can be done: `partner` are the same problems of partner authentication.
fn with_alternatives(problem: Problem, partner: [Problem; 2]) -> Problem {
    let (Problem::Missing(name, hint), [Problem::Missing(id, _), Problem::Missing(secret, _)]) = (&problem, &partner)
    else {
        return problem;
    };
    let no_account = if cfg!(feature = "sandbox") { "; without an account, run `finicity-proxy demo`" } else { "" };
    let hint = format!("{hint}; for partner authentication, set {id} and {secret} instead{no_account}");
    Problem::Missing(name.clone(), hint)
}
