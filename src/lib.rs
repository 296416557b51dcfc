//! `finicity-proxy`: internal services call it without credentials, and it adds them to the requests that it forwards to the Finicity API.
//!
//! The modules below are layered from top to bottom. A module uses only those below it, which `tests/it/architecture.rs` checks. See
//! `ARCHITECTURE.md` for an overview.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "a test owns its tasks, threads and clocks; the library itself is checked without them"
    )
)]
#[macro_use]
mod labels;

pub mod cli;
pub mod app;
pub mod config;
pub mod server;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod proxy;
pub mod ops;
pub mod admin;
pub mod token;
pub mod upstream;
pub mod policy;
pub mod vendor;
pub mod message;
pub mod dns;
pub mod telemetry;
pub mod credentials;
pub mod tls;
pub mod egress;
pub mod secret;
pub mod process;
pub mod error_chain;
pub mod stall;
