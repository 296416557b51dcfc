//! The outermost layer: assigns the request id, measures the duration, and reports the outcome in one access log line and in the metrics.
//!
//! A request ends when its response body has been read to its end, or is dropped earlier.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{body::ResponseBody, exchange::Exchange, record::Record, request_id::X_REQUEST_ID, vendor_code};
use crate::{
    message::transport::Transport,
    policy::Denial,
    telemetry::{AccessLine, Metrics},
};

#[derive(Clone, Debug)]
pub(super) struct ObserveLayer {
    transport: Transport,
    metrics: Arc<Metrics>,
}

impl ObserveLayer {
    /// For requests that arrive over `transport`.
    pub(super) fn new(transport: Transport, metrics: Arc<Metrics>) -> Self {
        for denial in Denial::ALL {
            metrics.init_policy_denial(denial.as_str());
        }
        Self { transport, metrics }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { inner, transport: self.transport, metrics: Arc::clone(&self.metrics) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Observe<S> {
    inner: S,
    transport: Transport,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<B>> for Observe<S>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let record = Arc::new(Record::new(request.method().clone(), request.headers().get(X_REQUEST_ID)));
        let guard = RequestGuard::new(Arc::clone(&record), self.transport, Arc::clone(&self.metrics));
        ObserveFuture { inner: self.inner.call(Exchange { request, record }), guard: Some(guard) }
    }
}

pin_project! {
    pub(super) struct ObserveFuture<F> {
        #[pin]
        inner: F,
        guard: Option<RequestGuard>,
    }
}

impl<F: Future<Output = Result<Response<ResponseBody>, Infallible>>> Future for ObserveFuture<F> {
    type Output = Result<Response<ObservedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let mut guard = this.guard.take().expect("polled after it was ready");
        guard.status = Some(response.status());
        let error_body_length = vendor_code::expected_length(&guard.record, &response);
        response.headers_mut().insert(X_REQUEST_ID, guard.record.id().clone());
        Poll::Ready(Ok(response.map(|body| {
            // hyper never polls an empty body, or the body of a response to HEAD.
            let nothing_to_send = body.is_end_stream() || *guard.record.method() == Method::HEAD;
            guard.outcome = if nothing_to_send { Outcome::Complete } else { Outcome::Aborted };
            ObservedBody { inner: body, guard, error_body_length }
        })))
    }
}

/// A response body that records its outcome.
#[derive(Debug)]
pub struct ObservedBody {
    inner: ResponseBody,
    guard: RequestGuard,
    /// The length of the body while it may hold a vendor error code.
    error_body_length: Option<u64>,
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                self.guard.response_bytes += data.len() as u64;
                if self.error_body_length.take() == Some(data.len() as u64) {
                    vendor_code::record_json(&self.guard.record, data);
                }
                if self.inner.is_end_stream() {
                    self.guard.outcome = Outcome::Complete;
                }
            }
            Some(Err(_)) => self.guard.outcome = Outcome::Truncated,
            None => self.guard.outcome = Outcome::Complete,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The whole response was read.
    Complete,
    /// The client disconnected earlier.
    Aborted,
    /// The upstream's response body failed, so the client got an incomplete response.
    Truncated,
}

/// Writes the access log line and counts the request when dropped, however the request ended.
#[derive(Debug)]
struct RequestGuard {
    record: Arc<Record>,
    transport: Transport,
    metrics: Arc<Metrics>,
    status: Option<StatusCode>,
    response_bytes: u64,
    outcome: Outcome,
}

impl RequestGuard {
    fn new(record: Arc<Record>, transport: Transport, metrics: Arc<Metrics>) -> Self {
        metrics.in_flight().inc();
        Self { record, transport, metrics, status: None, response_bytes: 0, outcome: Outcome::Aborted }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let record = &self.record;
        record.set_finished();
        let operation = record.operation();
        let duration = record.started().elapsed();
        let counters =
            self.metrics.route(operation.index(), operation.method(), operation.template(), operation.is_billable());
        counters.finished(self.status, duration);
        if record.has_reached_upstream() {
            counters.reached_upstream();
        }
        if let Some(denial) = record.policy_denial() {
            self.metrics.policy_denied(denial.as_str());
        }
        if record.has_sent_credentials() {
            self.metrics.caller_credentials();
        }
        let first_byte = record.upstream_first_byte();
        if let Some(duration) = first_byte {
            counters.observe_first_byte(duration);
        }
        self.metrics.in_flight().dec();
        self.log(duration);
    }
}

impl RequestGuard {
    fn log(&self, duration: Duration) {
        let record = &self.record;
        let error = record.error();
        let upstream_error = self.status.as_ref().filter(|status| status.is_server_error()).map(StatusCode::as_str);
        AccessLine {
            method: known_method(record.method()),
            route: record.operation().template(),
            path_prefix: record.known_prefix(),
            transport: match self.transport {
                Transport::Tcp => "tcp",
                Transport::Unix => "unix",
            },
            status: self.status.map(|status| status.as_u16()),
            upstream_status: record.upstream_status(),
            policy_denial: record.policy_denial().map(Denial::as_str),
            vendor_code: record.vendor_code(),
            outcome: match self.outcome {
                Outcome::Complete => "complete",
                Outcome::Aborted => "aborted",
                Outcome::Truncated => "truncated",
            },
            duration,
            queue_wait: record.queue_wait(),
            token_wait: record.token_wait(),
            first_byte: record.upstream_first_byte(),
            request_bytes: record.request_bytes(),
            response_bytes: self.response_bytes,
            request_id: record.id().to_str().unwrap_or_default(),
            token_version: record.token_version(),
            connection_reused: record.connection_reused(),
            replayed: record.is_replayed(),
            retried: record.is_retried(),
            is_own_failure: error.is_some() && upstream_error.is_some(),
            error: error.map(|(code, _)| code).or(upstream_error),
            cause: error.and_then(|(_, cause)| cause),
        }
        .log();
    }
}

/// The method if it is a well-known one, or else `_OTHER`: a client can send any token as a method.
fn known_method(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS
        | Method::TRACE
        | Method::CONNECT => method.as_str(),
        _ => "_OTHER",
    }
}
