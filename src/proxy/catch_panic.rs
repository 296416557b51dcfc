//! Turns a panic into a 500 response to its own request and counts it. Other requests are not affected.
//!
//! tower-http's layer of this name boxes every response body; this one costs nothing without a panic.

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
            // The panic hook has already logged it.
            this.metrics.panicked();
            Poll::Ready(Err(Error::new(Code::Internal, "Internal error: this is a bug in the proxy.")))
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
    async fn q15_a_panic_fails_only_its_own_request() {
        let metrics = Arc::new(Metrics::new());
        let service = CatchPanicLayer::new(Arc::clone(&metrics)).layer(service_fn(|exchange: Exchange<bool>| {
            let panics_in_call = *exchange.request.body();
            assert!(!panics_in_call, "in call");
            async move {
                assert!(panics_in_call, "in the future");
                Ok::<(), Error>(())
            }
        }));
        for panics_in_call in [true, false] {
            let exchange =
                Exchange { request: Request::new(panics_in_call), record: Arc::new(Record::new(Method::GET, None)) };
            assert_eq!(service.clone().oneshot(exchange).await.unwrap_err().code(), Code::Internal);
        }
        assert!(metrics.render().contains("finicity_proxy_panics_total 2"));
    }
}
