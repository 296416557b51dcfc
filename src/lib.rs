//! `finicity-proxy`.

pub mod admin;
pub mod catalogue;
pub mod cause;
pub mod credentials;
pub mod guard;
pub mod ops;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod token;
