//! The phases of the shutdown, and their time limits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{config, process::drain::Drain, server, token};

/// How long the tasks of the control plane may take to stop: the grace time of a token request in flight, plus the time to record its
/// outcome.
pub(super) const TASK_GRACE: Duration = token::FINAL_CALL_GRACE.saturating_add(Duration::from_millis(500));

/// How long the ops listener may take to stop: the time for the last responses to probes.
pub(super) const OPS_GRACE: Duration = Duration::from_millis(500);

/// How the process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// No request was aborted.
    Drained,
    /// Requests in flight were aborted, because the drain timeout expired or a second signal arrived.
    CutOff,
}

/// One cancellation token for each phase of the shutdown, in order, and the drain state that the workers read.
#[derive(Debug, Default)]
pub(super) struct ShutdownSequence {
    /// Cancelled when an administrator requests the shutdown.
    pub(super) requested: CancellationToken,
    /// `/readyz` fails, and each response is the last one on its connection.
    pub(super) draining: CancellationToken,
    /// The stage of the drain for the workers, which read it without a lock.
    pub(super) drain: Drain,
    /// The proxy listeners close.
    pub(super) closing: CancellationToken,
    /// The refresher and the admin listeners stop.
    pub(super) stop_control: CancellationToken,
    /// The ops listener stops.
    pub(super) stop_ops: CancellationToken,
}

/// The maximum time from the first signal to the end of all tasks. Flushing the log is not included.
pub fn max_shutdown_time(shutdown: config::Shutdown) -> Duration {
    let config::Shutdown { drain_delay, drain_timeout } = shutdown;
    drain_delay + drain_timeout + server::FINAL_RESPONSE_GRACE + TASK_GRACE + OPS_GRACE
}
