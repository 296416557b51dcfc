//! A layer made of one function that checks or changes a request, and passes or rejects it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{error::Error, exchange::Exchange};

/// The layer of the function `check`.
pub(super) fn filter<F>(check: F) -> FilterLayer<F> {
    FilterLayer { check }
}

#[derive(Clone, Debug)]
pub(super) struct FilterLayer<F> {
    check: F,
}

impl<S, F: Clone> Layer<S> for FilterLayer<F> {
    type Service = Filter<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Filter { inner, check: self.check.clone() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Filter<S, F> {
    inner: S,
    check: F,
}

impl<S, F, B> Service<Exchange<B>> for Filter<S, F>
where
    S: Service<Exchange<B>, Error = Error>,
    F: Fn(&mut Exchange<B>) -> Result<(), Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = FilterFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Exchange<B>) -> Self::Future {
        match (self.check)(&mut exchange) {
            Ok(()) => FilterFuture::Passed { inner: self.inner.call(exchange) },
            Err(error) => FilterFuture::Rejected { error: Some(error) },
        }
    }
}

pin_project! {
    #[project = FilterProjection]
    pub(super) enum FilterFuture<F> {
        Passed { #[pin] inner: F },
        Rejected { error: Option<Error> },
    }
}

impl<F: Future<Output = Result<T, Error>>, T> Future for FilterFuture<F> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            FilterProjection::Passed { inner } => inner.poll(cx),
            FilterProjection::Rejected { error } => Poll::Ready(Err(error.take().expect("polled after it was ready"))),
        }
    }
}
