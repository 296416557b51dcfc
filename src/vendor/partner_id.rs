//! Adds the member `partnerId` to the JSON body of a Connect call, by inserting bytes instead of reserialising the body.
//!
//! Connect generates links for a partner, and the vendor reads the partner's identifier from the body. Clients of this proxy do not know it.
//!
//! Deliberately absent: byte order marks, which JSON texts must not have (RFC 8259, 8.1), and encodings other than UTF-8.

use std::{fmt, str};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// The member's name.
const NAME: &str = "partnerId";

/// `body` with the member `partnerId`, of value `id`, inserted before its first member. All other bytes are unchanged. `None` if `body` is
/// not a single JSON object, or already has such a member at its top level, with any value.
pub fn inserted(body: &[u8], id: &str) -> Option<Vec<u8>> {
    let text = str::from_utf8(body).ok()?;
    let has_members = members_without_partner_id(text)?;
    let start = text.find('{')? + 1;
    let mut edited = Vec::with_capacity(body.len() + NAME.len() + id.len() + 16);
    edited.extend_from_slice(&body[..start]);
    serde_json::to_writer(&mut edited, NAME).expect("a string is always serialisable");
    edited.push(b':');
    serde_json::to_writer(&mut edited, id).expect("a string is always serialisable");
    if has_members {
        edited.push(b',');
    }
    edited.extend_from_slice(&body[start..]);
    Some(edited)
}

/// Whether the JSON object `text` has members. `None` if it is not a JSON object, or `partnerId` is one of its members.
fn members_without_partner_id(text: &str) -> Option<bool> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let has_members = parser.deserialize_map(Members).ok()?;
    parser.end().ok()?;
    has_members
}

/// Reads an object: `Some(has_members)`, or `None` if `partnerId` is one of its members.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut has_members, mut has_partner_id) = (false, false);
        while let Some(name) = members.next_key::<Name>()? {
            members.next_value::<IgnoredAny>()?;
            has_members = true;
            has_partner_id |= name.0;
        }
        Ok((!has_partner_id).then_some(has_members))
    }
}

/// Whether a member's name is `partnerId` after decoding its escapes.
struct Name(bool);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(name == NAME))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        let edited = inserted(body.as_bytes(), "1234583871234");
        assert_eq!(edited.map(|edited| String::from_utf8(edited).unwrap()).as_deref(), expected, "{body}");
    }

    #[test]
    fn the_member_comes_first_and_all_other_bytes_are_unchanged() {
        for (body, expected) in [
            ("{}", r#"{"partnerId":"1234583871234"}"#),
            (" {\n} \n", " {\"partnerId\":\"1234583871234\"\n} \n"),
            (r#"{"customerId":"5"}"#, r#"{"partnerId":"1234583871234","customerId":"5"}"#),
            ("\t{ \"a\" : 1e400 }\r\n", "\t{\"partnerId\":\"1234583871234\", \"a\" : 1e400 }\r\n"),
            (r#"{"a":1,"a":2}"#, r#"{"partnerId":"1234583871234","a":1,"a":2}"#),
            (r#"{"a":{"partnerId":"9"}}"#, r#"{"partnerId":"1234583871234","a":{"partnerId":"9"}}"#),
            (r#"{"a":["}{"],"PartnerId":1}"#, r#"{"partnerId":"1234583871234","a":["}{"],"PartnerId":1}"#),
            (r#"{"a":"partnerId"}"#, r#"{"partnerId":"1234583871234","a":"partnerId"}"#),
            ("{\"\u{e9}\":\"\u{1f600}\"}", "{\"partnerId\":\"1234583871234\",\"\u{e9}\":\"\u{1f600}\"}"),
        ] {
            check(body, Some(expected));
        }
    }

    #[test]
    fn an_existing_partner_id_is_kept_in_any_spelling() {
        for body in [
            r#"{"partnerId":"9"}"#,
            r#"{"partnerId":null}"#,
            r#"{"a":1,"partnerId":""}"#,
            r#"{"partnerId":"9","partnerId":"8"}"#,
            r#"{"partner\u0049d":9}"#,
        ] {
            check(body, None);
        }
    }

    #[test]
    fn other_bodies_than_one_json_object_are_unchanged() {
        for body in [
            "",
            " ",
            "[]",
            "[{}]",
            "null",
            "\"{}\"",
            "1",
            "{",
            "}",
            "{}{}",
            "{} x",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "{\"a\":01}",
            "\u{feff}{}",
            "<a>{}</a>",
            "a={}",
            "{\"a\":\"\n\"}",
            "{/* */}",
            "{\"a\":NaN}",
        ] {
            check(body, None);
        }
        for body in [&b"{\"a\":\"\xff\"}"[..], b"{\"a\":\"\xed\xa0\x80\"}", b"\xff\xfe{\0}\0", b"{}\0"] {
            assert_eq!(inserted(body, "1"), None, "{body:?}");
        }
    }

    #[test]
    fn deep_nesting_is_allowed() {
        let body = format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(inserted(body.as_bytes(), "1").map(|edited| edited.len()), Some(body.len() + 16));
    }

    #[test]
    fn an_id_is_written_as_json() {
        let edited = inserted(b"{}", "a\"b\\c").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap()["partnerId"], "a\"b\\c");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let name = || prop_oneof![Just("partnerId".to_owned()), ".{0,6}"];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(name(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn existing_bytes_are_unchanged(value in json(), pretty: bool, before in "[ \t\r\n]{0,3}", after in "[ \t\r\n]{0,3}") {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let body = before + &text + &after;
            let edited = inserted(body.as_bytes(), "17");
            let expected = value.as_object().filter(|members| !members.contains_key("partnerId"));
            prop_assert_eq!(edited.is_some(), expected.is_some());
            if let (Some(edited), Some(members)) = (edited, expected) {
                let member = if members.is_empty() { r#""partnerId":"17""# } else { r#""partnerId":"17","# };
                let start = body.find('{').unwrap() + 1;
                let expected = [&body[..start], member, &body[start..]].concat();
                prop_assert_eq!(&edited[..], expected.as_bytes());
                let with_member: Value = serde_json::from_slice(&edited).unwrap();
                prop_assert_eq!(with_member.as_object().unwrap().len(), members.len() + 1);
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let is_object = serde_json::from_slice::<Value>(&body).is_ok_and(|value| value.is_object());
            prop_assert!(inserted(&body, "17").is_none() || is_object);
        }
    }
}
