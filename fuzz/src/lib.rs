//! What must hold for `finicity-proxy` whatever bytes come: one function a subject, which panics where it does not.
//!
//! libFuzzer calls them through `fuzz_targets`, with bytes that it makes up; the test in `corpus` calls them with the bytes that
//! are kept: the seeds, and everything that ever made one of them panic.
//!
//! Deliberately absent: `arbitrary`. An input is the text that it stands for (a message, a file), so that a corpus can be read
//! and written by hand.

#![forbid(unsafe_code)]

mod config;
#[cfg(test)]
mod corpus;
mod framing;
mod headers;
mod message;
mod target;
mod token_answer;
mod verdict;

pub use config::config;
pub use framing::framing;
pub use headers::headers;
pub use target::target;
pub use token_answer::token_answer;
pub use verdict::verdict;

/// What is called with an input, and panics where something does not hold for it.
pub type ReloadTarget = fn(&[u8]);

/// Every subject, by the name of its target and of its folders.
pub const SUBJECTS: [(&str, ReloadTarget); 6] = [
    ("config", config),
    ("framing", framing),
    ("headers", headers),
    ("target", target),
    ("token_answer", token_answer),
    ("verdict", verdict),
];
