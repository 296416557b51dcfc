//! Credentials from environment variables, or from the files named by `…_FILE` variables.

use std::{
    collections::BTreeMap,
    fmt, fs, future,
    io::{self, Read as _},
    path::Path,
    str,
};

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use super::{
    field::{Field, Sourced},
    problem::{MAX_FILE_BYTES, Problem},
    source::{CredentialSource, NOT_SET, Values},
};
use crate::secret::{Secret, ShownPath, absolute};

/// The environment variables for credentials, kept so that the files that they name can be read again.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, Secret<String>>);

impl Variables {
    /// Selects the credential variables of `environment`.
    pub fn new(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self::select(environment, &Field::ALL.map(Field::variable))
    }

    /// Selects `variables` and their `_FILE` forms. An empty one counts as unset, because manifests and env files omit a value that way.
    pub(super) fn select(environment: &BTreeMap<String, Secret<String>>, variables: &[&str]) -> Self {
        let names = variables.iter().flat_map(|name| [(*name).to_owned(), format!("{name}_FILE")]);
        let value = |name: &str| environment.get(name).filter(|value| !value.expose().is_empty()).cloned();
        Self(names.filter_map(|name| value(&name).map(|value| (name, value))).collect())
    }

    /// The value of the variable `name`, or of the file named by its `_FILE` form, if either is set.
    pub(super) fn read(&self, name: &str) -> Option<Result<Sourced, Problem>> {
        let file_variable = format!("{name}_FILE");
        match (self.0.get(name), self.0.get(&file_variable)) {
            (None, None) => None,
            (Some(_), Some(_)) => Some(Err(Problem::BothForms(name.to_owned()))),
            (Some(value), None) => Some(Ok(Sourced { value: value.clone(), origin: name.to_owned() })),
            (None, Some(path)) if !path.expose().contains('/') => Some(Err(Problem::NotAPath(name.to_owned()))),
            (None, Some(path)) => {
                let path = path.expose().trim_end_matches(['\r', '\n']);
                let origin = format!("{file_variable} ({})", absolute(Path::new(path)).display());
                Some(read_file(&file_variable, path).map(|value| Sourced { value, origin }))
            }
        }
    }

    /// Whether and how `name` is set, without reading a file.
    pub(super) fn describe(&self, name: &str) -> String {
        match (self.0.get(name), self.0.get(&format!("{name}_FILE"))) {
            (Some(_), _) => "[redacted]".to_owned(),
            (None, Some(path)) if path.expose().contains('/') => {
                let path = ShownPath::new(Path::new(path.expose())).to_string();
                format!("[redacted], from {}", path.replace(char::is_control, "\u{fffd}"))
            }
            (None, Some(_)) => "[redacted], from a file".to_owned(),
            (None, None) => NOT_SET.to_owned(),
        }
    }
}

/// Shows names only.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The environment of this process at its start. Variables never change. The files that they name may change, and are read again
/// when an operator requests it.
#[derive(Debug)]
pub(super) struct EnvironmentSource(Variables);

impl EnvironmentSource {
    pub(super) fn new(variables: Variables) -> Self {
        Self(variables)
    }
}

impl CredentialSource for EnvironmentSource {
    fn kind(&self) -> &'static str {
        "environment"
    }

    fn description(&self) -> String {
        "the environment".to_owned()
    }

    fn outline(&self) -> Vec<String> {
        Field::ALL.map(Field::variable).map(|name| format!("{name}: {}", self.0.describe(name))).into()
    }

    fn load(&mut self) -> BoxFuture<'_, Result<Values, Problem>> {
        let found = |field: Field| Some((field, self.0.read(field.variable())?));
        Box::pin(async move { Ok(Field::ALL.into_iter().filter_map(found).collect()) })
    }

    fn missing(&self, field: Field) -> Problem {
        let name = field.variable();
        Problem::Missing(name.to_owned(), format!("set it, or set {name}_FILE to the path of a file that contains it"))
    }

    fn changed(&mut self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(future::pending())
    }
}

fn read_file(variable: &str, path: &str) -> Result<Secret<String>, Problem> {
    let shown = ShownPath::new(Path::new(path));
    let unreadable =
        |source: io::Error| Problem::Unreadable { variable: variable.to_owned(), path: shown.clone(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    // Full capacity, because a reallocation would leave a copy in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Problem::TooLarge { variable: variable.to_owned(), path: shown });
    }
    str::from_utf8(&bytes).map(Secret::from).map_err(|_| Problem::NotUtf8(format!("{variable} ({shown})")))
}
