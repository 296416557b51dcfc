//! The task that keeps the token fresh: the only caller of the token endpoint and the only writer of the token.

use std::{sync::Arc, time::Duration};

use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Mint, Stamp, TokenWriter,
    classify::{Class, Failure},
    schedule::{Lifetime, Streak},
    scheme::Grant,
};
use crate::telemetry::Metrics;

/// Fetches a token at once, then again ahead of each expiry, for as long as the process lives.
#[derive(Debug)]
pub struct Refresher<M> {
    writer: TokenWriter,
    mint: M,
    default_lifetime: Duration,
    metrics: Arc<Metrics>,
    streak: Streak,
}

impl<M: Mint> Refresher<M> {
    /// A refresher that fetches with `mint` and publishes through `writer`.
    pub fn new(writer: TokenWriter, mint: M, default_lifetime: Duration, metrics: Arc<Metrics>) -> Self {
        Self { writer, mint, default_lifetime, metrics, streak: Streak::default() }
    }

    /// Runs until `stop` is cancelled, and for no other reason ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.writer.clock();
        let mut due = Some(clock.now());
        loop {
            match due {
                Some(due) => select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep_until(due) => {}
                },
                // No further call may be made with these credentials.
                None => return stop.cancelled().await,
            }
            self.writer.fetching();
            let sent = clock.now();
            let outcome = select! {
                () = stop.cancelled() => return,
                outcome = self.mint.mint() => outcome,
            };
            due = match outcome {
                Ok(grant) => Some(self.succeeded(grant, sent)),
                Err(failure) => self.failed(&failure),
            };
        }
    }

    /// Publishes the token whose call was sent at `sent`, and says when the next call is due.
    fn succeeded(&mut self, grant: Grant, sent: Stamp) -> Stamp {
        let now = self.writer.clock().now();
        let took = now.since(sent);
        let lifetime = Lifetime::new(grant.expires_in, self.default_lifetime);
        let next = sent + lifetime.refresh(took, fastrand::f64());
        let untyped = grant.untyped;
        let version = self.writer.publish(grant, sent + lifetime.usable(), next);
        self.metrics.token_refreshed("success");
        info!(
            token.version = version,
            duration_ms = took.as_secs_f64() * 1e3,
            usable_for_s = self.writer.remaining().as_secs(),
            refresh_in_s = next.since(now).as_secs(),
            failures_before = self.streak.failures(),
            "token minted"
        );
        if untyped {
            warn!("the token answer has no token_type; it is taken for Bearer");
        }
        self.streak.succeeded();
        next
    }

    /// Notes a failed call, and says when the next one is due: never, when the credentials were rejected.
    fn failed(&mut self, failure: &Failure) -> Option<Stamp> {
        let now = self.writer.clock().now();
        let wait = self.streak.wait_after(failure, self.writer.remaining(), fastrand::f64());
        let next = wait.map(|wait| now + wait);
        self.writer.failed(failure.class, next);
        self.metrics.token_refreshed(failure.class.as_str());
        self.report(failure, wait);
        next
    }

    fn report(&self, failure: &Failure, wait: Option<Duration>) {
        let usable_for_s = self.writer.remaining().as_secs();
        let failures = self.streak.failures();
        match (failure.class, wait) {
            (Class::Rejected, _) | (_, None) => error!(
                error = %failure,
                class = failure.class.as_str(),
                usable_for_s,
                advice = self.mint.advice(failure),
                "credentials rejected; they are not tried again, since five rejections lock the vendor account: \
                 correct them and restart"
            ),
            (Class::Config | Class::Certificate, Some(wait)) => error!(
                error = %failure,
                class = failure.class.as_str(),
                failures,
                usable_for_s,
                retry_in_s = wait.as_secs(),
                advice = self.mint.advice(failure),
                "token refresh failed, and somebody has to look at it"
            ),
            (_, Some(wait)) => warn!(
                error = %failure,
                class = failure.class.as_str(),
                failures,
                usable_for_s,
                retry_in_s = wait.as_secs_f64(),
                "token refresh failed"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
