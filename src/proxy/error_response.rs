//! Turns the proxy's own errors into responses. No other module does.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Method, Response, header};
use http_body::Body;
use pin_project_lite::pin_project;
use serde::Serialize;
use tower::{Layer, Service};

use super::{
    body::ResponseBody,
    error::{Code, Error, Executed, TYPE_PREFIX, X_FINICITY_PROXY_ERROR, X_FINICITY_PROXY_EXECUTED},
    exchange::Exchange,
    record::Record,
    request_target::ALLOWED_METHODS,
};
use crate::telemetry::Metrics;

/// Turns every [`Error`] of the layers below into a response, stores it in the [`Record`] and counts it.
#[derive(Clone, Debug)]
pub(super) struct ErrorResponseLayer {
    metrics: Arc<Metrics>,
}

impl ErrorResponseLayer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        for code in Code::ALL {
            metrics.init_error(code.as_str());
        }
        Self { metrics }
    }
}

impl<S> Layer<S> for ErrorResponseLayer {
    type Service = ErrorResponse<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorResponse { inner, metrics: Arc::clone(&self.metrics) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct ErrorResponse<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Exchange<B>> for ErrorResponse<S>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Error>,
    B: Body,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ErrorResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match ready!(self.inner.poll_ready(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => unreachable!("no layer of the stack fails before it is called"),
        }
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let record = Arc::clone(&exchange.record);
        let has_body = !exchange.request.body().is_end_stream();
        ErrorResponseFuture { inner: self.inner.call(exchange), has_body, record, metrics: Arc::clone(&self.metrics) }
    }
}

pin_project! {
    pub(super) struct ErrorResponseFuture<F> {
        #[pin]
        inner: F,
        has_body: bool,
        record: Arc<Record>,
        metrics: Arc<Metrics>,
    }
}

impl<F: Future<Output = Result<Response<ResponseBody>, Error>>> Future for ErrorResponseFuture<F> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(Ok(ready!(this.inner.poll(cx)).unwrap_or_else(|error| {
            this.record.set_error(&error);
            this.metrics.proxy_error(error.code().as_str());
            // The rest of the body would have to be read before the next request, and no layer reads it any more.
            let unread = *this.has_body && !this.record.is_request_complete();
            let error = if unread { error.closing_connection() } else { error };
            into_response(error, this.record)
        })))
    }
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The error response to the request of `record`: `application/problem+json` (RFC 9457).
pub(super) fn into_response(error: Error, record: &Record) -> Response<ResponseBody> {
    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: &'a str,
        title: &'a str,
        status: u16,
        code: &'a str,
        executed: &'a str,
        detail: &'a str,
        request_id: &'a str,
    }

    let (status, executed) = (error.code.status(), record.executed());
    let problem = Problem {
        r#type: &[TYPE_PREFIX, error.code.as_str()].concat(),
        title: status.canonical_reason().expect("every code has a registered status"),
        status: status.as_u16(),
        code: error.code.as_str(),
        executed: executed.as_str(),
        detail: &error.detail,
        request_id: record.id().to_str().unwrap_or_default(),
    };
    let body = serde_json::to_vec(&problem).expect("strings and numbers are always serialisable");
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(X_FINICITY_PROXY_ERROR, HeaderValue::from_static(error.code.as_str()));
    headers.insert(X_FINICITY_PROXY_EXECUTED, HeaderValue::from_static(executed.as_str()));
    // Many HTTP clients retry automatically on this field, so it is omitted if a retry could execute the request twice.
    if let Some(retry_after) = error.retry_after.filter(|_| executed == Executed::No) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
    }
    if error.closes_connection {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if error.code == Code::MethodNotAllowed {
        headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED_METHODS));
    }
    if *record.method() == Method::CONNECT {
        // The bytes that follow are meant for the tunnel and must not be parsed as requests.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::token::Unavailable;

    #[tokio::test]
    async fn f23_an_error_becomes_a_problem_document_without_its_cause() {
        let record = Record::new(Method::GET, Some(&HeaderValue::from_static("id-1")));
        let error = Error::new(Code::UpstreamTls, "detail").with_source("canary cause");
        assert_eq!(error.cause(), None, "only known causes are logged");
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::new(Code::UpstreamTls, "detail").with_source(refused);
        assert_eq!(error.cause().as_deref(), Some("connection refused"));
        let response = into_response(error, &record);
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["x-finicity-proxy-error"], "upstream_tls");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected =
            r##"{"type":"/docs/errors.md#upstream_tls","title":"Bad Gateway","status":502,"code":"upstream_tls","##;
        assert_eq!(body, format!(r#"{expected}"executed":"no","detail":"detail","request_id":"id-1"}}"#));
    }

    #[test]
    fn a_missing_token_sets_retry_after() {
        let record = Record::new(Method::GET, None);
        for (unavailable, code, seconds) in [
            (Unavailable::NoToken { retry_after: Duration::from_millis(7_500) }, "token_unavailable", "7"),
            (Unavailable::NoToken { retry_after: Duration::ZERO }, "token_unavailable", "1"),
            (Unavailable::Rejected, "credentials_rejected", "60"),
            (Unavailable::Quarantined, "quarantined", "60"),
            (Unavailable::TooManyWaiters, "overloaded", "1"),
        ] {
            let response = into_response(Error::without_token(unavailable, None), &record);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()["x-finicity-proxy-error"], code);
            assert_eq!(response.headers()["retry-after"], seconds);
        }
    }

    #[test]
    fn retry_after_is_sent_only_if_the_request_was_not_executed() {
        let record = Record::new(Method::GET, None);
        let check = |executed: &str, retry_after: Option<&str>| {
            let response = into_response(Error::overloaded("x"), &record);
            let field = |name| response.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap());
            assert_eq!((field("x-finicity-proxy-executed"), field("retry-after")), (Some(executed), retry_after));
        };
        check("no", Some("1"));
        record.begin_attempt();
        check("unknown", None);
        record.begin_attempt();
        record.withdraw_attempt();
        check("unknown", None);
        record.withdraw_attempt();
        check("no", Some("1"));
    }

    #[test]
    fn method_not_allowed_lists_the_allowed_methods() {
        let response = into_response(Error::new(Code::MethodNotAllowed, "x"), &Record::new(Method::TRACE, None));
        assert_eq!(response.headers()["allow"], "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
}
