//! When a token may be used, when it is refreshed, and when a failed refresh is tried again: pure functions.
//!
//! Every random choice comes in as `u`, uniform in `[0, 1)`, so that each of them can be tested at its ends.

use std::time::Duration;

use super::{
    Stamp,
    classify::{Class, Failure},
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

/// The cap for failures that somebody must mend (an invalid certificate, a redirect), and the step after repeated answers
/// that make no sense: trying more often only fills the log.
const SLOW_STEP: Duration = Duration::from_secs(5 * 60);

/// `Retry-After` is believed up to this; beyond it a mistake at the vendor would stop us for longer than it lasts.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// The waits after a configuration failure; the last one repeats, for ever, since the mistake may be the vendor's.
const CONFIG_STEPS: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(30 * 60), Duration::from_secs(60 * 60)];

/// What is added to a fixed wait at random, as a part of it, so that a fleet spreads out.
const FIXED_SPREAD: f64 = 0.1;

/// So many server errors in a row whose body cannot be read, or answers without a usable token, and the steps get long.
const UNPARSABLE_BEFORE_SLOW: u32 = 3;
const MALFORMED_BEFORE_SLOW: u32 = 5;

/// A token's lifetime, within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// The lifetime that the answer named, or else the configured one.
    pub fn new(expires_in: Option<Duration>, default: Duration) -> Self {
        Self(expires_in.unwrap_or(default).clamp(LIFETIME.0, LIFETIME.1))
    }

    /// How long the token may be sent, counted from the moment *before* its request was sent.
    pub fn usable(self) -> Duration {
        self.0 - MAX_SKEW.min(self.0 / 10)
    }

    /// When the next refresh starts, counted from the moment before the request for this token was sent.
    ///
    /// `spent` is the time that the request took: the least wait counts from its end.
    pub fn refresh(self, spent: Duration, u: f64) -> Duration {
        let due = self.0.mul_f64(REFRESH_LATEST - REFRESH_SPREAD * u);
        let least = if self.0 < SHORT_LIFETIME { MIN_INTERVAL.max(self.0 / 2) } else { MIN_INTERVAL };
        due.max(spent + least)
    }
}

/// What has failed in a row since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streak {
    failures: u32,
    unparsable: u32,
    malformed: u32,
    config: usize,
}

impl Streak {
    /// Failed attempts in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes `failure` and says how long to wait before the next attempt, or `None` when none may be made: the
    /// credentials were rejected, and each further try counts towards the vendor's lock-out.
    ///
    /// `remaining` is how long the present token may still be used; zero when there is none.
    pub fn wait_after(&mut self, failure: &Failure, remaining: Duration, u: f64) -> Option<Duration> {
        let attempt = self.failures;
        self.failures = self.failures.saturating_add(1);
        self.unparsable = if failure.is_unparsable_server_error() { self.unparsable + 1 } else { 0 };
        self.malformed = if failure.class == Class::Malformed { self.malformed + 1 } else { 0 };

        let token_lives = !remaining.is_zero();
        let cap = if token_lives { (remaining / 8).clamp(BACKOFF_CAP.0, BACKOFF_CAP.1) } else { BACKOFF_CAP.1 };
        let wait = match failure.class {
            Class::Rejected => return None,
            Class::Config => {
                let step = CONFIG_STEPS[self.config.min(CONFIG_STEPS.len() - 1)];
                self.config += 1;
                spread(step, u)
            }
            Class::Certificate | Class::Redirect => backoff(attempt, SLOW_STEP, u),
            Class::Transient if self.unparsable >= UNPARSABLE_BEFORE_SLOW => spread(SLOW_STEP, u),
            Class::Malformed if self.malformed >= MALFORMED_BEFORE_SLOW => spread(SLOW_STEP, u),
            Class::Transient | Class::Throttled | Class::Malformed => backoff(attempt, cap, u),
        };
        Some(match failure.retry_after {
            Some(asked) => wait.max(spread(asked.min(MAX_RETRY_AFTER), u)),
            None => wait,
        })
    }

    /// Forgets all failures.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// How often a token that the upstream refuses may be replaced ahead of its time: the least pause, and what it doubles up to
/// while the upstream goes on refusing, so that a permanent refusal is no flood of token calls.
const HEAL_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15 * 60));

/// Decides which refusals of a token cause a refresh.
#[derive(Clone, Copy, Debug)]
pub struct HealGate {
    last: Option<Stamp>,
    pause: Duration,
}

impl Default for HealGate {
    fn default() -> Self {
        Self { last: None, pause: HEAL_PAUSE.0 }
    }
}

impl HealGate {
    /// Whether a refusal at `now` may cause a refresh; notes it, if so.
    pub fn allows(&mut self, now: Stamp) -> bool {
        if let Some(last) = self.last {
            let since = now.since(last);
            if since < self.pause {
                return false;
            }
            // Still refused soon after the pause: the last refresh did not help.
            self.pause = if since < self.pause * 2 { (self.pause * 2).min(HEAL_PAUSE.1) } else { HEAL_PAUSE.0 };
        }
        self.last = Some(now);
        true
    }
}

/// Exponential backoff with full jitter, never below [`BACKOFF_BASE`].
fn backoff(attempt: u32, cap: Duration, u: f64) -> Duration {
    let ceiling = BACKOFF_BASE.saturating_mul(2_u32.saturating_pow(attempt.min(31))).min(cap);
    ceiling.mul_f64(u).max(BACKOFF_BASE)
}

fn spread(step: Duration, u: f64) -> Duration {
    step + step.mul_f64(FIXED_SPREAD * u)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    const ALMOST_ONE: f64 = 0.999_999_999;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn lifetime(s: u64) -> Lifetime {
        Lifetime::new(Some(seconds(s)), Duration::ZERO)
    }

    fn failure(class: Class) -> Failure {
        Failure::new(class, "test")
    }

    #[test]
    fn a_token_is_usable_until_the_skew_before_its_end() {
        for (lifetime_s, usable_ms) in [(3600, 3_570_000), (300, 270_000), (60, 54_000), (1, 900)] {
            assert_eq!(lifetime(lifetime_s).usable(), Duration::from_millis(usable_ms), "{lifetime_s} s");
        }
    }

    #[test]
    fn a_lifetime_is_clamped_and_defaulted() {
        assert_eq!(Lifetime::new(None, seconds(7200)), lifetime(7200));
        assert_eq!(lifetime(0), lifetime(1));
        assert_eq!(lifetime(u64::MAX), lifetime(86_400));
    }

    #[test]
    fn n03_a_refresh_starts_between_65_and_75_percent_of_the_lifetime() {
        let close = |a: Duration, b: u64| a.abs_diff(seconds(b)) < Duration::from_millis(1);
        assert!(close(lifetime(7200).refresh(seconds(1), 0.0), 5400));
        assert!(close(lifetime(7200).refresh(seconds(1), ALMOST_ONE), 4680));
        assert!(close(lifetime(3600).refresh(seconds(1), 0.5), 2520));
    }

    #[test]
    fn m03_a_tiny_lifetime_is_not_refreshed_in_a_hot_loop() {
        for (lifetime_s, least) in [(1, 5), (5, 5), (15, 8), (40, 20)] {
            let due = lifetime(lifetime_s).refresh(Duration::from_millis(500), ALMOST_ONE);
            assert!(due >= seconds(least), "{lifetime_s} s: {due:?}");
        }
    }

    #[test]
    fn n15_backoff_grows_with_full_jitter_up_to_its_cap() {
        let mut streak = Streak::default();
        let highest: Vec<u64> = (0..9)
            .map(|_| {
                streak.wait_after(&failure(Class::Transient), Duration::ZERO, ALMOST_ONE).unwrap().as_secs_f64().round()
                    as u64
            })
            .collect();
        assert_eq!(highest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(streak.wait_after(&failure(Class::Transient), Duration::ZERO, 0.0), Some(seconds(1)));
    }

    #[test]
    fn the_cap_shrinks_with_what_is_left_of_the_token() {
        let highest = |remaining| {
            let mut streak = Streak { failures: 20, ..Streak::default() };
            streak.wait_after(&failure(Class::Transient), remaining, ALMOST_ONE).unwrap().as_secs_f64().round() as u64
        };
        assert_eq!(highest(seconds(240)), 30);
        assert_eq!(highest(seconds(8)), 5);
        assert_eq!(highest(seconds(7200)), 60);
    }

    #[test]
    fn rejected_credentials_are_never_tried_again() {
        assert_eq!(Streak::default().wait_after(&failure(Class::Rejected), seconds(60), 0.5), None);
    }

    #[test]
    fn m16_a_configuration_failure_is_tried_again_in_growing_steps_for_ever() {
        let mut streak = Streak::default();
        let waits: Vec<u64> = (0..5)
            .map(|_| streak.wait_after(&failure(Class::Config), Duration::ZERO, 0.0).unwrap().as_secs() / 60)
            .collect();
        assert_eq!(waits, [15, 30, 60, 60, 60]);
    }

    #[test]
    fn m20_retry_after_is_honoured_up_to_its_limit() {
        let wait = |asked: u64| {
            let failure = Failure { retry_after: Some(seconds(asked)), ..failure(Class::Throttled) };
            Streak::default().wait_after(&failure, Duration::ZERO, 0.0).unwrap()
        };
        assert_eq!(wait(120), seconds(120));
        assert_eq!(wait(0), seconds(1));
        assert_eq!(wait(1_000_000_000), seconds(900));
    }

    #[test]
    fn answers_without_sense_slow_the_attempts_down_and_a_success_forgets_them() {
        let mut streak = Streak::default();
        let waits: Vec<bool> = (0..7)
            .map(|_| streak.wait_after(&failure(Class::Malformed), Duration::ZERO, 0.5).unwrap() >= SLOW_STEP)
            .collect();
        assert_eq!(waits, [false, false, false, false, true, true, true]);

        let unparsable =
            Failure { status: Some(StatusCode::BAD_GATEWAY), readable: false, ..failure(Class::Transient) };
        streak.succeeded();
        let waits: Vec<bool> =
            (0..5).map(|_| streak.wait_after(&unparsable, Duration::ZERO, 0.5).unwrap() >= SLOW_STEP).collect();
        assert_eq!(waits, [false, false, true, true, true]);
        streak.succeeded();
        assert_eq!(streak.failures(), 0);
        assert!(streak.wait_after(&unparsable, Duration::ZERO, 0.5).unwrap() < SLOW_STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn o02_refusals_that_go_on_cause_ever_rarer_refreshes() {
        use tokio::time::{Instant, advance};

        let clock = crate::token::Clock::Tokio(Instant::now());
        let mut gate = HealGate::default();
        let mut allowed = Vec::new();
        for second in 0..4_000 {
            if gate.allows(clock.now()) {
                allowed.push(second);
            }
            advance(seconds(1)).await;
        }
        assert_eq!(allowed, [0, 30, 90, 210, 450, 930, 1830, 2730, 3630]);
        advance(seconds(3600)).await;
        assert!(gate.allows(clock.now()));
        advance(seconds(30)).await;
        assert!(gate.allows(clock.now()), "after a quiet hour the pause is short again");
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop::sample::select(Class::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn the_time_to_the_next_call_is_never_zero(
            classes in prop::collection::vec(any_class(), 1..50), remaining in 0_u64..100_000, asked in prop::option::of(0_u64..10_000),
            u in 0.0..1.0_f64,
        ) {
            let mut streak = Streak::default();
            for class in classes {
                let failure = Failure { retry_after: asked.map(seconds), ..failure(class) };
                let wait = streak.wait_after(&failure, seconds(remaining), u);
                prop_assert!(wait.is_none_or(|wait| wait >= BACKOFF_BASE && wait <= seconds(3960)));
                prop_assert_eq!(wait.is_none(), class == Class::Rejected);
            }
        }

        #[test]
        fn a_long_enough_token_is_refreshed_before_its_usable_end(s in 60_u64..200_000, u in 0.0..1.0_f64) {
            let lifetime = lifetime(s);
            prop_assert!(lifetime.refresh(seconds(10), u) < lifetime.usable());
        }
    }
}
