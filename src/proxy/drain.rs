//! Responds with 503 to requests that are still open when `shutdown.drain_timeout` expires, and to new ones after that.
//!
//! The expiry is one atomic number. `server::connection` polls each connection once when it changes, so this layer keeps no list of
//! wakers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    error::{Code, Error},
    exchange::Exchange,
    record::Record,
};
use crate::process::drain::Drain;

/// Another instance, or this one's successor, can serve the retry, so the minimum that `Retry-After` can express is enough.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Fails requests, new and open ones, once the drain deadline has passed.
#[derive(Clone, Debug)]
pub(super) struct DrainLayer {
    drain: Drain,
}

impl DrainLayer {
    pub(super) fn new(drain: Drain) -> Self {
        Self { drain }
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = DrainDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DrainDeadline { inner, drain: self.drain.clone() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct DrainDeadline<S> {
    inner: S,
    drain: Drain,
}

impl<S, B> Service<Exchange<B>> for DrainDeadline<S>
where
    S: Service<Exchange<B>, Error = Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DrainDeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let record = Arc::clone(&exchange.record);
        let inner = (!self.drain.is_expired()).then(|| self.inner.call(exchange));
        DrainDeadlineFuture { inner, record, drain: self.drain.clone() }
    }
}

pin_project! {
    pub(super) struct DrainDeadlineFuture<F> {
        // Absent for a request that arrived after the drain deadline.
        #[pin]
        inner: Option<F>,
        record: Arc<Record>,
        drain: Drain,
    }
}

impl<F: Future<Output = Result<T, Error>>, T> Future for DrainDeadlineFuture<F> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.inner.as_pin_mut() {
            None => rejected_while_draining(),
            // Not polled, because polling could send it: another request may have released its permit.
            Some(_) if this.drain.is_expired() && !this.record.has_reached_upstream() => rejected_while_draining(),
            Some(inner) => match inner.poll(cx) {
                Poll::Pending if this.drain.is_expired() => cut_off(),
                polled => return polled,
            },
        };
        this.drain.count_aborted();
        Poll::Ready(Err(error))
    }
}

/// The error of a request that was not sent to the upstream.
fn rejected_while_draining() -> Error {
    Error::new(Code::Draining, "The proxy is shutting down and accepts no more requests; retry.")
        .with_retry_after(RETRY_AFTER)
}

/// The error of a request that the upstream may have received. It has no `Retry-After`, because a retry could execute the request twice.
fn cut_off() -> Error {
    Error::new(
        Code::Draining,
        "The proxy is shutting down and the upstream has not responded; the upstream may still execute the request.",
    )
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn q03_requests_open_at_the_drain_deadline_fail_and_are_counted() {
        let drain = Drain::default();
        let layered = |responds: bool| {
            DrainLayer::new(drain.clone()).layer(service_fn(move |_: Exchange<()>| async move {
                if !responds {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Error>("response")
            }))
        };
        let record = Arc::new(Record::new(Method::GET, None));
        let exchange = || Exchange { request: Request::new(()), record: Arc::clone(&record) };
        let mut cx = Context::from_waker(std::task::Waker::noop());

        drain.begin();
        assert_eq!(layered(true).oneshot(exchange()).await.unwrap(), "response");
        let mut waiting = std::pin::pin!(layered(false).oneshot(exchange()));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        record.begin_attempt();
        drain.expire();
        assert_eq!(waiting.await.unwrap_err().code(), Code::Draining);
        assert_eq!(layered(true).oneshot(exchange()).await.unwrap_err().code(), Code::Draining);
        assert_eq!(drain.aborted(), 2);
    }

    #[tokio::test]
    async fn an_unsent_request_is_not_sent_after_the_drain_deadline() {
        let drain = Drain::default();
        let is_sent = std::cell::Cell::new(false);
        let service = service_fn(|exchange: Exchange<()>| {
            let is_sent = &is_sent;
            async move {
                tokio::task::yield_now().await;
                is_sent.set(true);
                exchange.record.begin_attempt();
                Ok::<(), Error>(())
            }
        });
        let exchange = Exchange { request: Request::new(()), record: Record::new(Method::GET, None).into() };
        let mut queued = std::pin::pin!(DrainLayer::new(drain.clone()).layer(service).oneshot(exchange));
        assert!(queued.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        drain.begin();
        drain.expire();
        let error = queued.await.unwrap_err();
        assert_eq!((error.code(), error.retry_after, is_sent.get()), (Code::Draining, Some(RETRY_AFTER), false));
    }
}
