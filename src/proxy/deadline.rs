//! Limits the time to the first byte of the upstream's response.
//!
//! The time counts from the last progress of the request body, so a long upload does not count as a slow response. If the caller stopped
//! sending, it gets a 408 instead. [`ResponseBody`](super::ResponseBody) limits stalls of the response body.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use super::{
    config::Config,
    error::{Code, Error},
    exchange::Exchange,
    record::Record,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct DeadlineLayer {
    normal: Duration,
    slow: Duration,
}

impl DeadlineLayer {
    pub(super) fn new(config: &Config) -> Self {
        Self { normal: config.first_byte_timeout, slow: config.slow_first_byte_timeout }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline { inner, timeouts: *self }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Deadline<S> {
    inner: S,
    timeouts: DeadlineLayer,
}

impl<S, B> Service<Exchange<B>> for Deadline<S>
where
    S: Service<Exchange<B>, Error = Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let record = Arc::clone(&exchange.record);
        let timeout = if record.operation().is_slow() { self.timeouts.slow } else { self.timeouts.normal };
        DeadlineFuture {
            inner: self.inner.call(exchange),
            timer: sleep_until(Instant::now() + timeout),
            timeout,
            record,
        }
    }
}

pin_project! {
    pub(super) struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        #[pin]
        timer: Sleep,
        timeout: Duration,
        record: Arc<Record>,
    }
}

impl<F: Future<Output = Result<T, Error>>, T> Future for DeadlineFuture<F> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.inner.poll(cx) {
            return Poll::Ready(output);
        }
        loop {
            ready!(this.timer.as_mut().poll(cx));
            let deadline = this.record.last_request_progress() + *this.timeout;
            if deadline <= Instant::now() {
                return Poll::Ready(Err(if this.record.is_waiting_for_caller() {
                    Error::new(Code::RequestTimeout, "The request body did not arrive in time.")
                } else if this.record.has_reached_upstream() {
                    Error::new(
                        Code::UpstreamTimeout,
                        "The upstream did not respond in time; it may still execute the request.",
                    )
                } else {
                    Error::new(
                        Code::UpstreamTimeout,
                        "No connection to the upstream was available in time; nothing was sent.",
                    )
                }));
            }
            this.timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use tokio::time::{sleep, timeout};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::vendor::catalogue::Catalogue;

    const TIMEOUTS: DeadlineLayer = DeadlineLayer { normal: Duration::from_secs(60), slow: Duration::from_secs(240) };

    fn exchange(path: &str) -> (Exchange<()>, Arc<Record>) {
        let record = Arc::new(Record::new(Method::GET, None));
        record.set_operation(Catalogue::us().find(&Method::GET, path));
        (Exchange { request: Request::new(()), record: Arc::clone(&record) }, record)
    }

    async fn outcome(path: &str, waiting_for_caller: bool) -> (Code, u64) {
        let service = TIMEOUTS.layer(service_fn(|_: Exchange<()>| std::future::pending::<Result<(), Error>>()));
        let (exchange, record) = exchange(path);
        record.set_waiting_for_caller(waiting_for_caller);
        let started = Instant::now();
        let error = service.oneshot(exchange).await.unwrap_err();
        (error.code(), started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn f15_a_response_that_does_not_arrive_times_out() {
        assert_eq!(outcome("/x", false).await, (Code::UpstreamTimeout, 60));
        let statement = "/aggregation/v1/customers/1/accounts/2/statement";
        assert_eq!(outcome(statement, false).await, (Code::UpstreamTimeout, 240));
        assert_eq!(outcome("/x", true).await, (Code::RequestTimeout, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_of_the_request_body_postpones_the_deadline() {
        let service = TIMEOUTS.layer(service_fn(|_: Exchange<()>| std::future::pending::<Result<(), Error>>()));
        let (exchange, record) = exchange("/x");
        let mut call = std::pin::pin!(service.oneshot(exchange));
        for _ in 0..20 {
            assert!(timeout(Duration::from_secs(50), &mut call).await.is_err());
            record.add_request_bytes(1);
        }
        record.set_request_complete();
        sleep(Duration::from_secs(59)).await;
        assert!(timeout(Duration::from_millis(10), &mut call).await.is_err());
        assert_eq!(call.await.unwrap_err().code(), Code::UpstreamTimeout);
    }
}
