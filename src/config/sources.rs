//! Merges the sources of the configuration: built-in defaults, the container image's defaults, a file, the environment, flags. A later
//! source overrides an earlier one.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use config::{File, FileFormat, Map, Source as _, Value, ValueKind};

use super::{
    Environment, Problem,
    environment::{FILE_VARIABLE, image_variable, variable},
    problem::escape_control,
};
use crate::{
    credentials,
    secret::{Secret, ShownPath},
};

/// The defaults, which are also the list of all keys.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Characters of a line break.
const LINE_BREAKS: [char; 2] = ['\r', '\n'];

/// Length that no key exceeds.
const MAX_KEY_BYTES: usize = 100;

/// The sources to read in addition to the built-in defaults.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
    /// Keys set by `--set`, in order.
    pub flags: Vec<(String, String)>,
}

/// The merged keys, each with its value and its origin.
#[derive(Clone, Debug, Default)]
pub struct Raw(BTreeMap<String, Entry>);

/// One key's value as written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: ValueKind,
    pub(super) origin: String,
    /// Whether the value is the container image's default, not the operator's.
    pub(super) is_image_default: bool,
}

impl Entry {
    /// Removes line breaks at the end of text: ConfigMaps, files and `$(…)` add them, whatever the type of the key.
    fn new(value: impl Into<ValueKind>, origin: impl Into<String>) -> Self {
        Self { value: without_line_breaks(value.into()), origin: origin.into(), is_image_default: false }
    }
}

/// `value` without line breaks at the end of each text in it.
fn without_line_breaks(value: ValueKind) -> ValueKind {
    match value {
        ValueKind::String(text) => ValueKind::String(text.trim_end_matches(LINE_BREAKS).to_owned()),
        ValueKind::Array(mut items) => {
            for item in &mut items {
                item.kind = without_line_breaks(std::mem::replace(&mut item.kind, ValueKind::Nil));
            }
            ValueKind::Array(items)
        }
        other => other,
    }
}

impl Raw {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// The keys, except `except`, that have a different value in `other`.
    pub(super) fn changed_in(&self, other: &Self, except: &str) -> Vec<String> {
        let is_changed = |(key, entry): &(&String, &Entry)| {
            key.as_str() != except && other.get(key).is_some_and(|other| other.value != entry.value)
        };
        self.0.iter().filter(is_changed).map(|(key, _)| key.clone()).collect()
    }

    /// Only the keys that differ in meaning from the built-in default: `"1000ms"` and `"1s"` are equal.
    #[must_use]
    pub fn changed(&self) -> Self {
        let defaults = defaults();
        let is_changed = |(key, entry): &(&String, &Entry)| {
            !defaults.get(key).is_some_and(|default| is_same(&default.value, &entry.value))
        };
        Self(self.0.iter().filter(is_changed).map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All keys.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// The keys as TOML, each with its origin.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, entry) in &self.0 {
            let (prefix, name) = key.split_once('.').unwrap_or(("", key));
            if prefix != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                text += &format!("{gap}[{prefix}]\n");
                section = prefix;
            }
            text += &format!("{name} = {} # {}\n", literal(&entry.value), escape_control(&entry.origin));
        }
        text
    }
}

/// Whether `value` means the same as `default`: `"1000ms"` equals `"1s"`, and `"256"` equals 256.
fn is_same(default: &ValueKind, value: &ValueKind) -> bool {
    match (default, value) {
        (ValueKind::I64(number), ValueKind::String(text)) => text.parse() == Ok(*number),
        (ValueKind::Boolean(flag), ValueKind::String(text)) => text.parse() == Ok(*flag),
        (ValueKind::Array(_), _) => list_items(default) == list_items(value),
        (ValueKind::String(default), ValueKind::String(value)) => {
            let durations = [default, value].map(|text| humantime::parse_duration(text).ok());
            default == value || (durations[0].is_some() && durations[0] == durations[1])
        }
        _ => default == value,
    }
}

/// The items of a list, or of text that separates them by commas. `None` for other types.
pub(super) fn list_items(value: &ValueKind) -> Option<Vec<String>> {
    let text = |value: &ValueKind| match value {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::I64(number) => Some(number.to_string()),
        _ => None,
    };
    match value {
        ValueKind::String(items) => {
            let items = items.split(',').map(|item| item.trim().to_owned());
            Some(items.filter(|item| !item.is_empty()).collect())
        }
        ValueKind::Array(items) => items.iter().map(|item| text(&item.kind)).collect(),
        item => text(item).map(|item| vec![item]),
    }
}

/// `value` as TOML, with possible secrets redacted.
pub(super) fn literal(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) if contains_secret(text) => quoted("[redacted]"),
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(|item| literal(&item.kind)).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether `text` contains a misplaced secret: a PEM block, or a password in a URL.
fn contains_secret(text: &str) -> bool {
    let authority = |rest: &str| rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'));
    text.contains("-----BEGIN") || text.split("://").skip(1).any(authority)
}

/// `text` as a TOML basic string. Its escapes differ from Rust's.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted += &format!("\\u{:04X}", u32::from(character)),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// The built-in defaults of all keys.
pub(super) fn defaults() -> Raw {
    let defaults = parse(DEFAULTS).expect("the built-in defaults are valid TOML");
    Raw(entries(&defaults, "the built-in default"))
}

/// Reads and merges all sources. Adds problems to `problems` and merges the rest, so that all problems are reported together.
pub(super) fn merge(inputs: &Inputs, problems: &mut Vec<Problem>) -> Raw {
    let mut raw = defaults();
    let keys: Vec<String> = raw.0.keys().cloned().collect();

    for (key, value) in inputs.environment.image_defaults() {
        let entry = Entry { is_image_default: true, ..Entry::new(value, image_variable(&key)) };
        set(&mut raw, &keys, key, entry, problems);
    }
    for (key, entry) in read_file(inputs, problems) {
        set(&mut raw, &keys, key, entry, problems);
    }
    for (key, value) in inputs.environment.keys() {
        let origin = variable(&key);
        set(&mut raw, &keys, key, Entry::new(value, origin), problems);
    }
    for (key, value) in &inputs.flags {
        set(&mut raw, &keys, key.clone(), Entry::new(value.as_str(), "--set"), problems);
    }

    for (name, expected) in inputs.environment.misspelt(&keys) {
        problems.push(Problem::other(format!(
            "{name}: unknown variable; separate the parts of a key with two underscores: {expected}"
        )));
    }
    for (name, expected) in inputs.environment.near_misses(&keys) {
        problems.push(Problem::other(format!("{name}: unknown variable; did you mean {expected}?")));
    }
    for name in inputs.environment.not_unicode() {
        problems.push(Problem::other(format!("{name} is not valid UTF-8")));
    }
    raw
}

fn set(raw: &mut Raw, keys: &[String], key: String, entry: Entry, problems: &mut Vec<Problem>) {
    if keys.contains(&key) {
        raw.0.insert(key, entry);
    } else {
        problems.push(Problem::for_key(&key, &entry.origin, unknown_key(&key, keys)));
    }
}

/// Why `key` is unknown, with the most similar key if there is one.
pub(super) fn unknown_key(key: &str, keys: &[String]) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let variables = credentials::Field::ALL.map(credentials::Field::variable);
    if let Some(secret) = variables.iter().find(|v| v.to_ascii_lowercase().ends_with(name) && name.len() > 4) {
        return format!(
            "a secret is never part of the configuration: set {secret} or {secret}_FILE in the environment"
        );
    }
    if keys.iter().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))) {
        return "is a section, not a key".to_owned();
    }
    // For a name longer than any key, the edit distance is slow to compute and meaningless.
    if key.len() > MAX_KEY_BYTES {
        return "unknown key; `finicity-proxy config` lists all keys".to_owned();
    }
    let same_name: Vec<&str> =
        keys.iter().filter(|known| known.rsplit('.').next() == Some(name)).map(String::as_str).collect();
    let nearest = keys.iter().map(|known| (strsim::damerau_levenshtein(known, key), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 3 => format!("unknown key; did you mean {known}?"),
        _ if !same_name.is_empty() => format!("unknown key; did you mean {}?", same_name.join(" or ")),
        _ => "unknown key; `finicity-proxy config` lists all keys".to_owned(),
    }
}

fn read_file(inputs: &Inputs, problems: &mut Vec<Problem>) -> BTreeMap<String, Entry> {
    let named = inputs.environment.variables().get(FILE_VARIABLE).map(Secret::expose);
    let named = named.map(|path| path.trim_end_matches(LINE_BREAKS)).filter(|path| !path.is_empty());
    let (path, by) = match (&inputs.file, named) {
        (Some(path), _) => (path.clone(), "--config"),
        (None, Some(path)) => (PathBuf::from(path), FILE_VARIABLE),
        (None, None) => return BTreeMap::new(),
    };
    let shown = ShownPath::new(&path);
    match fs::read_to_string(&path).map(|text| parse(&text)) {
        Ok(Ok(file)) => entries(&file, &shown.to_string()),
        Ok(Err(position)) => {
            problems.push(Problem::other(format!(
                "{shown} (named by {by}) is not valid TOML{position}; no other format is supported"
            )));
            BTreeMap::new()
        }
        Err(error) => {
            let error = if error.kind() == io::ErrorKind::InvalidData {
                "not UTF-8 text".to_owned()
            } else {
                error.to_string()
            };
            problems.push(Problem::other(format!("cannot read {shown} (named by {by}): {error}")));
            BTreeMap::new()
        }
    }
}

/// The tables as written. The builder of the crate `config` is not used: it parses each name as a path, so that `"upstream[9]"` would
/// replace a whole section with a list of that length.
///
/// # Errors
///
/// Position and reason of the syntax error, if the parser gives them. The rest of the parser's message is dropped, because it quotes the
/// text, which may contain a misplaced secret.
pub(super) fn parse(toml: &str) -> Result<Map<String, Value>, String> {
    let located = |message: &str| position(message) + &reason(message);
    File::from_str(toml, FileFormat::Toml).collect().map_err(|error| located(&error.to_string()))
}

/// How the parser's fixed messages begin. What follows is fixed too: the expected syntax, nothing from the file.
const PARSER_REASONS: [&str; 18] = [
    "`_` may only go",
    "cannot recurse further",
    "carriage return must",
    "duplicate key",
    "extra ",
    "integers with a radix",
    "invalid ",
    "key with no value",
    "keys cannot be",
    "missing ",
    "radix must be",
    "recursion limit",
    "redundant ",
    "string values must",
    "too few unicode",
    "unclosed ",
    "unexpected ",
    "unquoted keys cannot",
];

/// The last line of `message`, if it is one of the parser's fixed messages.
fn reason(message: &str) -> String {
    let last = message.trim_end().lines().last().unwrap_or_default();
    let is_known = PARSER_REASONS.iter().any(|known| last.starts_with(known)) && message.lines().count() > 3;
    if is_known { format!(": {last}") } else { String::new() }
}

/// Line and column from "TOML parse error at line 2, column 7". Everything else in `message` is dropped.
fn position(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let number = |before: &str| {
        let after = first.split_once(before)?.1;
        after[..after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())].parse::<u32>().ok()
    };
    match (number("at line "), number(", column ")) {
        (Some(line), Some(column)) => format!(", line {line}, column {column}"),
        _ => String::new(),
    }
}

fn entries(table: &Map<String, Value>, origin: &str) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    flatten("", table, origin, &mut entries);
    entries
}

fn flatten(prefix: &str, table: &Map<String, Value>, origin: &str, entries: &mut BTreeMap<String, Entry>) {
    for (name, value) in table {
        // A quoted name with a dot is a single name, and must not set the key of a section.
        let name = if name.contains('.') { quoted(name) } else { name.clone() };
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match &value.kind {
            ValueKind::Table(table) => flatten(&key, table, origin, entries),
            kind => drop(entries.insert(key, Entry::new(kind.clone(), origin))),
        }
    }
}
