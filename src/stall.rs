//! A stall timeout for polled I/O. The timer exists only between a `Pending` and the next progress.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// Limits each wait for progress.
#[derive(Debug)]
pub struct StallTimer {
    limit: Duration,
    /// `Some` from the first `Pending` until the next progress.
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    /// A timer that elapses after `limit` without progress.
    pub fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Ready when there has been no progress for the limit. The first call starts the timer.
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx)
    }

    /// Stops the timer. Call it on progress.
    pub fn reset(&mut self) {
        self.timer = None;
    }

    /// Returns `result`, or a [`TimedOut`](io::ErrorKind::TimedOut) error with `message` once `result` has been pending for the limit.
    pub fn guard<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
        message: &'static str,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.reset();
            return result;
        }
        ready!(self.poll_elapsed(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn elapses_after_the_limit_unless_reset() {
        let mut timer = StallTimer::new(Duration::from_secs(10));
        let mut poll = |result: Poll<()>| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            timer.guard(result.map(Ok), &mut cx, "lost").map(|result| result.map_err(|error| error.kind()))
        };
        assert_eq!(poll(Poll::Pending), Poll::Pending);
        advance(Duration::from_secs(9)).await;
        assert_eq!(poll(Poll::Pending), Poll::Pending);
        assert_eq!(poll(Poll::Ready(())), Poll::Ready(Ok(())));
        advance(Duration::from_secs(9)).await;
        assert_eq!(poll(Poll::Pending), Poll::Pending);
        advance(Duration::from_secs(11)).await;
        assert_eq!(poll(Poll::Pending), Poll::Ready(Err(io::ErrorKind::TimedOut)));
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_the_task_when_it_elapses() {
        let mut timer = StallTimer::new(Duration::from_secs(10));
        let started = Instant::now();
        poll_fn(|cx| timer.poll_elapsed(cx)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }
}
