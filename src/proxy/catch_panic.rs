//! A panic in one request is that request's alone: it becomes a 500, is counted, and no other request notices.
//!
//! tower-http's layer of this name boxes every response body; this one costs nothing when nothing goes wrong.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    error::{Code, Error},
    exchange::Exchange,
};
use crate::telemetry::Metrics;

#[derive(Clone, Debug)]
pub(super) struct CatchPanicLayer {
    metrics: Arc<Metrics>,
}

impl CatchPanicLayer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CatchPanic { inner, metrics: Arc::clone(&self.metrics) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct CatchPanic<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Exchange<B>> for CatchPanic<S>
where
    S: Service<Exchange<B>, Error = Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(exchange))).ok();
        CatchPanicFuture { inner, metrics: Arc::clone(&self.metrics) }
    }
}

pin_project! {
    pub(super) struct CatchPanicFuture<F> {
        #[pin]
        inner: Option<F>,
        metrics: Arc<Metrics>,
    }
}

impl<F: Future<Output = Result<T, Error>>, T> Future for CatchPanicFuture<F> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.as_pin_mut().and_then(|inner| catch_unwind(AssertUnwindSafe(|| inner.poll(cx))).ok());
        polled.unwrap_or_else(|| {
            // The panic hook has logged it already.
            this.metrics.panicked();
            Poll::Ready(Err(Error::new(Code::Internal, "The proxy failed on this request; this is a bug in it.")))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::proxy::Record;

    #[tokio::test]
    async fn q15_a_panic_is_an_error_of_one_request() {
        let metrics = Arc::new(Metrics::new());
        let service = CatchPanicLayer::new(Arc::clone(&metrics)).layer(service_fn(|exchange: Exchange<bool>| {
            let at_once = *exchange.request.body();
            assert!(!at_once, "at once");
            async move {
                assert!(at_once, "later");
                Ok::<(), Error>(())
            }
        }));
        for at_once in [true, false] {
            let exchange =
                Exchange { request: Request::new(at_once), record: Arc::new(Record::new(Method::GET, None)) };
            assert_eq!(service.clone().oneshot(exchange).await.unwrap_err().code(), Code::Internal);
        }
        assert!(metrics.render().contains("finicity_proxy_panics_total 2"));
    }
}
