//! The input of a handler: an authenticated, validated request.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::{examples, value::Record as _, world::World};
use crate::vendor::catalogue::Operation;

/// A call of one operation.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    /// The path parameters: names in camel case, and values.
    pub(super) params: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Value,
    /// `https://` and the `Host` of the request, for links to the sandbox itself.
    pub(super) origin: String,
    /// The partner that the token was issued to.
    pub(super) partner_id: String,
    /// The key of webhook signatures.
    pub(super) partner_secret: String,
}

impl Call<'_> {
    /// The path parameter `name` (in camel case); empty when the template does not have it.
    #[inline(never)]
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The query parameter `name`, unless it is missing or empty.
    #[inline(never)]
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let value = self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// The query parameter `name` as a number.
    #[inline(never)]
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.query(name)?.parse().ok()
    }

    /// The string member `name` of the body; empty when it is missing.
    #[inline(never)]
    pub(super) fn text(&self, name: &str) -> &str {
        self.body.text(name)
    }

    /// Whether the client prefers a PDF.
    pub(super) fn accepts_pdf(&self) -> bool {
        let accept = self.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        accept.split(',').next().is_some_and(|first| first.trim().starts_with("application/pdf"))
    }

    /// Whether the operation also documents a plain-text 401.
    pub(super) fn has_text_errors(&self) -> bool {
        const JSON_ONLY: [&str; 8] = [
            "/notification-subscriptions/",
            "/connect-components/",
            "/connect/experiences/{",
            "/data-sharing-consents",
            "/aggregation/v1/paysuite/",
            "/aggregation/v2/partners/authentication",
            "/decisioning/customers/{customerId}/sbca",
            "/decisioning/sbca/",
        ];
        !JSON_ONLY.iter().any(|prefix| self.operation.template().starts_with(prefix))
    }

    /// The customer in the path; empty when there is none.
    #[inline(never)]
    pub(super) fn customer_id(&self) -> &str {
        self.param("customerId")
    }

    /// The example `name`, with its placeholders and the path parameters filled in.
    #[inline(never)]
    pub(super) fn example(&self, world: &World, name: &str) -> Value {
        let mut value = examples::get(name);
        examples::fill(&mut value, world, &self.params);
        value
    }
}

/// Copies the members of `from` into `into`, recursively.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A copy of `record` with only the members `names`.
pub(super) fn pick(record: &Value, names: &[&str]) -> Value {
    let mut picked = Map::new();
    for name in names {
        if let Some(value) = record.get(name) {
            picked.insert((*name).to_owned(), value.clone());
        }
    }
    Value::Object(picked)
}

/// The name of a path parameter in camel case: `customer_id` becomes `customerId`.
pub(super) fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or("").to_owned();
    for word in words {
        let mut characters = word.chars();
        camel.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(characters.as_str());
    }
    camel
}
