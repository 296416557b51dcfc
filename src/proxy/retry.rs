//! Resends a request once after a connection failure, where that is safe.
//!
//! Many calls are billed, reads included, so the [`Disposition`] of the request decides. A request is resent if the upstream did not execute
//! it, or if it is a free read and a reused connection closed without a response. The caller has to judge every other failure. The resend
//! goes through the layers below again ([`Resend`]), with the token of that time.
//!
//! Deliberately absent: retries if no connection could be opened, because opening one already tries every address; and retries because of a
//! response, whatever its status.

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

/// The retry budget of one layer, which is one worker and transport: this share of the requests of the last seconds, and one a second, so
/// that a proxy with little traffic can retry too. It bounds the extra load on a failing upstream. Share and window are tower's defaults.
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
    /// A layer with its own budget.
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
        // The request to resend once the service is ready.
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
    /// The request to resend, if `error` allows a retry and the request was not retried before.
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

/// Whether a request with this disposition may be resent.
fn is_retryable(disposition: Disposition, method: &Method, operation: Operation) -> bool {
    match disposition {
        Disposition::NotSent { .. } | Disposition::NotProcessed => true,
        Disposition::NoResponse => method.is_safe() && !operation.is_billable(),
    }
}

/// Whether a retry takes from the budget because it is extra load for the upstream. If a reused connection closed before the request was
/// written, the upstream never saw the first attempt.
fn uses_budget(disposition: Disposition) -> bool {
    disposition != Disposition::NotSent { reused: true }
}

#[cfg(test)]
mod tests;
