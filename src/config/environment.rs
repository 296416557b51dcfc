//! A snapshot of the environment, and the variables in it that configure the proxy.

use std::{collections::BTreeMap, env, fmt};

use zeroize::Zeroize as _;

use crate::{credentials, secret::Secret};

/// Prefix of variables that set configuration keys: `FINICITY__UPSTREAM__URL`.
const KEY_PREFIX: &str = "FINICITY__";

/// Prefix of variables that set a container image's defaults for the same keys: `FINICITY_IMAGE__ADMIN__SOCKET`.
const IMAGE_PREFIX: &str = "FINICITY_IMAGE__";

/// The variable that names the configuration file if `--config` is not given.
pub(super) const FILE_VARIABLE: &str = "FINICITY_CONFIG";

/// Prefix of all our variables. Unknown variables with it are not errors, because Kubernetes adds some if a Service is named
/// `finicity-…`.
const PREFIX: &str = "FINICITY_";

/// Parts of the prefix. A single typing error leaves at least one of them intact.
const PREFIX_PARTS: [&str; 2] = ["FIN", "CITY"];

/// Maximum edit distance of a misspelt name: letters missing, added, swapped or wrong. A larger distance means an unrelated name, such as
/// those that Kubernetes derives from Services.
const MAX_EDITS: usize = 2;

/// Length that none of our names exceeds. The edit distance to longer names is slow to compute.
const MAX_NAME_BYTES: usize = 100;

/// Suffix of variables that name a file with the value.
const FILE_SUFFIX: &str = "_FILE";

/// The variables of the process at startup. Any of them may be a secret, so dropping this overwrites all of them. The original memory
/// block, which the system passes to each process, is not overwritten: safe code cannot write to it.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Secret<String>>,
    not_unicode: Vec<String>,
}

impl Environment {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "all of the program reads the environment here")]
    pub fn from_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.variables.insert(name, Secret::new(value))),
                Err(value) => {
                    value.into_encoded_bytes().zeroize();
                    environment.not_unicode.push(name);
                }
            }
        }
        environment
    }

    /// All variables with UTF-8 values.
    pub fn variables(&self) -> &BTreeMap<String, Secret<String>> {
        &self.variables
    }

    /// Sets a variable in the snapshot only.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), Secret::new(value.into()));
    }

    /// Removes a variable from the snapshot only.
    pub fn remove(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Only the variables that set configuration keys or name the configuration file.
    #[must_use]
    pub(super) fn config_keys_only(&self) -> Self {
        let is_key =
            |name: &str| name.starts_with(KEY_PREFIX) || name.starts_with(IMAGE_PREFIX) || name == FILE_VARIABLE;
        let keys = self.variables.iter().filter(|(name, _)| is_key(name));
        Self { variables: keys.map(|(name, value)| (name.clone(), value.clone())).collect(), not_unicode: Vec::new() }
    }

    /// Names of our variables with values that are not UTF-8.
    pub(super) fn not_unicode(&self) -> impl Iterator<Item = &str> {
        self.not_unicode.iter().map(String::as_str).filter(|name| name.starts_with(PREFIX))
    }

    /// Key and value of every variable that sets a configuration key.
    pub(super) fn keys(&self) -> impl Iterator<Item = (String, &str)> {
        self.keys_with_prefix(KEY_PREFIX)
    }

    /// Key and value of every variable that sets a container image's default.
    pub(super) fn image_defaults(&self) -> impl Iterator<Item = (String, &str)> {
        self.keys_with_prefix(IMAGE_PREFIX)
    }

    fn keys_with_prefix(&self, prefix: &'static str) -> impl Iterator<Item = (String, &str)> {
        let named = self.variables.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)));
        named.map(|(name, value)| (name.to_ascii_lowercase().replace("__", "."), value.expose().as_str()))
    }

    /// Variables that are probably misspelt, each with the name that was probably meant: one that is read but not set. The names that are
    /// read are [`FILE_VARIABLE`], those of secrets, and those of `keys`.
    pub(super) fn near_misses(&self, keys: &[String]) -> Vec<(&str, String)> {
        let secrets = credentials::variables().into_iter().flat_map(|name| [name.to_owned(), format!("{name}_FILE")]);
        let known: Vec<String> =
            secrets.chain([FILE_VARIABLE.to_owned()]).chain(keys.iter().map(|k| variable(k))).collect();
        let is_ours = |name: &str| name.starts_with(KEY_PREFIX) || name.starts_with(IMAGE_PREFIX);
        let names =
            self.variables.keys().map(String::as_str).filter(|name| {
                name.len() <= MAX_NAME_BYTES && !is_ours(name) && !known.iter().any(|known| known == name)
            });
        let misspelt: Vec<&str> = self.misspelt(keys).map(|(name, _)| name).collect();
        let near = |name: &str| {
            let name = name.to_ascii_uppercase();
            // Most variables contain no part of the prefix, so this avoids the search.
            if !PREFIX_PARTS.iter().any(|part| name.contains(part)) {
                return None;
            }
            let folded = name.replace("__", "_");
            let distance = |known: &String| strsim::damerau_levenshtein(&known.replace("__", "_"), &folded);
            let close = known.iter().filter(|known| known.len().abs_diff(name.len()) <= MAX_EDITS + 2);
            let (edits, nearest) = close.map(|known| (distance(known), known)).min()?;
            (edits <= MAX_EDITS && !self.has_either_form(nearest)).then(|| nearest.clone())
        };
        names.filter(|name| !misspelt.contains(name)).filter_map(|name| Some((name, near(name)?))).collect()
    }

    /// Whether `name` is set, with or without `_FILE`.
    fn has_either_form(&self, name: &str) -> bool {
        let value = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
        [value.to_owned(), format!("{value}{FILE_SUFFIX}")]
            .iter()
            .any(|name| self.variables.get(name).is_some_and(|value| !value.expose().is_empty()))
    }

    /// Variables that separate the parts of one of `keys` with one underscore instead of two, each with the correct name.
    pub(super) fn misspelt<'a>(&'a self, keys: &'a [String]) -> impl Iterator<Item = (&'a str, String)> {
        let single = self.variables.keys().filter(|name| name.starts_with(PREFIX) && !name.starts_with(KEY_PREFIX));
        single.filter_map(|name| {
            let rest = name[PREFIX.len()..].to_ascii_lowercase().replace("__", "_");
            let key = keys.iter().find(|key| key.replace('.', "_") == rest)?;
            Some((name.as_str(), variable(key)))
        })
    }
}

/// Prints names only, because some values are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).entries(&self.not_unicode).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), Secret::new(value.into()))).collect();
        Self { variables, not_unicode: Vec::new() }
    }
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{KEY_PREFIX}{}", upper(key))
}

/// The key that the variable `name` sets.
pub(super) fn key_of_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix(KEY_PREFIX).or_else(|| name.strip_prefix(IMAGE_PREFIX))?;
    Some(key.to_ascii_lowercase().replace("__", "."))
}

/// The variable that sets a container image's default for `key`.
pub(super) fn image_variable(key: &str) -> String {
    format!("{IMAGE_PREFIX}{}", upper(key))
}

fn upper(key: &str) -> String {
    key.replace('.', "__").to_ascii_uppercase()
}
