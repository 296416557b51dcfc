//! From values, wherever they lie, to one set of credentials.

use std::{collections::BTreeMap, path::PathBuf};

use http::HeaderValue;

use super::{
    AppKey, Credentials, Problem, Scheme, basic, dir, env,
    value::{Found, Kind, Spoiled, check},
};
use crate::secret::Secret;

/// The values that credentials consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// OAuth 2.0 client identifier.
    ClientId,
    /// OAuth 2.0 client secret.
    ClientSecret,
    /// Partner identifier.
    PartnerId,
    /// Partner secret.
    PartnerSecret,
    /// App Key.
    AppKey,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 5] = [Self::ClientId, Self::ClientSecret, Self::PartnerId, Self::PartnerSecret, Self::AppKey];

    /// The environment variable that holds it; with `_FILE` behind it, the one that names a file.
    pub fn variable(self) -> &'static str {
        match self {
            Self::ClientId => "FINICITY_CLIENT_ID",
            Self::ClientSecret => "FINICITY_CLIENT_SECRET",
            Self::PartnerId => "FINICITY_PARTNER_ID",
            Self::PartnerSecret => "FINICITY_PARTNER_SECRET",
            Self::AppKey => "FINICITY_APP_KEY",
        }
    }

    /// Which rules its value has to keep to.
    fn kind(self) -> Kind {
        match self {
            Self::ClientId | Self::PartnerId => Kind::Id,
            Self::ClientSecret | Self::PartnerSecret => Kind::Secret,
            Self::AppKey => Kind::AppKey,
        }
    }

    /// The file that holds it in a directory of credentials.
    pub fn file_name(self) -> &'static str {
        dir::NAMES[self as usize]
    }
}

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

/// The variable of the administrator's token.
const ADMIN_TOKEN: &str = "FINICITY_ADMIN_TOKEN";

/// The variables of what an egress proxy is shown.
pub const EGRESS_USERNAME: &str = "FINICITY_EGRESS_PROXY_USERNAME";
/// See [`EGRESS_USERNAME`].
pub const EGRESS_PASSWORD: &str = "FINICITY_EGRESS_PROXY_PASSWORD";

/// The values in `environment` that no output may ever show, whether they are usable or not.
pub fn secret_variables(environment: &BTreeMap<String, Secret<String>>) -> Vec<Secret<Vec<u8>>> {
    let names = [Field::ClientSecret, Field::PartnerSecret, Field::AppKey].map(Field::variable);
    let values = names.into_iter().chain([ADMIN_TOKEN, EGRESS_PASSWORD]).filter_map(|name| environment.get(name));
    values.map(|value| Secret::new(value.expose().trim_end_matches(['\r', '\n']).as_bytes().to_vec())).collect()
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

/// The administrator's token, `FINICITY_ADMIN_TOKEN` or the file that its `_FILE` form names, if either is set.
///
/// # Errors
///
/// When it is set and cannot be used.
pub fn admin_token(environment: &BTreeMap<String, Secret<String>>) -> Result<Option<Secret<String>>, Problem> {
    let found = env::Variables::of(environment, &[ADMIN_TOKEN]).read(ADMIN_TOKEN).transpose()?;
    found.map(|found| check(Kind::AdminToken, found).map(|(value, _)| value)).transpose()
}

/// What an egress proxy is shown (RFC 7617), as a header value that is marked sensitive, if its credentials are set.
///
/// # Errors
///
/// When they are set and cannot be used, or only one of them is.
pub fn egress_authorization(environment: &BTreeMap<String, Secret<String>>) -> Result<Option<HeaderValue>, Problem> {
    let variables = env::Variables::of(environment, &[EGRESS_USERNAME, EGRESS_PASSWORD]);
    let read = |name| {
        let found = variables.read(name).transpose()?;
        found.map(|found| check(Kind::Egress, found)).transpose()
    };
    let missing = |name: &str| Problem::Missing(name.to_owned(), "the egress proxy's credentials are two".to_owned());
    match (read(EGRESS_USERNAME)?, read(EGRESS_PASSWORD)?) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing(EGRESS_USERNAME)),
        (Some(_), None) => Err(missing(EGRESS_PASSWORD)),
        (Some((username, place)), Some(_)) if username.expose().contains(':') => Err(Problem::Colon(place)),
        (Some((username, _)), Some((password, _))) => Ok(Some(basic(username.expose(), password.expose()))),
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
