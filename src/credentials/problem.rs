//! Why credentials cannot be used.

use std::{error::Error, io};

use super::store_error::{StoreError, StoreFault};
use crate::{error_chain, secret::ShownPath};

/// Larger than any credential; a file above this is not one.
pub(super) const MAX_FILE_BYTES: usize = 64 * 1024;

/// Shorter admin tokens can be guessed, so they are refused.
pub(super) const MIN_ADMIN_TOKEN_BYTES: usize = 16;

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueDefect {
    /// It begins and ends with the same quotation mark.
    #[error("is in quotation marks, which env files of containers keep as part of the value: remove them")]
    Quoted,
    /// White space at an end.
    #[error("begins or ends with white space: remove it, or copy the value again")]
    Space,
    /// An invisible character at an end.
    #[error(
        "begins or ends with an invisible character, such as a byte order mark, a zero-width space or a no-break space: save \
         it as plain text, or copy the value again"
    )]
    Invisible,
    /// A line break that is not the one at the end.
    #[error("has a line break in it: put the value on one line, with at most one line break after it")]
    LineBreak,
    /// Another control character.
    #[error("has a control character, such as a tab or NUL, in it: copy the value again as plain text")]
    Control,
    /// A character that the value can never have.
    #[error("has a character outside printable ASCII: copy the value again, without anything around it")]
    NotAscii,
}

/// Why one credential, or all of them, cannot be used. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The value is not there.
    #[error("{0} is not set: {1}")]
    Missing(String, String),
    /// The variable and its `_FILE` form are both set, so it is unclear which is meant.
    #[error("{0} and {0}_FILE are both set: unset one of them")]
    BothForms(String),
    /// Credentials of both schemes are there, so it is unclear which are meant.
    #[error("there are credentials of both schemes: set auth.scheme to \"oauth2\" or \"partner\"")]
    BothSchemes,
    /// The `_FILE` form holds something that is no path with a folder; the secret itself, perhaps, so it is not printed.
    #[error("{0}_FILE does not hold a path: it must name a file, with its folder, that holds the value")]
    NotAPath(String),
    /// The value has nothing but white space.
    #[error("{0} is empty: put the value from the Finicity developer portal there")]
    Empty(String),
    /// The value is the kind of text that templates put where a value belongs.
    #[error("{0} holds a placeholder, not a credential: put the value from the Finicity developer portal there")]
    Placeholder(String),
    /// The value is malformed.
    #[error("{0} {1}")]
    Malformed(String, ValueDefect),
    /// The admin token can be guessed.
    #[error(
        "{0} has fewer than {MIN_ADMIN_TOKEN_BYTES} characters, so it can be guessed: make one with `openssl rand -hex 32`"
    )]
    ShortAdminToken(String),
    /// The value is a user name with a colon, which ends the name where it is sent.
    #[error("{0} has a colon, which no user name can have here")]
    Colon(String),
    /// The value is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(String),
    /// The file cannot be read.
    #[error("{variable} names {path}, which cannot be read")]
    Unreadable {
        /// The variable.
        variable: String,
        /// The path that it holds.
        path: ShownPath,
        /// What the system said.
        source: io::Error,
    },
    /// The file is far larger than a credential.
    #[error("{variable} names {path}, which is larger than {MAX_FILE_BYTES} bytes: that is not a credential")]
    TooLarge {
        /// The variable.
        variable: String,
        /// The path that it holds.
        path: ShownPath,
    },
    /// A secret store gave no credentials.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source as a whole cannot be read. Named by its configuration key; the error is the source's own.
    #[error("{0}")]
    Source(&'static str, #[source] Box<dyn Error + Send + Sync>),
}

impl Problem {
    /// What is wrong, and what an operator does about it, each as a text of its own.
    pub fn in_parts(&self) -> (String, &str) {
        match self {
            Self::Missing(name, remedy) => (format!("{name} is not set"), remedy),
            Self::Unreadable { .. } | Self::Source(..) => {
                let remedy = "see that it exists at this path, is of the right kind, and can be read by the user that the proxy runs as";
                (error_chain::one_line(self), remedy)
            }
            // The caller names the secret.
            Self::Store(error) => (error.reason.clone(), &error.remedy),
            // The message says what to do in detail.
            _ => (error_chain::one_line(self), "correct it where it is set"),
        }
    }

    /// Whether a store does not know this process, or does not permit it to read. No source on this machine has such a problem.
    pub fn is_identity(&self) -> bool {
        let Self::Store(error) = self else { return false };
        matches!(error.fault, StoreFault::NoIdentity | StoreFault::IdentityRefused)
    }
}
