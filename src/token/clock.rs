//! The clock that measures token lifetimes.
//!
//! A lifetime continues while the machine is suspended, and must not change when the wall clock is set. `CLOCK_BOOTTIME`
//! meets both requirements; the clocks of `std` and tokio stop during suspend on Linux.

use std::{
    ops::Add,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep};

/// The longest single timer. After a suspend the timer wheel is late by the suspended time, so a long wait rechecks the clock
/// at this interval; a shorter one would only wake an idle process more often. An idle refresher's heartbeat has the same period.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(10);

/// The wall-clock time at which a simulated clock starts: 2026-01-01, chosen arbitrarily.
const SIMULATED_EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A point in time on a [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The time since the clock's origin.
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later than `self`.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// A source of time.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system clock that counts suspended time and is not affected by wall-clock steps: `CLOCK_BOOTTIME` on Linux and
    /// Android, the monotonic clock elsewhere.
    Boot,
    /// Tokio's clock, counted from the given instant: for tests with paused time.
    Tokio(Instant),
    /// The same without capped sleeps, for simulations of many instances over a long time.
    Simulated(Instant),
    /// Tokio's clock plus suspended time in seconds, which no timer counts: for tests of a suspend.
    #[cfg(test)]
    Suspending(Instant, &'static std::sync::atomic::AtomicU64),
}

impl Clock {
    /// The present.
    pub fn now(self) -> BootInstant {
        BootInstant(match self {
            Self::Boot => boot_time(),
            Self::Tokio(start) | Self::Simulated(start) => start.elapsed(),
            #[cfg(test)]
            Self::Suspending(start, suspended_s) => {
                start.elapsed() + Duration::from_secs(suspended_s.load(std::sync::atomic::Ordering::Relaxed))
            }
        })
    }

    /// The wall clock: the time since the Unix epoch, for timestamps that outlive the process. Zero before the epoch. Simulated
    /// clocks start at a fixed time.
    #[expect(clippy::disallowed_methods, reason = "this is the clock for timestamps that outlive the process")]
    pub fn unix_time(self) -> Duration {
        match self {
            Self::Boot => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Self::Tokio(start) | Self::Simulated(start) => SIMULATED_EPOCH + start.elapsed(),
            #[cfg(test)]
            Self::Suspending(..) => SIMULATED_EPOCH + self.now().since_start(),
        }
    }

    /// Waits until `due`, at most `MAX_SLEEP`: the caller then rechecks the clock and renews its heartbeat. Simulated clocks have
    /// no limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn sleep_until_capped(self, due: BootInstant) {
        let left = due.since(self.now());
        sleep(if matches!(self, Self::Simulated(_)) { left } else { left.min(MAX_SLEEP) }).await;
    }
}

fn boot_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    let time = clock_gettime(ClockId::Boottime);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let time = clock_gettime(ClockId::Monotonic);

    let seconds = u64::try_from(time.tv_sec).expect("the time since boot is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("nanoseconds are below 10^9");
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_is_monotonic() {
        let first = Clock::Boot.now();
        let second = Clock::Boot.now();
        assert!(second >= first);
        assert_eq!(first.since(first + Duration::from_secs(1)), Duration::ZERO);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn n11_the_boot_clock_counts_from_boot_not_from_the_epoch() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((Clock::Boot.now().since_start().as_secs_f64() - uptime).abs() < 5.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_ends_on_time() {
        let clock = Clock::Tokio(Instant::now());
        let due = clock.now() + Duration::from_secs(3_601);
        let mut sleeps = 0;
        while clock.now() < due {
            clock.sleep_until_capped(due).await;
            sleeps += 1;
        }
        assert_eq!(sleeps, 361);
        assert!(clock.now().since(due) < Duration::from_millis(5));
    }
}
