//! JSON values in the notation of `serde_json::json!`, in much less code.
//!
//! The sandbox has hundreds of them. `serde_json::json!` expands to code for each member; here the whole literal is one text, which the
//! program reads when it is needed, and the code only collects what is not constant.

use std::{slice, str::Lines};

use serde::Serialize;
use serde_json::{Map, Value};

/// A JSON value, in the notation of `serde_json::json!`. Keys are literals.
///
/// `{"id": id, "rows": [1]}` becomes `fill("{\nid\n?\nrows\n[\n1\n.\n.\n", &[&id])`. What a macro's arm has read is in its first two
/// brackets, the text and the values; a comma is put behind the last member of each object and array, and a semicolon for its end.
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

/// What can be a member of a [`json!`] literal: everything that serde can serialise.
pub(super) trait ToJson {
    fn to_json(&self) -> Value;
}

impl<T: Serialize + ?Sized> ToJson for T {
    #[inline(never)]
    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("what the sandbox returns has no maps with other keys than text")
    }
}

/// The value of a [`json!`] literal: a line for each of its tokens, `.` at the end of an object or array, `?` for the next one of `values`.
#[inline(never)]
pub(super) fn fill(template: &'static str, values: &[&dyn ToJson]) -> Value {
    Template { tokens: template.lines(), values: values.iter() }.next().expect("a literal is one value")
}

/// The number that an identifier is; 0 when it is none.
#[inline(never)]
pub(super) fn parse_id(id: &str) -> u64 {
    id.parse().unwrap_or(0)
}

/// The members of a record by name. `Value` has an index for it, whose code would stand at each of some hundred uses.
pub(super) trait Record {
    fn copy(&self) -> Value;

    /// The member `name`; null when it is missing.
    fn at(&self, name: &str) -> &Value;

    /// The member `name`, to be changed; null is added when it is missing.
    fn at_mut(&mut self, name: &str) -> &mut Value;

    /// The text of the member `name`; empty when it is missing or no text.
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
            literal => Some(serde_json::from_str(literal).expect("a literal of Rust is one of JSON")),
        }
    }
}
