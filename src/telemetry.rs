//! What operators see: logs and metrics. And what keeps secrets out of both.

mod access;
mod human;
pub mod level;
pub mod logging;
mod metrics;
pub mod scrubber;
mod seldom;
mod writer;

pub use access::AccessLine;
pub use level::{Levels, LogLevel};
pub use metrics::{
    Closed, ConnectFailure, Family, Heal, Metrics, ReloadTarget, RouteMetrics, TokenReading, UpstreamMetrics,
};
pub use scrubber::Scrubber;
pub use seldom::LogLimiter;

/// The target of log lines about decisions that an auditor asks for: credentials, tokens, administrators.
pub const AUDIT: &str = "finicity_proxy::audit";
