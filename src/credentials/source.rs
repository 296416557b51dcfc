//! From values, wherever they lie, to one set of credentials.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    AppKey, Credentials, Scheme, dir, env,
    field::{Field, Found},
    problem::{Problem, Spoiled},
    value::check,
};
use crate::secret::Secret;

/// Where credentials are read from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Variables of the environment, or the files that they name. Values that are variables never change; files may.
    Environment(env::Variables),
    /// The files of this directory: a mounted Secret.
    Directory(PathBuf),
}

impl Source {
    /// What kind of place it is, in logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Environment(_) => "environment",
            Self::Directory(_) => "directory",
        }
    }

    /// The credentials' variables of `environment`.
    pub fn environment(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self::Environment(env::Variables::new(environment))
    }
}

/// Reads one set of credentials: of the scheme that is `wanted`, or else of the one whose values are there.
///
/// One line break at the end of a value is dropped, since editors and `echo` add one; nothing else of it is changed. A value that
/// was spoiled on its way is refused, see [`Spoiled`]: each that is sent is a failed authentication.
///
/// # Errors
///
/// Every problem of every value at once.
pub fn load(source: &Source, wanted: Option<Scheme>) -> Result<Credentials, Vec<Problem>> {
    match source {
        Source::Environment(variables) => assemble(
            wanted,
            |field| variables.read(field.variable()),
            |field| {
                let name = field.variable();
                (name.to_owned(), format!("set it, or set {name}_FILE to a file that holds it"))
            },
        ),
        Source::Directory(path) => {
            let files = dir::read(path).map_err(|error| vec![Problem::Directory(error)])?;
            let shown = |field: Field| path.join(field.file_name()).display().to_string();
            let read = |field: Field| files.get(field.file_name()).map(|value| Ok((value.clone(), shown(field))));
            assemble(wanted, read, |field| (shown(field), "add this file to the Secret".to_owned()))
        }
    }
}

/// `read` gives the value of a field, if there is one; `missing` says how its absence is told.
fn assemble(
    wanted: Option<Scheme>,
    read: impl Fn(Field) -> Option<Result<Found, Problem>>,
    missing: impl Fn(Field) -> (String, String),
) -> Result<Credentials, Vec<Problem>> {
    let values: BTreeMap<Field, Result<Found, Problem>> =
        Field::ALL.into_iter().filter_map(|field| Some((field, read(field)?))).collect();
    let any_of = |fields: [Field; 2]| fields.iter().any(|field| values.contains_key(field));
    let (oauth2, partner) = ([Field::ClientId, Field::ClientSecret], [Field::PartnerId, Field::PartnerSecret]);
    let scheme = match (wanted, any_of(oauth2), any_of(partner)) {
        (Some(scheme), ..) => scheme,
        (None, true, true) => return Err(vec![Problem::BothSchemes]),
        (None, false, true) => Scheme::Partner,
        (None, _, false) => Scheme::OAuth2,
    };
    let [id, secret] = if scheme == Scheme::OAuth2 { oauth2 } else { partner };

    let mut values = values;
    let mut take = |field: Field| match values.remove(&field) {
        Some(found) => found.and_then(|found| check(field.kind(), found)),
        None => {
            let (place, way_out) = missing(field);
            Err(Problem::Missing(place, way_out))
        }
    };
    let app_key = take(Field::AppKey)
        .and_then(|(value, place)| AppKey::new(value).ok_or(Problem::Spoiled(place, Spoiled::NotAscii)));
    match (take(id), take(secret), app_key) {
        (Ok((id, _)), Ok((secret, _)), Ok(app_key)) => Ok(Credentials { scheme, id, secret, app_key }),
        (id, secret, app_key) => Err([id.err(), secret.err(), app_key.err()].into_iter().flatten().collect()),
    }
}
