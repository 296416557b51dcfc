//! `docs/config.schema.json`: JSON Schema 2020-12.

use std::{ops::RangeInclusive, time::Duration};

use boon::{Compiler, SchemaIndex, Schemas};
use config::{Map, Value as TomlValue, ValueKind};
use serde_json::{Value, json};

use super::{
    super::{DEFAULTS, Definition, Kind, definitions},
    example, parse, value,
};

/// Milliseconds in a unit, and the names of the unit.
const UNITS: [(u64, &str); 5] = [
    (1, "ms|msec|millis"),
    (1_000, "s|secs?|seconds?"),
    (60_000, "m|mins?|minutes?"),
    (3_600_000, "h|hrs?|hours?"),
    (86_400_000, "d|days?"),
];

/// The schema of a configuration file.
pub(super) fn schema(definitions: &[Definition]) -> Value {
    let mut root = section("finicity-proxy: the configuration file");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    for one in definitions {
        let (sections, name) = one.key.rsplit_once('.').unwrap();
        let mut table = &mut root;
        for name in sections.split('.') {
            let properties = table["properties"].as_object_mut().unwrap();
            table = properties.entry(name).or_insert_with(|| section(&format!("[{name}]")));
        }
        let mut schema = schema_of(&one.kind);
        schema["description"] = json!(one.doc);
        schema["default"] = to_json(&value(&one.default));
        schema["examples"] = json!([to_json(&example(one))]);
        table["properties"][name] = schema;
    }
    root
}

fn section(title: &str) -> Value {
    json!({ "title": title, "type": "object", "additionalProperties": false, "properties": {} })
}

fn schema_of(kind: &Kind) -> Value {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number { bounds, word } => {
            let mut number = json!({ "type": "integer", "minimum": bounds.start() });
            if *bounds.end() < usize::MAX {
                number["maximum"] = json!(bounds.end());
            }
            match word {
                Some(word) => json!({ "anyOf": [number, { "const": word }] }),
                None => number,
            }
        }
        Kind::Duration(bounds) => json!({ "type": "string", "pattern": duration_pattern(bounds) }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Text { .. } => json!({ "type": "string" }),
        Kind::List => json!({ "type": ["array", "string"], "items": { "type": ["string", "integer"] } }),
        Kind::Addresses { allow_sockets, is_optional } => {
            let socket = if *allow_sockets { "unix:/.+|" } else { "" };
            let item = json!({ "type": "string", "pattern": format!("^({socket}[^,]*:[0-9]{{1,5}})$") });
            let min = u8::from(!is_optional);
            json!({ "type": ["array", "string"], "minItems": min, "minLength": min, "items": item })
        }
    }
}

/// Matches durations of one whole number and one unit within `bounds`, and all durations with a fraction or several units.
fn duration_pattern(bounds: &RangeInclusive<Duration>) -> String {
    let [min, max] = [bounds.start(), bounds.end()].map(|bound| u64::try_from(bound.as_millis()).unwrap());
    let in_unit = |(length, names): (u64, &str)| {
        let (min, max) = (min.div_ceil(length), max / length);
        (min <= max).then(|| format!("0*({}) *({names})", number_pattern(min, max)))
    };
    let single: Vec<String> = UNITS.into_iter().filter_map(in_unit).collect();
    format!("^({}|[0-9]+\\.[0-9]+ *[a-z]+|([0-9.]+ *[a-z]+ *){{2,}})$", single.join("|"))
}

/// A pattern for the decimal numbers from `min` to `max`.
fn number_pattern(min: u64, max: u64) -> String {
    let mut patterns = Vec::new();
    for digits in min.to_string().len()..=max.to_string().len() {
        let power = 10_u64.pow(u32::try_from(digits).unwrap() - 1);
        let (first, last) = (if digits == 1 { 0 } else { power }, power * 10 - 1);
        patterns.extend(same_length(&min.max(first).to_string(), &max.min(last).to_string()));
    }
    patterns.join("|")
}

/// Patterns for the numbers from `min` to `max`, which have the same number of digits.
fn same_length(min: &str, max: &str) -> Vec<String> {
    let digits = |text: &str| (text[..1].parse::<u8>().unwrap(), text[1..].to_owned());
    let ((first, rest), (last, end)) = (digits(min), digits(max));
    let any = |count: usize| match count {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        _ => format!("[0-9]{{{count}}}"),
    };
    let (zeros, nines) = ("0".repeat(rest.len()), "9".repeat(rest.len()));
    if rest == zeros && end == nines {
        let class = if first == last { first.to_string() } else { format!("[{first}-{last}]") };
        return vec![class + &any(rest.len())];
    }
    let below = |digit: u8, min: &str, max: &str| {
        same_length(min, max).into_iter().map(move |pattern| format!("{digit}{pattern}")).collect::<Vec<_>>()
    };
    if first == last {
        return below(first, &rest, &end);
    }
    let mut patterns = below(first, &rest, &nines);
    if last - first > 1 {
        patterns.push(format!("[{}-{}]{}", first + 1, last - 1, any(rest.len())));
    }
    patterns.extend(below(last, &zeros, &end));
    patterns
}

fn to_json(value: &ValueKind) -> Value {
    match value {
        ValueKind::Boolean(flag) => json!(flag),
        ValueKind::I64(number) => json!(number),
        ValueKind::String(text) => json!(text),
        ValueKind::Array(items) => items.iter().map(|item| to_json(&item.kind)).collect(),
        ValueKind::Table(table) => table_to_json(table),
        other => panic!("{other:?} is not a valid type for a key"),
    }
}

fn table_to_json(table: &Map<String, TomlValue>) -> Value {
    table.iter().map(|(name, value)| (name.clone(), to_json(&value.kind))).collect::<serde_json::Map<_, _>>().into()
}

/// The schema, compiled.
fn compiled() -> (Schemas, SchemaIndex) {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("config.schema.json", schema(&definitions())).unwrap();
    let index = compiler.compile("config.schema.json", &mut schemas).unwrap();
    (schemas, index)
}

#[test]
fn the_schema_accepts_the_defaults_and_every_example() {
    let (schemas, index) = compiled();
    let mut defaults = table_to_json(&parse(DEFAULTS).unwrap());
    schemas.validate(&defaults, index).unwrap();
    for one in definitions() {
        let pointer = format!("/{}", one.key.replace('.', "/"));
        *defaults.pointer_mut(&pointer).unwrap() = to_json(&example(&one));
        assert!(schemas.validate(&defaults, index).is_ok(), "{}", one.key);
    }
}

#[test]
fn the_schema_rejects_unknown_keys_and_invalid_values() {
    let (schemas, index) = compiled();
    let check = |toml: &str, is_valid: bool| {
        let file = table_to_json(&parse(toml).unwrap());
        assert_eq!(schemas.validate(&file, index).is_ok(), is_valid, "{toml}");
    };
    for good in [
        "",
        "[limits]\nqueue = 0",
        "[limits]\nqueue_timeout = \"60s\"",
        "[limits]\nqueue_timeout = \"1m\"",
        "[limits]\nqueue_timeout = \"1s 500ms\"",
        "[limits]\nqueue_timeout = \"0s\"",
        "[runtime]\nworker_threads = 64",
        "[listen]\nproxy = [\"unix:/run/x.sock\", \"[::1]:1\"]",
        "[listen]\nproxy = \"127.0.0.1:1, [::1]:1\"",
        "[listen]\nsocket_uids = [1, 2]",
    ] {
        check(good, true);
    }
    for bad in [
        "[limit]\nqueue = 1",
        "[limits]\nqeue = 1",
        "queue = 1",
        "[limits]\nqueue = -1",
        "[limits]\nqueue = 100001",
        "[limits]\nqueue = true",
        "[limits]\nqueue_timeout = 5",
        "[limits]\nqueue_timeout = \"5\"",
        "[limits]\nqueue_timeout = \"61s\"",
        "[limits]\nqueue_timeout = \"2m\"",
        "[limits]\nqueue_timeout = \"60001ms\"",
        "[limits]\nqueue_timeout = \"1h\"",
        "[limits]\nheader_timeout = \"999ms\"",
        "[runtime]\nworker_threads = 65",
        "[runtime]\nworker_threads = \"many\"",
        "[listen]\nproxy = []",
        "[listen]\nops = [\"unix:/run/x.sock\"]",
        "[listen]\nallow_remote = \"yes\"",
        "[log]\nformat = \"xml\"",
    ] {
        check(bad, false);
    }
}

#[test]
fn a_range_of_numbers_is_a_pattern() {
    for (min, max) in [(0, 0), (0, 9), (1, 60), (7, 1234), (100, 60_000), (999, 1001), (1_000, 3_600_000), (19, 91)] {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let pattern = format!("^({})$", number_pattern(min, max));
        compiler.add_resource("range.json", json!({ "pattern": pattern })).unwrap();
        let index = compiler.compile("range.json", &mut schemas).unwrap();
        let near = [min, max].into_iter().flat_map(|bound| bound.saturating_sub(30)..bound + 30);
        for number in near.chain([5, 42, 777, 5_000, 1_000_000]) {
            let is_valid = schemas.validate(&json!(number.to_string()), index).is_ok();
            assert_eq!(is_valid, (min..=max).contains(&number), "{number} in {pattern}");
        }
    }
}
