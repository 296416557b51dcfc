//! What operators see: logs and metrics.

pub mod logging;
mod metrics;
mod seldom;
mod writer;

pub use metrics::{
    Closed, ConnectFailure, Family, Heal, Metrics, RouteMetrics, Subject, TokenReading, UpstreamMetrics,
};
pub use seldom::Seldom;

/// The target of log lines about decisions that an auditor asks for: credentials, tokens, administrators.
pub const AUDIT: &str = "finicity_proxy::audit";
