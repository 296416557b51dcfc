//! What commands write for a person. A closed standard output is no error.

use std::fmt::Display;

use crate::telemetry::logging;

/// Writes `text` to standard output.
pub(super) fn print(text: impl Display) {
    logging::print(text);
}

/// Writes one line to standard error, with the program's name before it.
pub(super) fn eprint(message: impl Display) {
    logging::eprint(format_args!("finicity-proxy: {message}"));
}
