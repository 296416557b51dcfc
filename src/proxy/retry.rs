//! A request that a connection failed is sent once more, where that can do no harm.
//!
//! Many calls are billed, reading ones included, so the [`Disposition`] of the request decides: either nothing of it was executed,
//! or it reads, is known to cost nothing, and met a connection that was closed already. Every other failure is the caller's
//! to judge. The request that is sent again goes through the layers below once more ([`Resend`]), with the token of that time.
//!
//! Deliberately absent: retrying because no connection could be opened, which tries every address of the name by itself, and
//! because of an answer, whatever it says.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{
    Layer, Service,
    retry::budget::{Budget, TpsBudget},
};

use super::{
    body::ResponseBody,
    error::Error,
    exchange::Exchange,
    replay::{ReplayBody, Resend},
};
use crate::{telemetry::Metrics, upstream::Disposition, vendor::catalogue::Operation};

/// The requests beyond its own that a worker may send: this share of those that came in the last seconds, and one a second,
/// so that a proxy with little to do can retry too. An upstream in trouble gets no more than that on top.
const BUDGET_SHARE: f32 = 0.2;
const BUDGET_PER_SECOND: u32 = 1;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct RetryLayer(Arc<RetryPolicy>);

struct RetryPolicy {
    budget: TpsBudget,
    metrics: Arc<Metrics>,
}

impl RetryLayer {
    /// With its own budget.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let budget = TpsBudget::new(BUDGET_WINDOW, BUDGET_PER_SECOND, BUDGET_SHARE);
        Self(Arc::new(RetryPolicy { budget, metrics }))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryPolicy")
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, policy: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Retry<S> {
    inner: S,
    policy: Arc<RetryPolicy>,
}

impl<S, B> Service<Exchange<ReplayBody<B>>> for Retry<S>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RetryFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<ReplayBody<B>>) -> Self::Future {
        self.policy.budget.deposit();
        let (sending, resend) = Resend::send_first(&mut self.inner, exchange, &self.policy);
        RetryFuture { sending, resend, next_exchange: None }
    }
}

pin_project! {
    pub(super) struct RetryFuture<S, B, F> {
        #[pin]
        sending: F,
        resend: Resend<S, B, RetryPolicy>,
        // What is to be sent again as soon as the service is ready.
        next_exchange: Option<Box<Exchange<ReplayBody<B>>>>,
    }
}

impl<S, B> Future for RetryFuture<S, B, S::Future>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if this.next_exchange.is_some() {
                ready!(this.resend.service.poll_ready(cx))?;
            }
            if let Some(exchange) = this.next_exchange.take() {
                this.sending.set(this.resend.service.call(*exchange));
            }
            let result = ready!(this.sending.as_mut().poll(cx));
            match result.as_ref().err().and_then(|error| this.resend.next_exchange(error)) {
                Some(exchange) => *this.next_exchange = Some(Box::new(exchange)),
                None => return Poll::Ready(result),
            }
        }
    }
}

impl<S, B> Resend<S, B, RetryPolicy> {
    /// The request once more, where `error` allows it and it was not sent again before.
    fn next_exchange(&self, error: &Error) -> Option<Exchange<ReplayBody<B>>> {
        let Self { buffer, record, context: policy, .. } = self;
        let disposition = error.disposition().filter(|disposition| {
            !record.is_retried() && is_retryable(*disposition, record.method(), record.operation())
        })?;
        let request = buffer.resend()?;
        if uses_budget(disposition) && !policy.budget.withdraw() {
            return None;
        }
        record.set_retried();
        policy.metrics.retried();
        Some(Exchange { request, record: Arc::clone(record) })
    }
}

/// Whether a request of that disposition may be sent again.
fn is_retryable(disposition: Disposition, method: &Method, operation: Operation) -> bool {
    match disposition {
        Disposition::NotSent { .. } | Disposition::NotProcessed => true,
        Disposition::NoResponse => method.is_safe() && !operation.is_billable(),
    }
}

/// Whether sending it again is more work for the upstream than it would have had anyway. It never saw the request that was to
/// go over a connection that it had closed.
fn uses_budget(disposition: Disposition) -> bool {
    disposition != Disposition::NotSent { reused: true }
}

#[cfg(test)]
mod tests;
