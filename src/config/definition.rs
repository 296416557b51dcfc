//! The definition of each key: what `config/default.toml` says of it, and what its [reader](super::reader) accepts.
//!
//! A comment of `config/default.toml` belongs to the keys that follow it without a blank line. A line `# Example: name = value` in it is
//! the example of that key; without one, the default is.

use std::collections::BTreeMap;

use super::{
    Inputs, Kind, Problems,
    environment::{key_of_variable, variable},
    resolve,
    sources::{self, DEFAULTS, literal, unknown_key},
};

/// How a line of a comment begins that holds an example.
const EXAMPLE: &str = "Example: ";

/// One key.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its sections and its name: `limits.queue`.
    pub key: String,
    /// What it is for, in one paragraph.
    pub doc: String,
    /// What its value has to be.
    pub kind: Kind,
    /// Its default, as TOML.
    pub default: String,
    /// A value, as TOML, where the default is none that could serve as an example.
    pub example: Option<String>,
}

impl Definition {
    /// The variable that sets it.
    pub fn variable(&self) -> String {
        variable(&self.key)
    }
}

/// One key and its present value.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The key.
    pub definition: Definition,
    /// Its value as TOML, without what may be a secret.
    pub value: String,
    /// What set it.
    pub origin: String,
    /// What is wrong with the value, and with the sources themselves.
    pub problems: Problems,
}

/// All keys, in the order of `config/default.toml`.
pub fn definitions() -> Vec<Definition> {
    let defaults = sources::defaults();
    let mut kinds = resolve::kinds(&defaults);
    let mut definitions = Vec::new();
    for Comment { key, doc, example } in comments(DEFAULTS) {
        // A test holds that every key is read, and that each has one comment.
        if let (Some(kind), Some(entry)) = (kinds.remove(key.as_str()), defaults.get(&key)) {
            definitions.push(Definition { doc, kind, default: literal(&entry.value), example, key });
        }
    }
    definitions
}

/// The keys that `name` stands for: a key, its variable, or a section with all of its keys.
///
/// # Errors
///
/// Why there is none, and what was perhaps meant.
pub fn find(name: &str) -> Result<Vec<Definition>, String> {
    let name = key_of_variable(name).unwrap_or_else(|| name.to_owned());
    let is_meant = |key: &str| key.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (found, others): (Vec<_>, Vec<_>) = definitions().into_iter().partition(|one| is_meant(&one.key));
    if found.is_empty() {
        Err(unknown_key(&name, &others.into_iter().map(|one| one.key).collect::<Vec<_>>()))
    } else {
        Ok(found)
    }
}

/// `definition` with its value in `inputs`.
pub fn explain(inputs: &Inputs, definition: Definition) -> Explanation {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let mut of_values = Vec::new();
    resolve::resolve(&raw, &inputs.environment, super::Reloader::default(), &mut of_values);
    problems.extend(of_values.into_iter().filter(|problem| problem.key() == Some(&definition.key)));
    let (value, origin) = raw.get(&definition.key).map(|entry| (literal(&entry.value), entry.origin.clone())).unzip();
    Explanation {
        value: value.unwrap_or_default(),
        origin: super::problem::escape_control(&origin.unwrap_or_default()),
        problems: Problems(problems),
        definition,
    }
}

/// A configuration file with every key and its comment, in which no key is set.
pub fn template() -> String {
    let is_key = |line: &str| key_name(line).is_some();
    let lines = DEFAULTS.lines().map(|line| if is_key(line) { format!("#{line}\n") } else { format!("{line}\n") });
    format!(
        "# Remove the # before a key to set it. What stays as it is here keeps its default, also that of a later version.\n#\n{}",
        lines.collect::<String>()
    )
}

/// What a comment says of a key.
struct Comment {
    key: String,
    doc: String,
    example: Option<String>,
}

/// The keys of `toml` with the comments above them.
fn comments(toml: &str) -> Vec<Comment> {
    let mut comments = Vec::new();
    let (mut section, mut doc, mut examples) = ("", Vec::new(), BTreeMap::new());
    let mut is_read = false;
    for line in toml.lines() {
        if let Some(text) = line.strip_prefix('#') {
            if std::mem::take(&mut is_read) {
                (doc, examples) = (Vec::new(), BTreeMap::new());
            }
            match text.trim_start().strip_prefix(EXAMPLE).and_then(|example| example.split_once(" = ")) {
                Some((name, example)) => drop(examples.insert(name, example)),
                None => doc.push(text.trim()),
            }
        } else if let Some(name) = key_name(line) {
            is_read = true;
            let (key, example) = (format!("{section}.{name}"), examples.get(name).map(|example| (*example).to_owned()));
            comments.push(Comment { key, doc: doc.join(" "), example });
        } else {
            section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(section);
            (doc, examples) = (Vec::new(), BTreeMap::new());
        }
    }
    comments
}

/// The name of the key that `line` sets.
fn key_name(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(" = ")?;
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_').then_some(name)
}

#[cfg(test)]
mod tests;
