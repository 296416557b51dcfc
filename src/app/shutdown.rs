//! The phases in which the process stops, and how long each may take.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{config, process::drain::Drain, server, token};

/// How long the tasks of the control plane may take to end: a token request in flight, and what follows from its outcome.
pub(super) const TASK_GRACE: Duration = token::FINAL_CALL_GRACE.saturating_add(Duration::from_millis(500));

/// How long the last responses to probes may take.
pub(super) const OPS_GRACE: Duration = Duration::from_millis(500);

/// How the process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// No request was aborted.
    Drained,
    /// The drain timeout expired, or a second signal came, while requests were in flight, and they were aborted.
    CutOff,
}

/// One signal for each phase of a shutdown, in their order.
#[derive(Debug, Default)]
pub(super) struct ShutdownSequence {
    /// Cancelled by an administrator, to begin it.
    pub(super) requested: CancellationToken,
    /// `/readyz` fails, and each response is the last one of its connection.
    pub(super) draining: CancellationToken,
    /// The same for the workers, as one number that they read without a lock.
    pub(super) drain: Drain,
    /// The proxy listeners close.
    pub(super) closing: CancellationToken,
    /// The refresher and the admin listeners stop.
    pub(super) stop_control: CancellationToken,
    /// The ops listener stops.
    pub(super) stop_ops: CancellationToken,
}

/// The longest time from the first signal to the end of the process.
pub fn max_shutdown_time(shutdown: config::Shutdown) -> Duration {
    let config::Shutdown { drain_delay, drain_timeout } = shutdown;
    drain_delay + drain_timeout + server::FINAL_RESPONSE_GRACE + TASK_GRACE + OPS_GRACE
}
