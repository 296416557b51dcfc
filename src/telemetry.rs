//! Logs and metrics, and the scrubber that keeps secrets out of both.

mod access_log;
pub mod level;
mod log_limiter;
pub mod logging;
mod metrics;
pub mod scrubber;
mod text_format;
mod writer;

pub use access_log::AccessLine;
pub use level::{Levels, LogLevel};
pub use log_limiter::LogLimiter;
pub use metrics::{
    CloseReason, ConnectFailure, MetricFamily, Metrics, ReauthOutcome, ReloadTarget, RouteMetrics, TokenSnapshot,
    UpstreamMetrics, WebhookOutcome,
};
pub use scrubber::Scrubber;

/// The target of audit log lines: decisions about credentials and tokens, and actions of administrators.
pub const AUDIT: &str = "finicity_proxy::audit";
