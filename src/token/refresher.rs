//! The task that keeps the token fresh: the only caller of the token endpoint and the only writer of the token.
//!
//! It holds the credentials that are in use and, during a rotation, those that shall take over. Whatever it does, it does one
//! thing at a time, so there is never more than one token call under way.

mod attempt;
mod credential_state;
mod report;
mod tick;

pub use attempt::FINAL_CALL_GRACE;
pub(super) use attempt::HEARTBEAT_INTERVAL;

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::credential_state::CredentialState;
use super::{BootInstant, Command, Phase, TokenSource, TokenWriter, schedule::EarlyRefreshLimiter};
use crate::{
    credentials::{Credentials, lockout::Lockout},
    telemetry::{Metrics, Scrubber},
    token::classify::Class,
};

/// So many panics within this time, and the refresher gives up, and with it the process: something is wrong that a restart of
/// the loop does not mend.
const MAX_PANICS: usize = 3;
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// The pause after a panic, and after one in the middle of a token call.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
const PANIC_IN_CALL_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Fetches a token at once, then again ahead of each expiry, for as long as the process lives.
#[derive(Debug)]
pub struct Refresher<M> {
    writer: TokenWriter,
    mint: M,
    commands: mpsc::Receiver<Command>,
    lockout: Lockout,
    metrics: Arc<Metrics>,
    scrubber: Scrubber,
    default_lifetime: Duration,
    /// The credentials in use.
    current: CredentialState,
    /// The credentials that shall take over, once they have minted a token.
    candidate: Option<CredentialState>,
    healing: EarlyRefreshLimiter,
    quarantined: bool,
    last_call: Option<BootInstant>,
    /// Whether a token call is under way, and what comes of it not noted yet.
    in_call: bool,
    obeyed_last: bool,
}

impl<M: TokenSource> Refresher<M> {
    /// A refresher that fetches with `mint` and `credentials`, as far as `lockout` allows, publishes through `writer` and
    /// obeys `commands`.
    pub fn new(
        writer: TokenWriter,
        mint: M,
        credentials: Credentials,
        lockout: Lockout,
        commands: mpsc::Receiver<Command>,
        default_lifetime: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        for class in Class::LABELS {
            metrics.expect_token_failure(class);
        }
        let current = CredentialState::new(credentials, &lockout, mint.host(), writer.clock().now());
        Self {
            writer,
            mint,
            commands,
            lockout,
            metrics,
            scrubber: Scrubber::default(),
            default_lifetime,
            current,
            candidate: None,
            healing: EarlyRefreshLimiter::default(),
            quarantined: false,
            last_call: None,
            in_call: false,
            obeyed_last: false,
        }
    }

    /// The same, which lets `scrubber` know of every token and of the credentials that take over.
    #[must_use]
    pub fn scrubbed_by(self, scrubber: Scrubber) -> Self {
        Self { scrubber, ..self }
    }

    /// The same with its first call later by `delay`.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.current.due = self.current.due.map(|due| due + delay);
        self
    }

    /// Runs until `stop` is cancelled. A panic is caught and the loop goes on with the token kept; after three within a
    /// minute it ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.writer.clock();
        let mut panics: VecDeque<BootInstant> = VecDeque::new();
        loop {
            match caught(self.turn(&stop)).await {
                Some(ControlFlow::Break(())) => return,
                Some(ControlFlow::Continue(())) => {}
                None => {
                    let now = clock.now();
                    panics.retain(|at| now.since(*at) < PANIC_WINDOW);
                    panics.push_back(now);
                    self.metrics.panicked();
                    error!(panics = panics.len(), "the token refresher panicked; the token is kept");
                    if panics.len() >= MAX_PANICS {
                        return;
                    }
                    // A call whose outcome nobody noted may have been a rejection, of which the vendor allows few.
                    let pause = if std::mem::take(&mut self.in_call) { PANIC_IN_CALL_PAUSE } else { PANIC_PAUSE };
                    for slot in [Some(&mut self.current), self.candidate.as_mut()].into_iter().flatten() {
                        slot.due = slot.due.map(|due| due.max(now + pause));
                    }
                }
            }
        }
    }
}

/// The output of `future`, or `None` when it panicked.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
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
mod tests;
