//! How long a token is usable, when it is refreshed, and when a failed refresh is retried: pure functions.
//!
//! Randomness is a parameter, `jitter`, uniform in `[0, 1)`, so tests can use its extremes.

use std::time::Duration;

use super::{
    BootInstant,
    classify::{FailureClass, TokenFailure},
};

/// The bounds of a lifetime. A token of less than a second could not be used; with one of more than a day, a revoked or rotated
/// credential would go unnoticed for too long.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// How long before its expiry a token is no longer sent; a tenth of its lifetime if that is shorter. It allows for the
/// request's transit time and for clock drift.
const MAX_SKEW: Duration = Duration::from_secs(30);

/// A refresh starts between 65 % and 75 % of the lifetime: 75 % is the vendor's advice (90 of 120 minutes), and the spread
/// keeps instances that started together from refreshing together.
const REFRESH_LATEST: f64 = 0.75;
const REFRESH_SPREAD: f64 = 0.10;

/// The minimum time between a success and the next scheduled refresh, so a tiny `expires_in` cannot cause a hot loop.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// With a lifetime below this, the next refresh waits at least half of that lifetime, even where `MIN_INTERVAL` is shorter.
const SHORT_LIFETIME: Duration = Duration::from_secs(60);

/// The first step of the backoff, and the minimum wait after any failure.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// The bounds of the backoff cap while a token is usable. The cap is an eighth of the remaining time, so several attempts fit in it.
const BACKOFF_CAP: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The backoff cap for failures that need an operator (an invalid certificate, a redirect), and the wait after repeated unusable
/// responses: retrying more often would only fill the log.
const SLOW_STEP: Duration = Duration::from_secs(5 * 60);

/// Unusable responses lead to [`SLOW_STEP`] after this many in a row that span at least this time. Both are required: a gateway
/// that loses its backend for a few seconds fails several attempts, and a few failed attempts do not prove a lasting fault.
const UNUSABLE_BEFORE_SLOW: u32 = 5;
const UNUSABLE_TIME_BEFORE_SLOW: Duration = Duration::from_secs(60);

/// The maximum wait after a transient failure while there is no usable token, because requests fail then. The second value
/// applies after an outage of `LONG_OUTAGE`, so a fleet does not slow the recovery of the vendor's server.
const OUTAGE_CAP: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(120));
const LONG_OUTAGE: Duration = Duration::from_secs(10 * 60);

/// The cap on `Retry-After`. Without it, one wrong value from the vendor would stop refreshes for longer than the fault lasts.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// The waits after a failure of class [`FailureClass::Misconfigured`]. The last one repeats indefinitely, because the fault may be the
/// vendor's.
const CONFIG_STEPS: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(30 * 60), Duration::from_secs(60 * 60)];

/// The maximum random addition to a fixed wait, as a fraction of it, so a fleet spreads out.
const FIXED_SPREAD: f64 = 0.1;

/// The random fraction of [`OUTAGE_CAP`] when the cap shortens a wait, so a fleet spreads out.
const CAP_SPREAD: f64 = 0.5;

/// A token's lifetime, within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// The lifetime from the response, or else the configured one, clamped.
    pub fn new(expires_in: Option<Duration>, default: Duration) -> Self {
        Self(expires_in.unwrap_or(default).clamp(LIFETIME.0, LIFETIME.1))
    }

    /// How long the token may be sent, counted from *before* its request was sent.
    pub fn usable_for(self) -> Duration {
        self.0 - MAX_SKEW.min(self.0 / 10)
    }

    /// When the next refresh starts, counted from before the request for this token was sent.
    ///
    /// `elapsed` is the duration of that request: the minimum wait counts from its end.
    pub fn refresh_after(self, elapsed: Duration, jitter: f64) -> Duration {
        let due = self.0.mul_f64(REFRESH_LATEST - REFRESH_SPREAD * jitter);
        let min = if self.0 < SHORT_LIFETIME { MIN_INTERVAL.max(self.0 / 2) } else { MIN_INTERVAL };
        due.max(elapsed + min)
    }
}

/// The failures since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailureStreak {
    failures: u32,
    config: usize,
    /// The current run of unusable responses: their number, and when it began.
    unusable: Option<(u32, BootInstant)>,
    /// When the last token stopped being usable; in the future while it is usable.
    no_token_since: Option<BootInstant>,
}

impl FailureStreak {
    /// The number of consecutive failed attempts.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Records `failure` at `now` and returns how long to wait before the next attempt. Returns `None` when the credentials were
    /// rejected, because each further attempt counts towards the vendor's lock-out.
    ///
    /// `remaining` is how long the current token may still be used; zero when there is none. `jitter` is uniform in `[0, 1)`.
    pub fn wait_after(
        &mut self,
        failure: &TokenFailure,
        now: BootInstant,
        remaining: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        let attempt = self.failures;
        self.failures = self.failures.saturating_add(1);
        let slow = self.is_slowed_by(failure, now);
        let outage = self.outage(now, remaining);

        let cap = match outage {
            None => (remaining / 8).clamp(BACKOFF_CAP.0, BACKOFF_CAP.1),
            Some(outage) if failure.class == FailureClass::Transient => outage_cap(outage),
            Some(_) => OUTAGE_CAP.0,
        };
        let wait = match failure.class {
            FailureClass::Rejected => return None,
            FailureClass::Misconfigured => {
                let step = CONFIG_STEPS[self.config.min(CONFIG_STEPS.len() - 1)];
                self.config += 1;
                spread(step, jitter)
            }
            FailureClass::Certificate | FailureClass::Redirect => backoff(attempt, SLOW_STEP, jitter),
            FailureClass::Transient | FailureClass::Malformed if slow => spread(SLOW_STEP, jitter),
            FailureClass::Transient | FailureClass::Throttled | FailureClass::Malformed => {
                backoff(attempt, cap, jitter)
            }
        };
        let wait = match failure.retry_after {
            Some(requested) => wait.max(spread(requested.min(MAX_RETRY_AFTER), jitter)),
            None => wait,
        };
        if failure.class != FailureClass::Transient {
            return Some(wait);
        }
        // A long wait that starts while a token is usable must not outlast that token.
        let longest = outage.map_or(remaining.max(OUTAGE_CAP.0), outage_cap);
        Some(if wait > longest { longest - longest.min(OUTAGE_CAP.1).mul_f64(CAP_SPREAD * jitter) } else { wait })
    }

    /// Resets the counts, after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Updates the run of unusable responses, and returns whether it has reached both limits for [`SLOW_STEP`].
    fn is_slowed_by(&mut self, failure: &TokenFailure, now: BootInstant) -> bool {
        let (count, since) = self.unusable.unwrap_or((0, now));
        self.unusable = failure.is_unusable().then_some((count.saturating_add(1), since));
        self.unusable.is_some_and(|(count, since)| {
            count >= UNUSABLE_BEFORE_SLOW && now.since(since) >= UNUSABLE_TIME_BEFORE_SLOW
        })
    }

    /// How long there has been no usable token; `None` while there is one.
    fn outage(&mut self, now: BootInstant, remaining: Duration) -> Option<Duration> {
        if !remaining.is_zero() {
            self.no_token_since = Some(now + remaining);
            return None;
        }
        // If the token was withdrawn, the recorded time is still in the future.
        let since = self.no_token_since.map_or(now, |since| since.min(now));
        self.no_token_since = Some(since);
        Some(now.since(since))
    }
}

/// The maximum wait after a transient failure when there has been no usable token for `outage`.
fn outage_cap(outage: Duration) -> Duration {
    if outage < LONG_OUTAGE { OUTAGE_CAP.0 } else { OUTAGE_CAP.1 }
}

/// The minimum and maximum pause between early refreshes, which replace a token that the upstream refuses. The pause doubles while
/// the upstream keeps refusing, so a permanent refusal does not cause a flood of token requests.
const EARLY_REFRESH_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15 * 60));

/// Limits the rate of refreshes that refused tokens cause.
#[derive(Clone, Copy, Debug)]
pub struct EarlyRefreshLimiter {
    last: Option<BootInstant>,
    pause: Duration,
}

impl Default for EarlyRefreshLimiter {
    fn default() -> Self {
        Self { last: None, pause: EARLY_REFRESH_PAUSE.0 }
    }
}

impl EarlyRefreshLimiter {
    /// Whether a refusal at `now` may cause a refresh. If so, records it.
    pub fn allows(&mut self, now: BootInstant) -> bool {
        if let Some(last) = self.last {
            let since = now.since(last);
            if since < self.pause {
                return false;
            }
            // Refused again soon after the pause: the last refresh did not help.
            self.pause = if since < self.pause * 2 {
                (self.pause * 2).min(EARLY_REFRESH_PAUSE.1)
            } else {
                EARLY_REFRESH_PAUSE.0
            };
        }
        self.last = Some(now);
        true
    }
}

/// Exponential backoff with full jitter, at least [`BACKOFF_BASE`].
fn backoff(attempt: u32, cap: Duration, jitter: f64) -> Duration {
    let ceiling = BACKOFF_BASE.saturating_mul(2_u32.saturating_pow(attempt.min(31))).min(cap);
    ceiling.mul_f64(jitter).max(BACKOFF_BASE)
}

fn spread(step: Duration, jitter: f64) -> Duration {
    step + step.mul_f64(FIXED_SPREAD * jitter)
}

#[cfg(test)]
mod tests;
