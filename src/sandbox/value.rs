//! JSON values from literals, as `serde_json::json!` makes them, in much less code: each member is one call of a function that is not
//! inlined. The sandbox has hundreds of them, and `json!` of each would make the program a megabyte larger.

use serde::Serialize;
use serde_json::{Map, Value};

/// A JSON value, in the notation of `serde_json::json!`. Keys are literals or variables.
macro_rules! value {
    (null) => { serde_json::Value::Null };
    ([ $($items:tt)* ]) => {{
        #[allow(unused_mut, clippy::vec_init_then_push, clippy::allow_attributes_without_reason)]
        let items = { let mut items: Vec<serde_json::Value> = Vec::new(); $crate::sandbox::value::json!(@items items $($items)*); items };
        serde_json::Value::Array(items)
    }};
    ({ $($members:tt)* }) => {{
        #[allow(unused_mut, clippy::allow_attributes_without_reason)]
        let members = { let mut members = serde_json::Map::new(); $crate::sandbox::value::json!(@members members $($members)*); members };
        serde_json::Value::Object(members)
    }};
    (@items $list:ident) => {};
    (@items $list:ident { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $list.push($crate::sandbox::value::json!({ $($inner)* }));
        $($crate::sandbox::value::json!(@items $list $($rest)*);)?
    };
    (@items $list:ident $item:expr $(, $($rest:tt)*)?) => {
        $list.push($crate::sandbox::value::of(&$item));
        $($crate::sandbox::value::json!(@items $list $($rest)*);)?
    };
    (@members $map:ident) => {};
    (@members $map:ident $key:ident : $value:expr $(, $($rest:tt)*)?) => {
        $crate::sandbox::value::add(&mut $map, $key, $crate::sandbox::value::of(&$value));
        $($crate::sandbox::value::json!(@members $map $($rest)*);)?
    };
    (@members $map:ident $key:literal : null $(, $($rest:tt)*)?) => {
        $crate::sandbox::value::add(&mut $map, $key, serde_json::Value::Null);
        $($crate::sandbox::value::json!(@members $map $($rest)*);)?
    };
    (@members $map:ident $key:literal : { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $crate::sandbox::value::add(&mut $map, $key, $crate::sandbox::value::json!({ $($inner)* }));
        $($crate::sandbox::value::json!(@members $map $($rest)*);)?
    };
    (@members $map:ident $key:literal : [ $($inner:tt)* ] $(, $($rest:tt)*)?) => {
        $crate::sandbox::value::add(&mut $map, $key, $crate::sandbox::value::json!([ $($inner)* ]));
        $($crate::sandbox::value::json!(@members $map $($rest)*);)?
    };
    (@members $map:ident $key:literal : $value:expr $(, $($rest:tt)*)?) => {
        $crate::sandbox::value::add(&mut $map, $key, $crate::sandbox::value::of(&$value));
        $($crate::sandbox::value::json!(@members $map $($rest)*);)?
    };
    ($value:expr) => { $crate::sandbox::value::of(&$value) };
}
pub(super) use value as json;

/// `value` as JSON.
#[inline(never)]
pub(super) fn of<T: Serialize + ?Sized>(value: &T) -> Value {
    serde_json::to_value(value).expect("what the sandbox returns has no maps with other keys than text")
}

/// Adds a member to `map`.
#[inline(never)]
pub(super) fn add(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}
