//! Limits the requests per second.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A token bucket: allows a burst of `per_second` requests, then `per_second` requests a second.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    available: f64,
    updated: Option<Instant>,
}

impl RateLimit {
    pub(super) fn new(per_second: usize) -> Self {
        let per_second = per_second as f64;
        Self { per_second, state: Mutex::new(State { available: per_second, updated: None }) }
    }

    /// Whether a request at `now` is within the rate. If it is, it counts.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = state.updated.map_or(0.0, |updated| now.saturating_duration_since(updated).as_secs_f64());
        state.available = (state.available + elapsed * self.per_second).min(self.per_second);
        state.updated = Some(now);
        let allows = state.available >= 1.0;
        if allows {
            state.available -= 1.0;
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(5);
        let allowed = |at: Duration, tries: usize| (0..tries).filter(|_| limit.allows(start + at)).count();
        assert_eq!(allowed(Duration::ZERO, 10), 5);
        assert_eq!(allowed(Duration::from_millis(100), 10), 0);
        assert_eq!(allowed(Duration::from_millis(400), 10), 2);
        assert_eq!(allowed(Duration::from_secs(100), 10), 5);
    }
}
