//! A limit on waiting: it runs while somebody waits, and costs nothing while nobody has to.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// How long somebody waits for something, again and again.
#[derive(Debug)]
pub struct StallTimer {
    limit: Duration,
    /// Set from the first look at what has not come, until it has.
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    /// Of `limit`, each time anew.
    pub fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Goes on waiting. Ready when it has been for too long.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx)
    }

    /// What was waited for has come.
    pub fn restore(&mut self) {
        self.timer = None;
    }

    /// Passes `done` on, and fails with `lost` when it has been pending for too long.
    pub fn bound<T>(
        &mut self,
        done: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
        lost: &'static str,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.restore();
            return done;
        }
        ready!(self.poll_lost(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, lost)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_lost_after_the_limit_and_whole_again_when_what_was_waited_for_comes() {
        let mut patience = StallTimer::new(Duration::from_secs(10));
        let mut look = |done: Poll<()>| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            patience.bound(done.map(Ok), &mut cx, "lost").map(|result| result.map_err(|error| error.kind()))
        };
        assert_eq!(look(Poll::Pending), Poll::Pending);
        advance(Duration::from_secs(9)).await;
        assert_eq!(look(Poll::Pending), Poll::Pending);
        assert_eq!(look(Poll::Ready(())), Poll::Ready(Ok(())));
        advance(Duration::from_secs(9)).await;
        assert_eq!(look(Poll::Pending), Poll::Pending);
        advance(Duration::from_secs(11)).await;
        assert_eq!(look(Poll::Pending), Poll::Ready(Err(io::ErrorKind::TimedOut)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_when_it_is_lost() {
        let mut patience = StallTimer::new(Duration::from_secs(10));
        let started = Instant::now();
        poll_fn(|cx| patience.poll_lost(cx)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }
}
