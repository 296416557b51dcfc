//! The definitions are complete, and `docs/configuration.md` and `docs/config.schema.json` are generated from them. After a change, run
//! `UPDATE=1 cargo test --lib definition`.

mod reference;
mod schema;

use std::{collections::BTreeSet, fs, path::Path};

use config::{Map, Value, ValueKind};

use super::*;
use crate::config::{Environment, load_raw, sources::parse};

/// Asserts that the project's file `path` contains `text`. With `UPDATE=1`, writes it first.
#[expect(
    clippy::disallowed_methods,
    reason = "UPDATE controls this test and is not part of the program's configuration"
)]
fn check_file(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(&file, text).unwrap();
    }
    let is_current = fs::read_to_string(file).is_ok_and(|current| current == text);
    assert!(is_current, "{path} is outdated: run UPDATE=1 cargo test --lib definition");
}

/// The value of the TOML literal `toml`.
fn value(toml: &str) -> ValueKind {
    let mut table: Map<String, Value> = parse(&format!("value = {toml}")).unwrap();
    table.remove("value").unwrap().kind
}

/// `value` as it is written in an environment variable.
fn as_text(value: &ValueKind) -> String {
    match value {
        ValueKind::Array(items) => items.iter().map(|item| as_text(&item.kind)).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The example, or the default if there is no example.
fn example(definition: &Definition) -> ValueKind {
    value(definition.example.as_ref().unwrap_or(&definition.default))
}

#[test]
fn every_key_has_a_definition_with_a_comment_and_an_example() {
    let definitions = definitions();
    let defined: BTreeSet<&str> = definitions.iter().map(|one| one.key.as_str()).collect();
    let raw = sources::defaults();
    let keys: BTreeSet<&str> = raw.keys().map(String::as_str).collect();
    assert_eq!(defined, keys, "a key has no comment, or is never read");
    for one in &definitions {
        assert!(one.doc.len() > 10, "{} has no comment in config/default.toml", one.key);
        let is_empty = matches!(one.default.as_str(), "\"\"" | "[]");
        assert!(
            !is_empty || one.example.is_some(),
            "config/default.toml: the comment of {} needs a line `# Example: name = value`, since its default is empty",
            one.key
        );
    }
}

#[test]
fn every_example_is_valid_in_a_file_and_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    for one in definitions() {
        let example = example(&one);
        // Loading may read the file at a path.
        if as_text(&example).starts_with('/') {
            continue;
        }
        let (section, name) = one.key.rsplit_once('.').unwrap();
        fs::write(&file, format!("[{section}]\n{name} = {}\n", literal(&example))).unwrap();
        let variables = [(one.variable(), as_text(&example))];
        for inputs in [
            Inputs { file: Some(file.clone()), ..Inputs::default() },
            Inputs { environment: variables.into_iter().collect(), ..Inputs::default() },
        ] {
            let explanation = explain(&inputs, one.clone());
            assert_eq!(explanation.problems.0, [], "{}", one.key);
            assert_ne!(explanation.origin, "the built-in default", "{}", one.key);
        }
    }
}

#[test]
fn the_reference_is_generated_from_the_definitions() {
    check_file("docs/configuration.md", &reference::markdown(&definitions()));
}

#[test]
fn the_schema_is_generated_from_the_definitions() {
    let text = serde_json::to_string_pretty(&schema::schema(&definitions())).unwrap();
    check_file("docs/config.schema.json", &format!("{text}\n"));
}

#[test]
fn explain_reports_value_origin_and_problems() {
    let environment: Environment =
        [("FINICITY__LIMITS__QUEUE", "-1"), ("FINICITY__LIMITS__HEADERS", "9")].into_iter().collect();
    let inputs = Inputs { environment, flags: vec![("log.levle".to_owned(), "x".to_owned())], ..Inputs::default() };
    let explained = |key: &str| explain(&inputs, find(key).unwrap().remove(0));
    let queue = explained("limits.queue");
    assert_eq!((queue.value.as_str(), queue.origin.as_str()), ("\"-1\"", "FINICITY__LIMITS__QUEUE"));
    assert_eq!(queue.definition.kind.to_string(), "whole number from 0 to 100000");
    let problems = queue.problems.to_string();
    assert!(queue.problems.0.len() == 2 && problems.contains("must be a whole number"), "{problems}");
    assert!(problems.contains("did you mean log.level?"), "{problems}");
    assert_eq!(explained("FINICITY__LIMITS__HEADERS").problems.0.len(), 1, "the problem of the other key is omitted");
}

#[test]
fn a_key_is_found_by_name_variable_or_section() {
    for (name, count) in
        [("limits.queue", 1), ("FINICITY__LIMITS__QUEUE", 1), ("FINICITY_IMAGE__ADMIN__SOCKET", 1), ("shutdown", 2)]
    {
        assert_eq!(find(name).map(|found| found.len()), Ok(count), "{name}");
    }
    for (name, meant) in [
        ("limits.queu", "did you mean limits.queue?"),
        ("queue", "did you mean limits.queue?"),
        ("client_secret", "a secret is never part of the configuration"),
        ("lim", "unknown key; `finicity-proxy config` lists all keys"),
        ("", "unknown key"),
    ] {
        assert!(find(name).unwrap_err().contains(meant), "{name}: {:?}", find(name).err());
    }
}

#[test]
fn only_values_that_differ_in_meaning_count_as_changed() {
    let changed = |key: &str, value: &str| {
        let inputs = Inputs { flags: vec![(key.to_owned(), value.to_owned())], ..Inputs::default() };
        !load_raw(&inputs).unwrap().changed().is_empty()
    };
    for (key, same, other) in [
        ("limits.queue", "256", "257"),
        ("limits.queue_timeout", "1000ms", "1001ms"),
        ("listen.allow_remote", "false", "true"),
        ("listen.proxy", "127.0.0.1:3464, [::1]:3464", "127.0.0.1:3464"),
        ("guard.hosts", "", "a"),
        ("auth.scheme", "auto", "oauth2"),
        ("runtime.worker_threads", "auto", "2"),
    ] {
        assert!(!changed(key, same) && changed(key, other), "{key}");
    }
    assert!(load_raw(&Inputs::default()).unwrap().changed().is_empty());
}

#[test]
fn the_template_sets_no_key_and_contains_every_default() {
    /// Whether `table` contains no values, at any depth.
    fn is_empty(table: &Map<String, Value>) -> bool {
        table.values().all(|value| matches!(&value.kind, ValueKind::Table(table) if is_empty(table)))
    }
    let template = template();
    assert!(is_empty(&parse(&template).unwrap()));
    let is_key = |line: &str| line.strip_prefix('#').is_some_and(|line| key_name(line).is_some());
    let lines = template.lines().map(|line| if is_key(line) { &line[1..] } else { line });
    let uncommented = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(parse(&uncommented).unwrap(), parse(DEFAULTS).unwrap());
}
