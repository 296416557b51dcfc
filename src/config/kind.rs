//! Type and bounds of a key's value.

use std::{fmt, ops::RangeInclusive, time::Duration};

/// Type and bounds of a key's value. `resolve` may be stricter than this: a URL, for example, is a [`Kind::Text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number, or `word` in its place.
    Number {
        /// Minimum and maximum. [`usize::MAX`] means no maximum.
        bounds: RangeInclusive<usize>,
        /// A word that is accepted in place of a number.
        word: Option<&'static str>,
    },
    /// Text with a number and a unit.
    Duration(RangeInclusive<Duration>),
    /// One of these words.
    Choice(Vec<String>),
    /// Text.
    Text {
        /// Whether it may be empty, which means none.
        is_optional: bool,
    },
    /// One item, or a list of items.
    List,
    /// One address, or a list of addresses.
    Addresses {
        /// Whether Unix sockets are accepted.
        allow_sockets: bool,
        /// Whether it may be empty, which means none.
        is_optional: bool,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("true or false"),
            Self::Number { bounds, word } => {
                let (min, max) = (bounds.start(), bounds.end());
                if *max == usize::MAX {
                    write!(f, "whole number, at least {min}")?;
                } else {
                    write!(f, "whole number from {min} to {max}")?;
                }
                word.map_or(Ok(()), |word| write!(f, ", or \"{word}\""))
            }
            Self::Duration(bounds) => {
                let [min, max] = [bounds.start(), bounds.end()].map(|bound| humantime::format_duration(*bound));
                write!(f, "duration from {min} to {max}")
            }
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                f.write_str(&words.join(" or "))
            }
            Self::Text { is_optional: true } => f.write_str("string, may be empty"),
            Self::Text { is_optional: false } => f.write_str("string"),
            Self::List => f.write_str("list of strings"),
            Self::Addresses { allow_sockets, is_optional } => {
                let sockets = if *allow_sockets { " or \"unix:\" paths" } else { "" };
                let empty = if *is_optional { ", may be empty" } else { "" };
                write!(f, "list of addresses with ports{sockets}{empty}")
            }
        }
    }
}
