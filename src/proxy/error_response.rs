//! The one place where the proxy's own errors become responses.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    body::ResponseBody,
    error::{Code, Error},
    exchange::Exchange,
    record::Record,
};
use crate::telemetry::Metrics;

/// Turns every [`Error`] of the layers below into a response, notes it in the [`Record`] and counts it.
#[derive(Clone, Debug)]
pub(super) struct RespondLayer {
    metrics: Arc<Metrics>,
}

impl RespondLayer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        for code in Code::ALL {
            metrics.expect_error(code.as_str());
        }
        Self { metrics }
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Respond { inner, metrics: Arc::clone(&self.metrics) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Respond<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Exchange<B>> for Respond<S>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Error>,
    B: Body,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = RespondFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match ready!(self.inner.poll_ready(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => unreachable!("no layer of the stack fails before it is called"),
        }
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let record = Arc::clone(&exchange.record);
        let has_body = !exchange.request.body().is_end_stream();
        RespondFuture { inner: self.inner.call(exchange), has_body, record, metrics: Arc::clone(&self.metrics) }
    }
}

pin_project! {
    pub(super) struct RespondFuture<F> {
        #[pin]
        inner: F,
        has_body: bool,
        record: Arc<Record>,
        metrics: Arc<Metrics>,
    }
}

impl<F: Future<Output = Result<Response<ResponseBody>, Error>>> Future for RespondFuture<F> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(Ok(ready!(this.inner.poll(cx)).unwrap_or_else(|error| {
            this.record.set_failure(&error);
            this.metrics.own_error(error.code().as_str());
            // What is left of the body would have to be read before the next request, which nobody does.
            let unread = *this.has_body && !this.record.is_request_complete();
            let error = if unread { error.closing() } else { error };
            error.into_response(this.record)
        })))
    }
}
