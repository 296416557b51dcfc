//! Problems with a configuration, as messages for the operator.

use std::fmt;

use crate::{credentials, error_chain};

/// One problem: its location and the remedy. Never contains a value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    key: Option<String>,
    origin: Option<String>,
    message: String,
    /// The value, if it cannot be a secret.
    found: Option<String>,
}

impl Problem {
    /// A problem with `key`, which was set by `origin`.
    pub(super) fn for_key(key: &str, origin: &str, message: impl Into<String>) -> Self {
        let (key, origin) = (escape_control(key), escape_control(origin));
        Self { key: Some(key), origin: Some(origin), message: escape_control(&message.into()), found: None }
    }

    /// Sets the value to show. It must not be a secret.
    pub(super) fn with_found(self, found: Option<String>) -> Self {
        Self { found, ..self }
    }

    /// The key that has the problem.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// A problem with something that is not a key.
    pub fn other(message: impl Into<String>) -> Self {
        Self { key: None, origin: None, message: escape_control(&message.into()), found: None }
    }
}

/// `text` with its control characters escaped, because names and paths come from the operator and are printed.
pub(super) fn escape_control(text: &str) -> String {
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
            if let Some(origin) = &self.origin {
                write!(f, " (set by {origin})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        match &self.found {
            Some(value) => write!(f, " (found: {value})"),
            None => Ok(()),
        }
    }
}

/// All problems. Displayed one per line.
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

impl From<Vec<credentials::Problem>> for Problems {
    fn from(problems: Vec<credentials::Problem>) -> Self {
        Self(problems.iter().map(|problem| Problem::other(error_chain::one_line(problem))).collect())
    }
}
