//! Validation of requests against a short notation that stands next to each operation.
//!
//! Example: `customerId*:s limit:i(1,1000) email*:{to*:s signature:[s]}`. Each member has a type; `*` marks required members. The types are
//! `s` text, `i` integer, `n` number, `p` number above 0, `b` boolean, `o` any object, `d` date, `t` date and time, `u` absolute URI,
//! `g` UUID, `e(A|B)` one of these words, `{…}` an object and `[…]` an array. `(minimum,maximum)` after `s`, `i`, `n` or `]` limits the
//! length, value or number of items; either can be omitted. Unknown members are accepted, as by the vendor.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{dates, reply::Failure};

/// Checks `body` against `spec`.
///
/// # Errors
///
/// The first missing or invalid member, with its path.
pub(super) fn check_body(spec: &str, body: &Value) -> Result<(), Failure> {
    let members = Parser { rest: spec }.members();
    match body {
        Value::Object(object) => check_members(&members, object, ""),
        Value::Null if members.iter().all(|member| !member.required) => Ok(()),
        _ => Err(Failure::invalid("body", "a JSON object")),
    }
}

/// Checks the parameters of a query against `spec`. Empty values count as missing.
///
/// # Errors
///
/// The first missing or invalid parameter.
pub(super) fn check_query(spec: &str, query: &[(String, String)]) -> Result<(), Failure> {
    let members = Parser { rest: spec }.members();
    let mut object = Map::new();
    for (name, text) in query.iter().filter(|(_, text)| !text.is_empty()) {
        let kind = members.iter().find(|member| member.name == name).map(|member| &member.kind);
        let value = match kind {
            Some(Kind::Integer(..)) => text.parse::<i64>().ok().map(Value::from),
            Some(Kind::Number { .. }) => text.parse::<f64>().ok().map(Value::from),
            Some(Kind::Boolean) => text.parse::<bool>().ok().map(Value::from),
            _ => None,
        };
        object.insert(name.clone(), value.unwrap_or_else(|| Value::from(text.as_str())));
    }
    check_members(&members, &object, "")
}

struct Member<'a> {
    name: &'a str,
    required: bool,
    kind: Kind<'a>,
}

/// Minimum and maximum.
type Limits = (Option<i64>, Option<i64>);

enum Kind<'a> {
    Text(Limits),
    Integer(Limits),
    Number { limits: Limits, positive: bool },
    Boolean,
    Date,
    DateTime,
    Uri,
    Uuid,
    OneOf(&'a str),
    AnyObject,
    Object(Vec<Member<'a>>),
    Array(Box<Kind<'a>>, Limits),
}

/// Parses the notation.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn members(&mut self) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.is_empty() || self.skip('}') {
                return members;
            }
            let (name, rest) = self.rest.split_once(':').expect("a test parses every notation");
            self.rest = rest;
            let kind = self.kind();
            let required = name.ends_with('*');
            members.push(Member { name: name.trim_end_matches('*'), required, kind });
        }
    }

    fn kind(&mut self) -> Kind<'a> {
        let mut characters = self.rest.chars();
        let letter = characters.next().unwrap_or(' ');
        self.rest = characters.as_str();
        match letter {
            's' => Kind::Text(self.limits()),
            'i' => Kind::Integer(self.limits()),
            'n' => Kind::Number { limits: self.limits(), positive: false },
            'p' => Kind::Number { limits: (None, None), positive: true },
            'b' => Kind::Boolean,
            'd' => Kind::Date,
            't' => Kind::DateTime,
            'u' => Kind::Uri,
            'g' => Kind::Uuid,
            'o' => Kind::AnyObject,
            'e' => Kind::OneOf(self.in_brackets().unwrap_or("")),
            '{' => Kind::Object(self.members()),
            '[' => {
                let item = self.kind();
                assert!(self.skip(']'), "a test parses every notation");
                Kind::Array(Box::new(item), self.limits())
            }
            other => panic!("unknown type {other}; a test parses every notation"),
        }
    }

    fn limits(&mut self) -> Limits {
        let Some((minimum, maximum)) = self.in_brackets().and_then(|text| text.split_once(',')) else {
            return (None, None);
        };
        (minimum.parse().ok(), maximum.parse().ok())
    }

    fn in_brackets(&mut self) -> Option<&'a str> {
        let (inside, rest) = self.rest.strip_prefix('(')?.split_once(')')?;
        self.rest = rest;
        Some(inside)
    }

    fn skip(&mut self, expected: char) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

fn check_members(members: &[Member], object: &Map<String, Value>, path: &str) -> Result<(), Failure> {
    for member in members {
        let path = if path.is_empty() { member.name.to_owned() } else { format!("{path}.{}", member.name) };
        match object.get(member.name) {
            None | Some(Value::Null) if member.required => return Err(Failure::missing(&path)),
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if member.required && text.is_empty() => return Err(Failure::missing(&path)),
            Some(value) => check(&member.kind, value, &path)?,
        }
    }
    Ok(())
}

fn check(kind: &Kind, value: &Value, path: &str) -> Result<(), Failure> {
    let text = value.as_str();
    let expected: Cow<'_, str> = match kind {
        Kind::Text(limits) => match text {
            Some(text) if within(*limits, text.chars().count()) => return Ok(()),
            Some(_) => format!("text of {} characters", range(*limits)).into(),
            None => "text".into(),
        },
        Kind::Integer(limits) => match value.as_i64() {
            Some(number) if within(*limits, number) => return Ok(()),
            Some(_) => format!("a number of {}", range(*limits)).into(),
            None => "an integer".into(),
        },
        Kind::Number { limits, positive } => match value.as_f64() {
            Some(number) if *positive && number <= 0.0 => "a number above 0".into(),
            #[expect(clippy::cast_possible_truncation, reason = "limits are whole numbers")]
            Some(number) if !within(*limits, number as i64) => format!("a number of {}", range(*limits)).into(),
            Some(_) => return Ok(()),
            None => "a number".into(),
        },
        Kind::Boolean if value.is_boolean() => return Ok(()),
        Kind::Boolean => "true or false".into(),
        Kind::Date if text.is_some_and(dates::is_date) => return Ok(()),
        Kind::Date => "a date as YYYY-MM-DD".into(),
        Kind::DateTime if text.is_some_and(|text| text.get(..10).is_some_and(dates::is_date) && text.contains('T')) => {
            return Ok(());
        }
        Kind::DateTime => "a date and time as YYYY-MM-DDThh:mm:ssZ".into(),
        Kind::Uri if text.is_some_and(|text| text.contains("://")) => return Ok(()),
        Kind::Uri => "an absolute URI".into(),
        Kind::Uuid if text.is_some_and(is_uuid) => return Ok(()),
        Kind::Uuid => "a UUID".into(),
        Kind::OneOf(words) if text.is_some_and(|text| words.split('|').any(|word| word == text)) => return Ok(()),
        Kind::OneOf(words) => format!("one of {}", words.replace('|', ", ")).into(),
        Kind::AnyObject if value.is_object() => return Ok(()),
        Kind::AnyObject => "an object".into(),
        Kind::Object(members) => match value.as_object() {
            Some(object) => return check_members(members, object, path),
            None => "an object".into(),
        },
        Kind::Array(item, limits) => match value.as_array() {
            Some(items) if within(*limits, items.len()) => {
                return items
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, value)| check(item, value, &format!("{path}[{at}]")));
            }
            Some(_) => format!("an array of {} items", range(*limits)).into(),
            None => "an array".into(),
        },
    };
    Err(Failure::invalid(path, &expected))
}

fn within(limits: Limits, value: impl TryInto<i64>) -> bool {
    let value = value.try_into().unwrap_or(i64::MAX);
    limits.0.is_none_or(|minimum| value >= minimum) && limits.1.is_none_or(|maximum| value <= maximum)
}

fn range(limits: Limits) -> String {
    match limits {
        (Some(minimum), Some(maximum)) => format!("{minimum} to {maximum}"),
        (Some(minimum), None) => format!("at least {minimum}"),
        (None, Some(maximum)) => format!("at most {maximum}"),
        (None, None) => "any".to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_hexdigit() { 'x' } else { c }).collect();
    shape == "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: &str, body: Value, expected: Option<&str>) {
        let message = check_body(spec, &body).err().map(|failure| failure.message);
        assert_eq!(message.as_deref(), expected, "{body}");
    }

    #[test]
    fn missing_and_invalid_members_are_reported_by_path() {
        let spec = "a*:s(1,3) b:i(1,) c:{d*:p e:[{f*:g}](1,2)} k:e(X|Y) t:t";
        check(spec, json!({}), Some("Missing parameter (a)"));
        check(spec, json!({"a": null}), Some("Missing parameter (a)"));
        check(spec, json!({"a": ""}), Some("Missing parameter (a)"));
        check(spec, json!({"a": 1}), Some("Invalid parameter (a): text"));
        check(spec, json!({"a": "four"}), Some("Invalid parameter (a): text of 1 to 3 characters"));
        check(spec, json!({"a": "x", "b": 0}), Some("Invalid parameter (b): a number of at least 1"));
        check(spec, json!({"a": "x", "b": "1"}), Some("Invalid parameter (b): an integer"));
        check(spec, json!({"a": "x", "c": {}}), Some("Missing parameter (c.d)"));
        check(spec, json!({"a": "x", "c": {"d": 0}}), Some("Invalid parameter (c.d): a number above 0"));
        check(
            spec,
            json!({"a": "x", "c": {"d": 1, "e": []}}),
            Some("Invalid parameter (c.e): an array of 1 to 2 items"),
        );
        check(spec, json!({"a": "x", "c": {"d": 1, "e": [{}]}}), Some("Missing parameter (c.e[0].f)"));
        check(spec, json!({"a": "x", "c": {"d": 1, "e": [{"f": "1"}]}}), Some("Invalid parameter (c.e[0].f): a UUID"));
        check(spec, json!({"a": "x", "k": "Z"}), Some("Invalid parameter (k): one of X, Y"));
        check(
            spec,
            json!({"a": "x", "t": "noon"}),
            Some("Invalid parameter (t): a date and time as YYYY-MM-DDThh:mm:ssZ"),
        );
        check(spec, json!([]), Some("Invalid parameter (body): a JSON object"));
        check(spec, json!({"a": "x", "b": null, "unknown": 1, "t": "2026-01-31T00:00:00Z"}), None);
        check("a:s", Value::Null, None);
    }

    #[test]
    fn query_parameters_must_have_the_types() {
        let query = |text: &str| form_urlencoded::parse(text.as_bytes()).into_owned().collect::<Vec<_>>();
        let spec = "fromDate*:i limit:i(1,1000) live:b";
        assert!(check_query(spec, &query("fromDate=1&limit=1000&live=true&other=x&limit2=")).is_ok());
        for wrong in ["", "fromDate=", "fromDate=x", "fromDate=1&limit=0", "fromDate=1&live=yes"] {
            assert!(check_query(spec, &query(wrong)).is_err(), "{wrong}");
        }
    }
}
