//! JSON literals and records, optimised for code size.
//!
//! The sandbox has hundreds of literals. `serde_json::json!` generates code for each member. The macro here turns a literal into a text
//! template, which is parsed at run time, and a list of the values that are not constant.

use std::{slice, str::Lines};

use serde::Serialize;
use serde_json::{Map, Value};

/// A JSON value, in the notation of `serde_json::json!`. Keys are literals.
///
/// `{"id": id, "rows": [1]}` becomes `fill("{\nid\n?\nrows\n[\n1\n.\n.\n", &[&id])`. The arms that start with `@` collect the template and
/// the values in their first two brackets. The end of each object and array is marked by a comma and a semicolon.
macro_rules! value {
    ({ $($members:tt)* }) => { $crate::sandbox::value::json!(@ ["{\n",] [] $($members)*, ;) };
    ([ $($items:tt)* ]) => { $crate::sandbox::value::json!(@ ["[\n",] [] $($items)*, ;) };
    (@ [$($text:tt)*] [$($values:tt)*]) => { $crate::sandbox::value::fill(concat!($($text)*), &[$($values)*]) };
    (@ [$($text:tt)*] [$($values:tt)*] , $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)*] [$($values)*] $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] ; $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* ".\n",] [$($values)*] $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $key:literal : null $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* $key, "\nnull\n",] [$($values)*] $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $key:literal : { $($members:tt)* } $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* $key, "\n{\n",] [$($values)*] $($members)*, ; $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $key:literal : [ $($items:tt)* ] $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* $key, "\n[\n",] [$($values)*] $($items)*, ; $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $key:literal : $value:literal, $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* $key, "\n", stringify!($value), "\n",] [$($values)*] $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $key:literal : $value:expr, $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* $key, "\n?\n",] [$($values)* &$value,] $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] { $($members:tt)* } $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* "{\n",] [$($values)*] $($members)*, ; $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $value:literal, $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* stringify!($value), "\n",] [$($values)*] $($rest)*)
    };
    (@ [$($text:tt)*] [$($values:tt)*] $value:expr, $($rest:tt)*) => {
        $crate::sandbox::value::json!(@ [$($text)* "?\n",] [$($values)* &$value,] $($rest)*)
    };
    ($value:expr) => { $crate::sandbox::value::ToJson::to_json(&$value) };
}
pub(super) use value as json;

/// A value in a [`json!`] literal. Implemented for everything that serde can serialise.
pub(super) trait ToJson {
    fn to_json(&self) -> Value;
}

impl<T: Serialize + ?Sized> ToJson for T {
    #[inline(never)]
    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("the sandbox serialises only maps with text keys")
    }
}

/// Parses the template of a [`json!`] literal. It has one token a line: `.` ends an object or array, `?` is the next one of `values`.
#[inline(never)]
pub(super) fn fill(template: &'static str, values: &[&dyn ToJson]) -> Value {
    Template { tokens: template.lines(), values: values.iter() }.next().expect("a template is one value")
}

/// An identifier as a number; 0 when it is not a number.
#[inline(never)]
pub(super) fn parse_id(id: &str) -> u64 {
    id.parse().unwrap_or(0)
}

/// Access to the members of a record. Unlike the index of `Value`, it is not inlined at each of its hundreds of uses.
pub(super) trait Record {
    /// A clone of the value.
    fn copy(&self) -> Value;

    /// The member `name`; null when it is missing.
    fn at(&self, name: &str) -> &Value;

    /// The member `name`, mutable; added as null when it is missing.
    fn at_mut(&mut self, name: &str) -> &mut Value;

    /// The string member `name`; empty when it is missing or not a string.
    fn text(&self, name: &str) -> &str;

    /// Whether the member `name` is true.
    fn flag(&self, name: &str) -> bool;

    /// Adds or replaces the member `name`.
    fn set(&mut self, name: &str, value: &dyn ToJson);
}

impl Record for Value {
    #[inline(never)]
    fn copy(&self) -> Value {
        self.clone()
    }

    #[inline(never)]
    fn at(&self, name: &str) -> &Value {
        &self[name]
    }

    #[inline(never)]
    fn at_mut(&mut self, name: &str) -> &mut Value {
        &mut self[name]
    }

    #[inline(never)]
    fn text(&self, name: &str) -> &str {
        self[name].as_str().unwrap_or("")
    }

    #[inline(never)]
    fn flag(&self, name: &str) -> bool {
        self[name] == true
    }

    #[inline(never)]
    fn set(&mut self, name: &str, value: &dyn ToJson) {
        self[name] = value.to_json();
    }
}

struct Template<'a> {
    tokens: Lines<'static>,
    values: slice::Iter<'a, &'a dyn ToJson>,
}

impl Iterator for Template<'_> {
    type Item = Value;

    /// The next value; `None` at the end of an object or array.
    fn next(&mut self) -> Option<Value> {
        match self.tokens.next()? {
            "." => None,
            "?" => Some(self.values.next()?.to_json()),
            "[" => Some(self.by_ref().collect()),
            "{" => {
                let mut members = Map::new();
                while let Some(name) = self.tokens.next().filter(|name| *name != ".") {
                    members.insert(name.to_owned(), self.next()?);
                }
                Some(Value::Object(members))
            }
            literal => Some(serde_json::from_str(literal).expect("the literals in use are also JSON")),
        }
    }
}
