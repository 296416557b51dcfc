//! The task that keeps the token fresh: the only caller of the token endpoint and the only writer of the token.
//!
//! It holds the current credentials and, during a rotation, the candidate credentials that will replace them. It does one
//! thing at a time, so there is never more than one token request in flight.

mod attempt;
mod credential_state;
mod pending;
mod report;
mod tick;

pub(super) use self::attempt::HEARTBEAT_INTERVAL;
pub use self::{attempt::FINAL_CALL_GRACE, pending::PendingRefresher};

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::credential_state::CredentialState;
use super::{BootInstant, Command, Phase, TokenSource, TokenWriter, schedule::EarlyRefreshLimiter};
use crate::{
    credentials::{Credentials, PartnerCredentials, lockout::Lockout},
    telemetry::{Metrics, Scrubber},
    token::classify::FailureClass,
};

/// After this many panics within this time, the refresher stops, and the process with it: restarting the loop does not help.
const MAX_PANICS: usize = 3;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// The pause after a panic, and after a panic during a token request.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
const PANIC_IN_REQUEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Fetches a token immediately, then a new one ahead of each expiry, as long as the process runs.
#[derive(Debug)]
pub struct Refresher<S> {
    writer: TokenWriter,
    source: S,
    commands: mpsc::Receiver<Command>,
    lockout: Lockout,
    metrics: Arc<Metrics>,
    scrubber: Scrubber,
    /// Publishes the partner credentials in use.
    partner: Option<watch::Sender<Option<PartnerCredentials>>>,
    default_lifetime: Duration,
    /// The credentials in use.
    current: CredentialState,
    /// New credentials, which become current once they have obtained a token.
    candidate: Option<CredentialState>,
    early_refreshes: EarlyRefreshLimiter,
    quarantined: bool,
    last_request: Option<BootInstant>,
    /// Whether a token request is in flight, or its outcome is not recorded yet.
    request_in_flight: bool,
    handled_command_last: bool,
}

impl<S: TokenSource> Refresher<S> {
    /// Creates a refresher that fetches tokens from `source` with `credentials` if `lockout` allows it, publishes them through
    /// `writer`, and handles `commands`.
    pub fn new(
        mut writer: TokenWriter,
        source: S,
        credentials: Credentials,
        lockout: Lockout,
        commands: mpsc::Receiver<Command>,
        default_lifetime: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        for class in FailureClass::LABELS {
            metrics.init_token_failure(class);
        }
        writer.set_scheme(credentials.scheme);
        let current = CredentialState::new(credentials, &lockout, source.host(), writer.clock().now());
        Self {
            writer,
            source,
            commands,
            lockout,
            metrics,
            scrubber: Scrubber::default(),
            partner: None,
            default_lifetime,
            current,
            candidate: None,
            early_refreshes: EarlyRefreshLimiter::default(),
            quarantined: false,
            last_request: None,
            request_in_flight: false,
            handled_command_last: false,
        }
    }

    /// Registers every token, and new credentials once they are in use, with `scrubber`.
    #[must_use]
    pub fn with_scrubber(self, scrubber: Scrubber) -> Self {
        Self { scrubber, ..self }
    }

    /// Delays the first token request by `delay`.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.current.due = self.current.due.map(|due| due + delay);
        self
    }

    /// Runs until `stop` is cancelled. After a panic the loop continues and the current token stays; after `MAX_PANICS` within
    /// `PANIC_WINDOW` it stops.
    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.writer.clock();
        let mut panics: VecDeque<BootInstant> = VecDeque::new();
        loop {
            match catch_panic(self.tick(&stop)).await {
                Some(ControlFlow::Break(())) => return,
                Some(ControlFlow::Continue(())) => {}
                None => {
                    let now = clock.now();
                    panics.retain(|at| now.since(*at) < PANIC_WINDOW);
                    panics.push_back(now);
                    self.metrics.panicked();
                    error!(panics = panics.len(), "the token refresher panicked; keeping the current token");
                    if panics.len() >= MAX_PANICS {
                        return;
                    }
                    // An interrupted token request may have been rejected, and the vendor allows few rejections.
                    let pause =
                        if std::mem::take(&mut self.request_in_flight) { PANIC_IN_REQUEST_PAUSE } else { PANIC_PAUSE };
                    for state in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
                        state.due = state.due.map(|due| due.max(now + pause));
                    }
                }
            }
        }
    }
}

/// The output of `future`, or `None` if it panicked.
async fn catch_panic<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod fleet_simulation;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod state_table;
#[cfg(test)]
mod suspend;
#[cfg(test)]
mod tests;
