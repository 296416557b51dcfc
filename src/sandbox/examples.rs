//! Example bodies for operations with little state, from `examples.json`, and their placeholders.
//!
//! A string that starts with `$` or `#` is a placeholder. `$now` is the time in epoch seconds, `$date` a date and `$time` a date and time;
//! each can have a suffix of `+N` or `-N` days. `$uuid`, `$id` and `#id` are identifiers as a UUID, as digits and as a number, the same for
//! equal requests. A member with the name of a path parameter (`customerId`) gets its value, in the type of the example.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::{
    dates,
    value::{Record as _, parse_id},
    world::World,
};

/// Names and values of the path parameters.
type Params = [(String, String)];

static EXAMPLES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).expect("a test parses the examples"));

/// The example `name`, with its placeholders not yet filled in.
///
/// # Panics
///
/// When there is no such example. A test calls every operation.
pub(super) fn get(name: &str) -> Value {
    EXAMPLES.get(name).map(Value::copy).unwrap_or_else(|| panic!("no example {name}"))
}

/// Fills in the placeholders of `value` and the members named in `params`.
pub(super) fn fill(value: &mut Value, world: &World, params: &Params) {
    let path: Vec<&str> = params.iter().map(|(_, value)| value.as_str()).collect();
    fill_at(value, "", world, params, &path.join("/"));
}

fn fill_at(value: &mut Value, name: &str, world: &World, params: &Params, path: &str) {
    let param = params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                fill_at(member, name, world, params, path);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill_at(item, name, world, params, path)),
        Value::String(text) if text.starts_with(['$', '#']) => *value = placeholder(text, world, &[path, name]),
        Value::String(text) => {
            if let Some(param) = param {
                param.clone_into(text);
            }
        }
        Value::Number(_) => {
            if let Some(number) = param.and_then(|param| param.parse::<u64>().ok()) {
                *value = Value::from(number);
            }
        }
        _ => {}
    }
}

fn placeholder(text: &str, world: &World, key: &[&str]) -> Value {
    let end = text.find(['+', '-']).unwrap_or(text.len());
    let at = world.now() + text[end..].parse::<i64>().unwrap_or(0) * dates::DAY;
    match &text[..end] {
        "$now" => Value::from(at),
        "$date" => Value::from(dates::date(at)),
        "$time" => Value::from(dates::date_time(at)),
        "$uuid" => Value::from(world.uuid(key)),
        "$id" => Value::from(world.new_id("", key)),
        "#id" => Value::from(parse_id(&world.new_id("", key))),
        _ => Value::from(text),
    }
}
