//! What operators see: logs and metrics.

pub mod logging;
mod metrics;
mod writer;

pub use metrics::Metrics;
