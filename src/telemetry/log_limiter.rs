//! Rate-limits a log message to one per second, and counts the events that each line represents.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Minimum time between two lines about the same kind of event.
const INTERVAL: Duration = Duration::from_secs(1);

/// Events of one kind, logged at most once per second.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_logged: Option<Instant>,
    suppressed: u64,
}

impl LogLimiter {
    /// Counts an event. If a line may be written now, returns the number of events since the last line, this one included.
    pub fn count(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.suppressed += 1;
        let now = Instant::now();
        if state.last_logged.is_some_and(|last_logged| now < last_logged + INTERVAL) {
            return None;
        }
        state.last_logged = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn i08_events_are_logged_immediately_then_once_a_second() {
        let limiter = LogLimiter::default();
        assert_eq!(limiter.count(), Some(1));
        for _ in 0..9 {
            advance(INTERVAL / 10).await;
            assert_eq!(limiter.count(), None);
        }
        advance(INTERVAL / 10).await;
        assert_eq!(limiter.count(), Some(10));
        assert_eq!(limiter.count(), None);
        advance(INTERVAL).await;
        assert_eq!(limiter.count(), Some(2));
    }
}
