//! The syntax of HTTP messages, as pure functions and values: where a message starts and ends, what a path means, what a field is.

pub mod fields;
pub mod framing;
pub mod path;
