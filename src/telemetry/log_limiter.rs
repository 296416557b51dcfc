//! What may happen thousands of times a second and is to be logged once in one.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The shortest time between two lines about the same thing.
const INTERVAL: Duration = Duration::from_secs(1);

/// Events of one kind, of which the log is told once a second at most.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl LogLimiter {
    /// Counts an event. Returns how many there were since the log was last told, when it may be told again now.
    pub fn count(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        let now = Instant::now();
        if state.told.is_some_and(|told| now < told + INTERVAL) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn i08_the_first_event_is_told_at_once_and_the_others_once_a_second() {
        let seldom = LogLimiter::default();
        assert_eq!(seldom.count(), Some(1));
        for _ in 0..9 {
            advance(INTERVAL / 10).await;
            assert_eq!(seldom.count(), None);
        }
        advance(INTERVAL / 10).await;
        assert_eq!(seldom.count(), Some(10));
        assert_eq!(seldom.count(), None);
        advance(INTERVAL).await;
        assert_eq!(seldom.count(), Some(2));
    }
}
