//! What is wrong with a configuration, told so that it can be mended.

use std::fmt;

use crate::{credentials, error_chain};

/// One thing that is wrong: where, and what to do. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    key: Option<String>,
    place: Option<String>,
    message: String,
}

impl Problem {
    /// A problem with a key, as `place` set it.
    pub(super) fn of_key(key: &str, place: &str, message: impl Into<String>) -> Self {
        let (key, place) = (on_one_line(key), on_one_line(place));
        Self { key: Some(key), place: Some(place), message: on_one_line(&message.into()) }
    }

    /// A problem with something that is not a key.
    pub(super) fn other(message: impl Into<String>) -> Self {
        Self { key: None, place: None, message: on_one_line(&message.into()) }
    }
}

/// `text` with its control characters escaped: names and paths are the operator's, and a line break or a terminal's command in
/// one would be printed.
pub(super) fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            f.write_str(key)?;
            if let Some(place) = &self.place {
                write!(f, " (set by {place})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What is wrong with credentials, a line each.
impl From<Vec<credentials::Problem>> for Problems {
    fn from(problems: Vec<credentials::Problem>) -> Self {
        Self(problems.iter().map(|problem| Problem::other(error_chain::one_line(problem))).collect())
    }
}
