//! Reads typed values from a [`Raw`], and collects problems instead of stopping at the first.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use config::ValueKind;

use super::{Problem, Raw, sources::Entry};
use crate::{secret::is_plain, server::Address};

/// A longer list is not repeated in a message.
const MAX_LIST_BYTES: usize = 120;

/// Reads keys one after another. For an invalid value it adds a problem and returns a placeholder; the configuration is not used
/// then.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    raw: &'a Raw,
    problems: &'a mut Vec<Problem>,
    keys_read: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a Raw, problems: &'a mut Vec<Problem>) -> Self {
        Self { raw, problems, keys_read: BTreeSet::new() }
    }

    /// The keys read so far.
    #[cfg(test)]
    pub(super) fn keys_read(&self) -> &BTreeSet<&'static str> {
        &self.keys_read
    }

    /// Adds a problem with `key`, and its value where that can be no secret.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let (origin, value) = match self.raw.get(key) {
            Some(entry) => (entry.origin.as_str(), shown_value(&entry.value)),
            None => ("nothing", None),
        };
        let message = message.into();
        let value = value.filter(|value| !message.contains(value.as_str()));
        self.problems.push(Problem::for_key(key, origin, message).with_found(value));
    }

    /// Text, parsed by `parse`, whose error says what is expected.
    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let entry = self.entry(key)?;
        let ValueKind::String(text) = &entry.value else {
            self.problem(key, "must be text, in quotes");
            return None;
        };
        parse(text).map_err(|message| self.problem(key, message)).ok()
    }

    /// Text that may be left empty, which means none.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parsed(key, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }).flatten()
    }

    /// Whether the value is a default of the container image, and not set by an operator.
    pub(super) fn is_image_default(&self, key: &str) -> bool {
        self.raw.get(key).is_some_and(|entry| entry.is_image_default)
    }

    /// Whether the key is set to just this text.
    pub(super) fn is_text(&mut self, key: &'static str, text: &str) -> bool {
        matches!(self.entry(key), Some(Entry { value: ValueKind::String(value), .. }) if value == text)
    }

    /// Whether the key is a list without items.
    pub(super) fn is_empty_list(&mut self, key: &'static str) -> bool {
        matches!(self.entry(key), Some(Entry { value: ValueKind::Array(items), .. }) if items.is_empty())
    }

    /// A duration with its unit, such as `"30s"`, within bounds.
    pub(super) fn duration(&mut self, key: &'static str, bounds: RangeInclusive<Duration>) -> Duration {
        let format = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let expected = format!(
            "must be a duration with its unit, such as \"30s\", from {} to {}",
            format(bounds.start()),
            format(bounds.end())
        );
        let parse =
            |text: &str| humantime::parse_duration(text).ok().filter(|d| bounds.contains(d)).ok_or(expected.clone());
        match self.entry(key).map(|entry| &entry.value) {
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
        let number = match self.entry(key).map(|entry| &entry.value) {
            Some(ValueKind::I64(number)) => usize::try_from(*number).ok(),
            Some(ValueKind::String(text)) => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| bounds.contains(number)).unwrap_or_else(|| {
            self.problem(key, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
            *bounds.start()
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        match self.entry(key).map(|entry| &entry.value) {
            Some(ValueKind::Boolean(flag)) => *flag,
            Some(ValueKind::String(text)) if text == "true" => true,
            Some(ValueKind::String(text)) if text == "false" => false,
            _ => {
                self.problem(key, "must be true or false");
                false
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let parse = |text: &str| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| format!("must be {}", words.join(" or ")))
        };
        self.parsed(key, parse).unwrap_or(choices[0].1)
    }

    /// One item or a list; as text, separated by commas. Empty text is an empty list.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        let text = |value: &ValueKind| match value {
            ValueKind::String(text) => Some(text.clone()),
            ValueKind::I64(number) => Some(number.to_string()),
            _ => None,
        };
        let items = match self.entry(key).map(|entry| &entry.value) {
            Some(ValueKind::String(items)) => {
                let items = items.split(',').map(|item| item.trim().to_owned());
                Some(items.filter(|item| !item.is_empty()).collect())
            }
            Some(ValueKind::Array(items)) => items.iter().map(|item| text(&item.kind)).collect::<Option<Vec<_>>>(),
            Some(item) => text(item).map(|item| vec![item]),
            None => None,
        };
        items.unwrap_or_else(|| {
            self.problem(key, "must be one item or a list of them");
            Vec::new()
        })
    }

    /// At least one address with its port; with `allow_sockets`, also `unix:/path`.
    pub(super) fn addresses(&mut self, key: &'static str, allow_sockets: bool) -> Vec<Address> {
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
                    "must be an IP address with a port, such as \"127.0.0.1:3464\" or \"[::1]:3464\"{or_socket}, or a list of them"
                ),
            );
            Vec::new()
        })
    }

    fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.keys_read.insert(key);
        self.raw.get(key)
    }
}

/// `value` as a message may repeat it: plain text, numbers, and lists of these. `None` for an empty one, and for what may be a secret or
/// a path, which a [`ShownPath`](crate::secret::ShownPath) shows.
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
