//! When a token may be used, when it is refreshed, and when a failed refresh is tried again: pure functions.
//!
//! Every random choice comes in as `jitter`, uniform in `[0, 1)`, so that each of them can be tested at its ends.

use std::time::Duration;

use super::{
    BootInstant,
    classify::{FailureClass, TokenFailure},
};

/// The bounds of a lifetime. Below one second nothing could be sent with the token; above a day a revoked or rotated
/// credential would go unnoticed for too long.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// How long before its end a token is no longer sent, at most: room for the request's way and for clocks that run
/// unevenly. A tenth of the lifetime when that is less.
const MAX_SKEW: Duration = Duration::from_secs(30);

/// A refresh starts between 65 % and 75 % of the lifetime: 75 % is the vendor's advice (90 of 120 minutes), and the spread
/// keeps a fleet that started together from asking together for ever.
const REFRESH_LATEST: f64 = 0.75;
const REFRESH_SPREAD: f64 = 0.10;

/// The least time between a success and the next scheduled refresh, so that a tiny `expires_in` is no hot loop.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// Lifetimes below this wait at least half of it, whatever the minimum interval says.
const SHORT_LIFETIME: Duration = Duration::from_secs(60);

/// The first step of the backoff, and the least wait after any failure.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// The bounds of the backoff's cap while a token lives: an eighth of what is left of it, so that several attempts fit.
const BACKOFF_CAP: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The cap for failures that an operator has to correct (an invalid certificate, a redirect), and the step after repeated
/// unusable responses: trying more often only fills the log.
const SLOW_STEP: Duration = Duration::from_secs(5 * 60);

/// Unusable responses lead to [`SLOW_STEP`] after this many in a row that span at least this time. Both, since a gateway that
/// loses its backend for some seconds answers several attempts in that time, and a few attempts say little about a fault.
const UNUSABLE_BEFORE_SLOW: u32 = 5;
const UNUSABLE_TIME_BEFORE_SLOW: Duration = Duration::from_secs(60);

/// While there is no usable token, requests fail. The longest wait after a transient failure is the first of these then, and
/// after an outage of `LONG_OUTAGE` the second, so that a fleet does not slow the recovery of the vendor's server.
const OUTAGE_CAP: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(120));
const LONG_OUTAGE: Duration = Duration::from_secs(10 * 60);

/// `Retry-After` is believed up to this; beyond it a mistake at the vendor would stop us for longer than it lasts.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// The waits after a configuration failure; the last one repeats, for ever, since the mistake may be the vendor's.
const CONFIG_STEPS: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(30 * 60), Duration::from_secs(60 * 60)];

/// What is added to a fixed wait at random, as a part of it, so that a fleet spreads out.
const FIXED_SPREAD: f64 = 0.1;

/// The part of [`OUTAGE_CAP`] that is random when the cap cuts a longer wait short, so that a fleet spreads out.
const CAP_SPREAD: f64 = 0.5;

/// A token's lifetime, within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// The lifetime that the answer named, or else the configured one.
    pub fn new(expires_in: Option<Duration>, default: Duration) -> Self {
        Self(expires_in.unwrap_or(default).clamp(LIFETIME.0, LIFETIME.1))
    }

    /// How long the token may be sent, counted from the moment *before* its request was sent.
    pub fn usable_for(self) -> Duration {
        self.0 - MAX_SKEW.min(self.0 / 10)
    }

    /// When the next refresh starts, counted from the moment before the request for this token was sent.
    ///
    /// `elapsed` is the time that the request took: the minimum wait counts from its end.
    pub fn refresh_after(self, elapsed: Duration, jitter: f64) -> Duration {
        let due = self.0.mul_f64(REFRESH_LATEST - REFRESH_SPREAD * jitter);
        let min = if self.0 < SHORT_LIFETIME { MIN_INTERVAL.max(self.0 / 2) } else { MIN_INTERVAL };
        due.max(elapsed + min)
    }
}

/// What has failed in a row since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailureStreak {
    failures: u32,
    config: usize,
    /// The latest run of unusable responses: how many, and when it began.
    unusable: Option<(u32, BootInstant)>,
    /// Since when there has been no usable token; in the future while there is one.
    no_token_since: Option<BootInstant>,
}

impl FailureStreak {
    /// Failed attempts in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Records `failure` at `now` and returns how long to wait before the next attempt, or `None` when none may be made: the
    /// credentials were rejected, and each further attempt counts towards the vendor's lock-out.
    ///
    /// `remaining` is how long the present token may still be used; zero when there is none. `jitter` is uniform in `[0, 1)`.
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
        // A long wait that is begun with a usable token must not go on after its end.
        let longest = outage.map_or(remaining.max(OUTAGE_CAP.0), outage_cap);
        Some(if wait > longest { longest - longest.min(OUTAGE_CAP.1).mul_f64(CAP_SPREAD * jitter) } else { wait })
    }

    /// Resets the counts, after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Counts the run of unusable responses, and returns whether `failure` continues one that is long enough in number and in
    /// time.
    fn is_slowed_by(&mut self, failure: &TokenFailure, now: BootInstant) -> bool {
        let (count, since) = self.unusable.unwrap_or((0, now));
        self.unusable = failure.is_unusable().then_some((count.saturating_add(1), since));
        self.unusable.is_some_and(|(count, since)| {
            count >= UNUSABLE_BEFORE_SLOW && now.since(since) >= UNUSABLE_TIME_BEFORE_SLOW
        })
    }

    /// For how long there has been no usable token; `None` while there is one.
    fn outage(&mut self, now: BootInstant, remaining: Duration) -> Option<Duration> {
        if !remaining.is_zero() {
            self.no_token_since = Some(now + remaining);
            return None;
        }
        // A token that was withdrawn has ended sooner than it would have by itself.
        let since = self.no_token_since.map_or(now, |since| since.min(now));
        self.no_token_since = Some(since);
        Some(now.since(since))
    }
}

/// The longest wait after a transient failure when there has been no usable token for `outage`.
fn outage_cap(outage: Duration) -> Duration {
    if outage < LONG_OUTAGE { OUTAGE_CAP.0 } else { OUTAGE_CAP.1 }
}

/// How often a token that the upstream refuses may be replaced ahead of its time: the least pause, and what it doubles up to
/// while the upstream goes on refusing, so that a permanent refusal is no flood of token calls.
const EARLY_REFRESH_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15 * 60));

/// Decides which refusals of a token cause a refresh.
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
    /// Whether a refusal at `now` may cause a refresh; notes it, if so.
    pub fn allows(&mut self, now: BootInstant) -> bool {
        if let Some(last) = self.last {
            let since = now.since(last);
            if since < self.pause {
                return false;
            }
            // Still refused soon after the pause: the last refresh did not help.
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

/// Exponential backoff with full jitter, never below [`BACKOFF_BASE`].
fn backoff(attempt: u32, cap: Duration, jitter: f64) -> Duration {
    let ceiling = BACKOFF_BASE.saturating_mul(2_u32.saturating_pow(attempt.min(31))).min(cap);
    ceiling.mul_f64(jitter).max(BACKOFF_BASE)
}

fn spread(step: Duration, jitter: f64) -> Duration {
    step + step.mul_f64(FIXED_SPREAD * jitter)
}

#[cfg(test)]
mod tests;
