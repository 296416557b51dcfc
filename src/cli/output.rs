//! Command output for people. A closed standard output is not an error.

use std::fmt::Display;

use crate::telemetry::logging;

/// Writes `text` to standard output.
pub(super) fn print(text: impl Display) {
    logging::print(text);
}

/// Writes one line to standard error, prefixed with the program's name.
pub(super) fn eprint(message: impl Display) {
    logging::eprint(format_args!("finicity-proxy: {message}"));
}
