//! `finicity-proxy`.

pub mod catalogue;
pub mod credentials;
pub mod secret;
pub mod telemetry;
pub mod tls;
pub mod token;
