//! The output of the process: the log writer and the scrubber.

use prometheus::IntCounter;

use super::{super::logging, factory::MetricFactory};

/// Counters that are maintained elsewhere and copied at each scrape.
#[derive(Debug)]
pub(super) struct OutputMetrics {
    log_lines_dropped: IntCounter,
    scrubber_hits: IntCounter,
}

impl OutputMetrics {
    pub(super) fn new(factory: &MetricFactory) -> Self {
        Self {
            log_lines_dropped: factory
                .counter("log_lines_dropped_total", "Log lines dropped because the output was not read in time."),
            scrubber_hits: factory
                .counter("scrubber_catches_total", "Secrets scrubbed from the output; each one is a bug."),
        }
    }

    /// Copies the current counts.
    pub(super) fn update(&self) {
        advance(&self.log_lines_dropped, logging::dropped_lines());
        advance(&self.scrubber_hits, logging::scrubber().hits());
    }
}

/// Raises `counter` to `total`.
fn advance(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
