//! The syntax of HTTP messages, as pure functions and values: message framing, canonical paths, header fields, and which requests a local
//! listener accepts by their Host and Origin.

pub mod fields;
pub mod framing;
pub mod host;
pub mod guard;
pub mod path;
pub mod transport;
