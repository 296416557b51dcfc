//! The definition of each key: its description from `config/default.toml`, and the values that its [reader](super::reader) accepts.
//!
//! A comment in `config/default.toml` describes the keys that follow it without a blank line. A line `# Example: name = value` in it is
//! the example of that key; without one, the default is the example.

use std::collections::BTreeMap;

use super::{
    Inputs, Kind, Problems,
    environment::{key_of_variable, variable},
    resolve,
    sources::{self, DEFAULTS, literal, unknown_key},
};

/// The start of a comment line that contains an example.
const EXAMPLE: &str = "Example: ";

/// One key.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Sections and name: `limits.queue`.
    pub key: String,
    /// The description, in one paragraph.
    pub doc: String,
    /// Type and bounds of the value.
    pub kind: Kind,
    /// The default, as TOML.
    pub default: String,
    /// An example value, as TOML. `None` if the default serves as the example.
    pub example: Option<String>,
}

impl Definition {
    /// The environment variable that sets the key.
    pub fn variable(&self) -> String {
        variable(&self.key)
    }
}

/// One key and its current value.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The key.
    pub definition: Definition,
    /// The value as TOML, with possible secrets redacted.
    pub value: String,
    /// The source that set the value.
    pub origin: String,
    /// Problems with the value and with the sources themselves.
    pub problems: Problems,
}

/// All keys, in the order of `config/default.toml`.
pub fn definitions() -> Vec<Definition> {
    let defaults = sources::defaults();
    let mut kinds = resolve::kinds(&defaults);
    let mut definitions = Vec::new();
    for Comment { key, doc, example } in comments(DEFAULTS) {
        // A test asserts that every key is read and has one comment.
        if let (Some(kind), Some(entry)) = (kinds.remove(key.as_str()), defaults.get(&key)) {
            definitions.push(Definition { doc, kind, default: literal(&entry.value), example, key });
        }
    }
    definitions
}

/// The keys that `name` refers to. `name` is a key, its environment variable, or a section, which stands for all of its keys.
///
/// # Errors
///
/// A message that says why no key matches, with a suggestion if there is a similar one.
pub fn find(name: &str) -> Result<Vec<Definition>, String> {
    let name = key_of_variable(name).unwrap_or_else(|| name.to_owned());
    let matches = |key: &str| key.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (found, others): (Vec<_>, Vec<_>) = definitions().into_iter().partition(|one| matches(&one.key));
    if found.is_empty() {
        Err(unknown_key(&name, &others.into_iter().map(|one| one.key).collect::<Vec<_>>()))
    } else {
        Ok(found)
    }
}

/// Adds the value that `inputs` give to the key of `definition`.
pub fn explain(inputs: &Inputs, definition: Definition) -> Explanation {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let mut value_problems = Vec::new();
    resolve::resolve(&raw, &inputs.environment, super::Reloader::default(), &mut value_problems);
    problems.extend(value_problems.into_iter().filter(|problem| problem.key() == Some(&definition.key)));
    let (value, origin) = raw.get(&definition.key).map(|entry| (literal(&entry.value), entry.origin.clone())).unzip();
    Explanation {
        value: value.unwrap_or_default(),
        origin: super::problem::escape_control(&origin.unwrap_or_default()),
        problems: Problems(problems),
        definition,
    }
}

/// A configuration file with every key commented out, and its description.
pub fn template() -> String {
    let is_key = |line: &str| key_name(line).is_some();
    let lines = DEFAULTS.lines().map(|line| if is_key(line) { format!("#{line}\n") } else { format!("{line}\n") });
    format!(
        "# Uncomment a key to set it. Keys that stay commented out use the default of the running version.\n#\n{}",
        lines.collect::<String>()
    )
}

/// A key with its description and example.
struct Comment {
    key: String,
    doc: String,
    example: Option<String>,
}

/// The keys of `toml`, each with the comment above it.
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

/// The name of the key that `line` sets, if it sets one.
fn key_name(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(" = ")?;
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_').then_some(name)
}

#[cfg(test)]
mod tests;
