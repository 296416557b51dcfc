//! Why credentials cannot be used.

use std::{error::Error, io};

use super::store_error::{StoreError, StoreFault};
use crate::{error_chain, secret::ShownPath};

/// Larger than any credential. A larger file is an error.
pub(super) const MAX_FILE_BYTES: usize = 64 * 1024;

/// Shorter admin tokens can be guessed, so they are an error.
pub(super) const MIN_ADMIN_TOKEN_BYTES: usize = 16;

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueDefect {
    /// Matching quotation marks at both ends.
    #[error("is in quotation marks, which container env files keep as part of the value: remove them")]
    Quoted,
    /// White space at either end.
    #[error("begins or ends with white space: remove it, or copy the value again")]
    Space,
    /// An invisible character at either end.
    #[error(
        "begins or ends with an invisible character, such as a byte order mark, a zero-width space or a no-break space: save \
         the value as plain text, or copy it again"
    )]
    Invisible,
    /// A line break other than the trailing one.
    #[error("has a line break in it: put the value on one line, followed by at most one line break")]
    LineBreak,
    /// Another control character.
    #[error("has a control character in it, such as a tab or NUL: copy the value again as plain text")]
    Control,
    /// A character outside printable ASCII, in a value that allows no others.
    #[error("has a character outside printable ASCII: copy the value again, without the surrounding text")]
    NotAscii,
}

/// Why one credential, or all of them, cannot be used. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The value is not set. The second field is the remedy.
    #[error("{0} is not set: {1}")]
    Missing(String, String),
    /// The variable and its `_FILE` form are both set, which is ambiguous.
    #[error("{0} and {0}_FILE are both set: unset one of them")]
    BothForms(String),
    /// Credentials of both schemes are set, which is ambiguous.
    #[error("credentials of both schemes are set: set auth.scheme to \"oauth2\" or \"partner\"")]
    BothSchemes,
    /// The `_FILE` form is not a path with a slash. It may be the secret itself, so it is not printed.
    #[error("{0}_FILE must be a path (with a \"/\") to a file that contains the value")]
    NotAPath(String),
    /// The value is empty or blank.
    #[error("{0} is empty: set it to its value (Finicity credentials are in the developer portal)")]
    Empty(String),
    /// The value is a placeholder from a template.
    #[error(
        "{0} is a placeholder, not a credential: set it to its value (Finicity credentials are in the developer portal)"
    )]
    Placeholder(String),
    /// The value is malformed.
    #[error("{0} {1}")]
    Malformed(String, ValueDefect),
    /// The admin token is too short.
    #[error(
        "{0} has fewer than {MIN_ADMIN_TOKEN_BYTES} characters, so it can be guessed: generate one with `openssl rand -hex 32`"
    )]
    ShortAdminToken(String),
    /// The value is a user name with a colon, which is the separator in Basic authentication (RFC 7617).
    #[error("{0} has a colon, which Basic authentication does not allow in a user name")]
    Colon(String),
    /// The value is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(String),
    /// The file cannot be read.
    #[error("{variable} names {path}, which cannot be read")]
    #[expect(missing_docs, reason = "the message names the fields")]
    Unreadable { variable: String, path: ShownPath, source: io::Error },
    /// The file is far larger than a credential.
    #[error(
        "{variable} names {path}, which is larger than {MAX_FILE_BYTES} bytes: the file must contain only the value"
    )]
    #[expect(missing_docs, reason = "the message names the fields")]
    TooLarge { variable: String, path: ShownPath },
    /// A secret store returned no credentials.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source as a whole cannot be read: its configuration key, and the error of the source.
    #[error("{0}")]
    Source(&'static str, #[source] Box<dyn Error + Send + Sync>),
}

impl Problem {
    /// What is wrong, and the remedy, as separate texts.
    pub fn in_parts(&self) -> (String, &str) {
        match self {
            Self::Missing(name, remedy) => (format!("{name} is not set"), remedy),
            Self::Unreadable { .. } | Self::Source(..) => {
                let remedy = "check that it exists at this path, is of the right type, and is readable by the user that the proxy runs as";
                (error_chain::one_line(self), remedy)
            }
            // Without the name of the secret, which the caller adds.
            Self::Store(error) => (error.reason.clone(), &error.remedy),
            // The message already contains the remedy.
            _ => (error_chain::one_line(self), "correct it where it is set"),
        }
    }

    /// Whether a store does not recognise the identity of this process, or does not permit it to read. Always false for a local source.
    pub fn is_identity(&self) -> bool {
        let Self::Store(error) = self else { return false };
        matches!(error.fault, StoreFault::NoIdentity | StoreFault::IdentityRefused)
    }
}
