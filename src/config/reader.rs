//! Reads typed values from a [`Raw`]. Collects problems instead of stopping at the first.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use config::ValueKind;

use super::{
    Kind, Problem, Raw,
    sources::{Entry, list_items},
};
use crate::{secret::is_plain, server::Address};

/// Longer lists are not repeated in messages.
const MAX_LIST_BYTES: usize = 120;

/// Reads keys one by one. For an invalid value, it adds a problem and returns a placeholder; the configuration must not be used then.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    raw: &'a Raw,
    problems: &'a mut Vec<Problem>,
    /// Every key read so far, with type and bounds. The calls that read the keys are the only definition of these: `config explain`, the
    /// reference in `docs/` and the schema are generated from this map.
    kinds: BTreeMap<&'static str, Kind>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a Raw, problems: &'a mut Vec<Problem>) -> Self {
        Self { raw, problems, kinds: BTreeMap::new() }
    }

    /// The keys read so far, each with type and bounds.
    pub(super) fn into_kinds(self) -> BTreeMap<&'static str, Kind> {
        self.kinds
    }

    /// Records type and bounds of `key`, unless they are recorded already. Call this first for a key with bounds that depend on other keys,
    /// with the bounds that hold in any configuration.
    pub(super) fn describe(&mut self, key: &'static str, kind: Kind) {
        self.kinds.entry(key).or_insert(kind);
    }

    /// Adds a problem with `key`, and its value unless that may be a secret.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let (origin, value) = match self.raw.get(key) {
            Some(entry) => (entry.origin.as_str(), shown_value(&entry.value)),
            None => ("nothing", None),
        };
        let message = message.into();
        let value = value.filter(|value| !message.contains(value.as_str()));
        self.problems.push(Problem::for_key(key, origin, message).with_found(value));
    }

    /// Text, parsed by `parse`. Its error states what is expected.
    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let entry = self.entry(key, Kind::Text { is_optional: false })?;
        let ValueKind::String(text) = &entry.value else {
            self.problem(key, "must be a string in quotes");
            return None;
        };
        parse(text).map_err(|message| self.problem(key, message)).ok()
    }

    /// Text that may be empty, which means none.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.describe(key, Kind::Text { is_optional: true });
        self.parsed(key, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }).flatten()
    }

    /// Whether the value is the container image's default, not the operator's.
    pub(super) fn is_image_default(&self, key: &str) -> bool {
        self.raw.get(key).is_some_and(|entry| entry.is_image_default)
    }

    /// Whether the value of the key is exactly `text`.
    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        matches!(self.raw.get(key), Some(Entry { value: ValueKind::String(value), .. }) if value == text)
    }

    /// Whether the value of the key is an empty list.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.raw.get(key), Some(Entry { value: ValueKind::Array(items), .. }) if items.is_empty())
    }

    /// A duration with a unit, such as `"30s"`, within bounds.
    pub(super) fn duration(&mut self, key: &'static str, bounds: RangeInclusive<Duration>) -> Duration {
        let format = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let expected = format!(
            "must be a duration with a unit, such as \"30s\", from {} to {}",
            format(bounds.start()),
            format(bounds.end())
        );
        let parse =
            |text: &str| humantime::parse_duration(text).ok().filter(|d| bounds.contains(d)).ok_or(expected.clone());
        match self.entry(key, Kind::Duration(bounds.clone())).map(|entry| &entry.value) {
            Some(ValueKind::String(_)) => self.parsed(key, parse).unwrap_or_default(),
            Some(_) => {
                self.problem(key, expected);
                Duration::ZERO
            }
            None => Duration::ZERO,
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &'static str, bounds: RangeInclusive<usize>) -> usize {
        self.number_or(key, bounds, None).unwrap_or_default()
    }

    /// A whole number within bounds. `None` if the value is `word`.
    pub(super) fn number_or(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<usize>,
        word: Option<&'static str>,
    ) -> Option<usize> {
        let entry = self.entry(key, Kind::Number { bounds: bounds.clone(), word });
        if word.is_some_and(|word| self.is_text(key, word)) {
            return None;
        }
        let number = match entry.map(|entry| &entry.value) {
            Some(ValueKind::I64(number)) => usize::try_from(*number).ok(),
            Some(ValueKind::String(text)) => text.parse().ok(),
            _ => None,
        };
        Some(number.filter(|number| bounds.contains(number)).unwrap_or_else(|| {
            self.problem(key, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
            *bounds.start()
        }))
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        match self.entry(key, Kind::Flag).map(|entry| &entry.value) {
            Some(ValueKind::Boolean(flag)) => *flag,
            Some(ValueKind::String(text)) if text == "true" => true,
            Some(ValueKind::String(text)) if text == "false" => false,
            _ => {
                self.problem(key, "must be true or false");
                false
            }
        }
    }

    /// One of the words of `choices`.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let kind = Kind::Choice(choices.iter().map(|(word, _)| (*word).to_owned()).collect());
        self.describe(key, kind.clone());
        let parse = |text: &str| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| format!("must be {kind}"))
        };
        self.parsed(key, parse).unwrap_or(choices[0].1)
    }

    /// One item, a list, or text that separates items by commas. Empty text is an empty list.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        let items = self.entry(key, Kind::List).and_then(|entry| list_items(&entry.value));
        items.unwrap_or_else(|| {
            self.problem(key, "must be one item or a list of items");
            Vec::new()
        })
    }

    /// Like [`addresses`](Self::addresses), but may be empty.
    pub(super) fn optional_addresses(&mut self, key: &'static str, allow_sockets: bool) -> Vec<Address> {
        let is_none = self.is_text(key, "") || self.is_empty_list(key);
        let addresses = if is_none { Vec::new() } else { self.addresses(key, allow_sockets) };
        self.describe(key, Kind::Addresses { allow_sockets, is_optional: true });
        addresses
    }

    /// One or more addresses with ports. With `allow_sockets`, `unix:/path` is an address too.
    pub(super) fn addresses(&mut self, key: &'static str, allow_sockets: bool) -> Vec<Address> {
        self.describe(key, Kind::Addresses { allow_sockets, is_optional: false });
        let items = self.list(key);
        let addresses: Option<Vec<Address>> = items.iter().map(|item| item.parse().ok()).collect();
        let addresses = addresses.filter(|addresses| {
            !addresses.is_empty() && (allow_sockets || addresses.iter().all(|address| address.tcp().is_some()))
        });
        addresses.unwrap_or_else(|| {
            let or_socket = if allow_sockets { " or \"unix:/run/finicity-proxy/proxy.sock\"" } else { "" };
            self.problem(
                key,
                format!(
                    "must be an IP address with a port, such as \"127.0.0.1:3464\" or \"[::1]:3464\"{or_socket}, or a list of these"
                ),
            );
            Vec::new()
        })
    }

    /// The value of `key`. Records `kind` for it.
    fn entry(&mut self, key: &'static str, kind: Kind) -> Option<&'a Entry> {
        self.describe(key, kind);
        self.raw.get(key)
    }
}

/// `value` if a message may repeat it: plain text, numbers, and lists of these. `None` for empty values, for possible secrets, and for
/// paths, which a [`ShownPath`](crate::secret::ShownPath) shows.
fn shown_value(value: &ValueKind) -> Option<String> {
    match value {
        ValueKind::String(text) => {
            let is_path = text.contains('/') && !text.contains("://");
            (!text.is_empty() && !is_path && is_plain(text)).then(|| format!("\"{text}\""))
        }
        ValueKind::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| shown_value(&item.kind)).collect();
            let list = items.filter(|items| !items.is_empty())?.join(", ");
            (list.len() <= MAX_LIST_BYTES).then(|| format!("[{list}]"))
        }
        ValueKind::Nil | ValueKind::Table(_) => None,
        number => Some(number.to_string()).filter(|text| is_plain(text)),
    }
}
