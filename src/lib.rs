//! `finicity-proxy`.

pub mod cli;
pub mod app;
pub mod signal;
pub mod config;
pub mod server;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod proxy;
pub mod ops;
pub mod admin;
pub mod token;
pub mod catalogue;
pub mod telemetry;
pub mod guard;
pub mod tls;
pub mod credentials;
pub mod secret;
pub mod cause;
