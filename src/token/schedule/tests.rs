use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::token::Clock;

const ALMOST_ONE: f64 = 0.999_999_999;

/// The start of every streak in these tests.
fn start() -> BootInstant {
    Clock::Boot.now()
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn lifetime(s: u64) -> Lifetime {
    Lifetime::new(Some(seconds(s)), Duration::ZERO)
}

fn failure(class: FailureClass) -> TokenFailure {
    TokenFailure::new(class, "test")
}

#[test]
fn a_token_is_usable_until_the_skew_before_its_end() {
    for (lifetime_s, usable_ms) in [(3600, 3_570_000), (300, 270_000), (60, 54_000), (1, 900)] {
        assert_eq!(lifetime(lifetime_s).usable_for(), Duration::from_millis(usable_ms), "{lifetime_s} s");
    }
}

#[test]
fn a_lifetime_has_bounds_and_a_default() {
    assert_eq!(Lifetime::new(None, seconds(7200)), lifetime(7200));
    assert_eq!(lifetime(0), lifetime(1));
    assert_eq!(lifetime(u64::MAX), lifetime(86_400));
}

#[test]
fn n03_a_refresh_starts_at_65_to_75_percent_of_the_lifetime() {
    let close = |a: Duration, b: u64| a.abs_diff(seconds(b)) < Duration::from_millis(1);
    assert!(close(lifetime(7200).refresh_after(seconds(1), 0.0), 5400));
    assert!(close(lifetime(7200).refresh_after(seconds(1), ALMOST_ONE), 4680));
    assert!(close(lifetime(3600).refresh_after(seconds(1), 0.5), 2520));
}

#[test]
fn m03_a_tiny_lifetime_is_not_refreshed_in_a_hot_loop() {
    for (lifetime_s, min) in [(1, 5), (5, 5), (15, 8), (40, 20)] {
        let due = lifetime(lifetime_s).refresh_after(Duration::from_millis(500), ALMOST_ONE);
        assert!(due >= seconds(min), "{lifetime_s} s: {due:?}");
    }
}

#[test]
fn n15_backoff_has_full_jitter_and_a_cap() {
    let (mut streak, now) = (FailureStreak::default(), start());
    let highest: Vec<u64> = (0..9)
        .map(|_| {
            streak
                .wait_after(&failure(FailureClass::Transient), now, Duration::ZERO, ALMOST_ONE)
                .unwrap()
                .as_secs_f64()
                .round() as u64
        })
        .collect();
    assert_eq!(highest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(streak.wait_after(&failure(FailureClass::Transient), now, Duration::ZERO, 0.0), Some(seconds(1)));
}

#[test]
fn the_backoff_cap_shrinks_with_the_remaining_lifetime() {
    let highest = |remaining| {
        let mut streak = FailureStreak { failures: 20, ..FailureStreak::default() };
        streak
            .wait_after(&failure(FailureClass::Transient), start(), remaining, ALMOST_ONE)
            .unwrap()
            .as_secs_f64()
            .round() as u64
    };
    assert_eq!(highest(seconds(240)), 30);
    assert_eq!(highest(seconds(8)), 5);
    assert_eq!(highest(seconds(7200)), 60);
}

#[test]
fn rejected_credentials_are_never_tried_again() {
    assert_eq!(FailureStreak::default().wait_after(&failure(FailureClass::Rejected), start(), seconds(60), 0.5), None);
}

#[test]
fn m16_configuration_failures_are_retried_in_growing_steps() {
    let mut streak = FailureStreak::default();
    let waits: Vec<u64> = (0..5)
        .map(|_| {
            streak.wait_after(&failure(FailureClass::Misconfigured), start(), Duration::ZERO, 0.0).unwrap().as_secs()
                / 60
        })
        .collect();
    assert_eq!(waits, [15, 30, 60, 60, 60]);
}

#[test]
fn m20_retry_after_is_honoured_up_to_its_limit() {
    let wait = |requested: u64| {
        let failure = TokenFailure { retry_after: Some(seconds(requested)), ..failure(FailureClass::Throttled) };
        FailureStreak::default().wait_after(&failure, start(), Duration::ZERO, 0.0).unwrap()
    };
    assert_eq!(wait(120), seconds(120));
    assert_eq!(wait(0), seconds(1));
    assert_eq!(wait(1_000_000_000), seconds(900));
}

fn server_error(status: u16, readable: bool) -> TokenFailure {
    let status = Some(StatusCode::from_u16(status).unwrap());
    TokenFailure { status, readable, ..failure(FailureClass::Transient) }
}

/// The waits after `failures`, each attempt made at the end of the previous wait. `remaining` has, for each attempt, the seconds
/// for which the token is still usable; the last one repeats.
fn waits(failures: &[TokenFailure], remaining: &[u64], jitter: f64) -> Vec<f64> {
    let (mut streak, mut now) = (FailureStreak::default(), start());
    let each = failures.iter().zip(remaining.iter().chain(std::iter::repeat(remaining.last().unwrap())));
    each.map(|(failure, remaining)| {
        let wait = streak.wait_after(failure, now, seconds(*remaining), jitter).unwrap();
        now = now + wait;
        wait.as_secs_f64()
    })
    .collect()
}

#[test]
fn a_short_gateway_fault_causes_no_long_wait() {
    for (status, readable, remaining) in
        [(502, false, 0), (503, false, 0), (504, false, 0), (502, true, 0), (503, false, 3_600), (500, false, 0)]
    {
        let waits = waits(&vec![server_error(status, readable); 40], &[remaining], ALMOST_ONE);
        assert!(waits[..3].iter().sum::<f64>() < 7.1, "{status}: {waits:?}");
        assert!(waits[..10].iter().all(|wait| *wait <= 60.0), "{status}: {waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 120.0), "{status}: {waits:?}");
    }
}

#[test]
fn unusable_responses_slow_down_after_five_and_a_minute() {
    let long = |failure: &TokenFailure, remaining, jitter| {
        waits(&vec![failure.clone(); 90], &[remaining], jitter).iter().position(|wait| *wait >= 300.0)
    };
    let malformed = failure(FailureClass::Malformed);
    // With the shortest waits, of a second each, the minute is the limit; with the longest, 1 + 2 + 4 + 8 + 16 + 32 s exceed it.
    assert_eq!(long(&malformed, 0, 0.0), Some(60));
    assert_eq!(long(&malformed, 0, ALMOST_ONE), Some(6));
    assert_eq!(long(&server_error(500, false), 3_600, 0.0), Some(60));
    assert_eq!(long(&server_error(520, false), 3_600, ALMOST_ONE), Some(6));
    for failure in [server_error(500, true), server_error(503, false), failure(FailureClass::Transient)] {
        assert_eq!(long(&failure, 3_600, ALMOST_ONE), None, "{failure:?}");
    }

    // Four failures two hours apart are not five in a row, and a different failure in between restarts the run.
    let (mut streak, now) = (FailureStreak::default(), start());
    for hours in 0..4 {
        assert!(streak.wait_after(&malformed, now + seconds(hours * 7_200), Duration::ZERO, 0.5).unwrap() < SLOW_STEP);
    }
    let interrupted: Vec<TokenFailure> =
        (0..90).map(|n| if n % 5 == 4 { server_error(502, false) } else { malformed.clone() }).collect();
    assert!(waits(&interrupted, &[3_600], ALMOST_ONE).iter().all(|wait| *wait <= 60.0));
    streak.reset();
    assert_eq!(streak.failures(), 0);
    assert!(streak.wait_after(&malformed, now + seconds(86_400), Duration::ZERO, 0.5).unwrap() < SLOW_STEP);
}

#[test]
fn without_a_token_waits_are_capped_at_one_then_two_minutes() {
    let long_retry_after = TokenFailure { retry_after: Some(seconds(900)), ..server_error(503, true) };
    for failure in
        [failure(FailureClass::Transient), server_error(500, false), server_error(502, false), long_retry_after]
    {
        for jitter in [0.5, ALMOST_ONE] {
            let waits = waits(&vec![failure.clone(); 60], &[0], jitter);
            let mut passed = 0.0;
            for wait in &waits {
                let longest = if passed < 600.0 { 60.0 } else { 120.0 };
                assert!((1.0..=longest).contains(wait), "{failure:?} after {passed} s: {waits:?}");
                passed += wait;
            }
            assert!(waits.iter().any(|wait| *wait >= 59.0), "{failure:?}: {waits:?}");
        }
    }
}

#[test]
fn a_long_outage_counts_from_the_end_of_the_token() {
    let down = failure(FailureClass::Transient);
    let (mut streak, now) = (FailureStreak { failures: 20, ..FailureStreak::default() }, start());
    let mut after = |at: u64, remaining: u64| {
        streak.wait_after(&down, now + seconds(at), seconds(remaining), ALMOST_ONE).unwrap().as_secs_f64().round()
            as u64
    };
    assert_eq!(after(0, 7_200), 60);
    assert_eq!(after(7_160, 40), 5);
    // The token ended at 7,200 s.
    assert_eq!(after(7_230, 0), 60);
    assert_eq!(after(7_799, 0), 60);
    assert_eq!(after(7_800, 0), 120);
    // A second token was published, then withdrawn before its expiry.
    assert_eq!(after(7_900, 3_600), 60);
    assert_eq!(after(8_000, 0), 60);
    assert_eq!(after(8_600, 0), 120);
}

#[test]
fn a_long_wait_does_not_outlast_the_token() {
    let requested = |wait| TokenFailure { retry_after: Some(seconds(wait)), ..server_error(503, true) };
    let wait = |failure: &TokenFailure, remaining: u64, jitter: f64| {
        FailureStreak::default().wait_after(failure, start(), seconds(remaining), jitter).unwrap().as_secs_f64()
    };
    for jitter in [0.0, 0.5, ALMOST_ONE] {
        assert!(wait(&requested(900), 3_600, jitter) >= 900.0);
        assert!((50.0..=100.0).contains(&wait(&requested(900), 100, jitter)));
        assert!((30.0..=60.0).contains(&wait(&requested(900), 5, jitter)));
        assert!(wait(&requested(30), 5, jitter) >= 30.0);
    }
    let unreadable = server_error(500, false);
    let waits = waits(&vec![unreadable; 10], &[150], ALMOST_ONE);
    assert!(waits.iter().all(|wait| *wait <= 150.0), "{waits:?}");
}

#[test]
fn other_failures_keep_their_waits_without_a_token() {
    for (class, longest) in
        [(FailureClass::Certificate, 300.0), (FailureClass::Redirect, 300.0), (FailureClass::Throttled, 60.0)]
    {
        let waits = waits(&vec![failure(class); 60], &[0], ALMOST_ONE);
        assert!((longest - 0.1..=longest).contains(&waits[59]), "{class}: {waits:?}");
    }
    let throttled = TokenFailure { retry_after: Some(seconds(900)), ..failure(FailureClass::Throttled) };
    assert!(waits(&[throttled], &[0], 0.0)[0] >= 900.0);
}

#[tokio::test(start_paused = true)]
async fn o02_repeated_refusals_increase_the_refresh_pause() {
    use tokio::time::{Instant, advance};

    let clock = crate::token::Clock::Tokio(Instant::now());
    let mut limiter = EarlyRefreshLimiter::default();
    let mut allowed = Vec::new();
    for second in 0..4_000 {
        if limiter.allows(clock.now()) {
            allowed.push(second);
        }
        advance(seconds(1)).await;
    }
    assert_eq!(allowed, [0, 30, 90, 210, 450, 930, 1830, 2730, 3630]);
    advance(seconds(3600)).await;
    assert!(limiter.allows(clock.now()));
    advance(seconds(30)).await;
    assert!(limiter.allows(clock.now()), "after an hour without refusals the pause is back to its minimum");
}

fn any_class() -> impl Strategy<Value = FailureClass> {
    prop::sample::select(FailureClass::ALL.to_vec())
}

proptest! {
    #[test]
    fn the_wait_until_the_next_request_is_never_zero(
        classes in prop::collection::vec(any_class(), 1..50), remaining in 0_u64..100_000, requested in prop::option::of(0_u64..10_000),
        jitter in 0.0..1.0_f64,
    ) {
        let (mut streak, mut now) = (FailureStreak::default(), start());
        for class in classes {
            let failure = TokenFailure { retry_after: requested.map(seconds), ..failure(class) };
            let wait = streak.wait_after(&failure, now, seconds(remaining), jitter);
            now = now + wait.unwrap_or_default();
            prop_assert!(wait.is_none_or(|wait| wait >= BACKOFF_BASE && wait <= seconds(3960)));
            prop_assert_eq!(wait.is_none(), class == FailureClass::Rejected);
        }
    }

    #[test]
    fn a_token_of_a_minute_or_more_is_refreshed_in_time(s in 60_u64..200_000, jitter in 0.0..1.0_f64) {
        let lifetime = lifetime(s);
        prop_assert!(lifetime.refresh_after(seconds(10), jitter) < lifetime.usable_for());
    }
}
