//! Where a request leaves the way to the upstream: it goes on, is answered here, or is refused, as [`request_target::judge`] and the operator's
//! [`Policy`] say.
//!
//! A request that goes on costs nothing more than these judgements.

mod token_request;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    body::ResponseBody,
    config::Config,
    endpoints::Endpoints,
    error::{Code, Error},
    exchange::Exchange,
    request_target::{self, ALLOWED_METHODS, Verdict},
};
use crate::{
    policy::{Denial, Mode, Policy},
    token::TokenReader,
};

#[derive(Clone, Debug)]
pub(super) struct InterceptLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoints: Endpoints,
    policy: Arc<Policy>,
    token: TokenReader,
}

impl InterceptLayer {
    pub(super) fn new(config: &Config, token: TokenReader) -> Self {
        let (endpoints, policy) = (config.endpoints.clone(), Arc::clone(&config.policy));
        Self(Arc::new(Shared { endpoints, policy, token }))
    }
}

impl Shared {
    /// Judges the request by the operator's policy, and notes what it denies, in either mode.
    ///
    /// # Errors
    ///
    /// [`Code::RouteDenied`] or [`Code::BadRequest`], unless denials are only reported.
    fn allows<B>(&self, Exchange { request, record }: &Exchange<B>) -> Result<(), Error> {
        if self.policy.is_open() {
            return Ok(());
        }
        let judged = self.policy.judge(request.method(), request.uri().path(), record.operation());
        let Err(denial) = judged else { return Ok(()) };
        record.set_policy_denial(denial);
        match self.policy.mode() {
            Mode::Enforce => Err(denied(denial)),
            Mode::Report => Ok(()),
        }
    }
}

impl<S> Layer<S> for InterceptLayer {
    type Service = Intercept<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Intercept { inner, shared: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Intercept<S> {
    inner: S,
    shared: Arc<Shared>,
}

type Answer = Result<Response<ResponseBody>, Error>;

impl<S, B> Service<Exchange<B>> for Intercept<S>
where
    S: Service<Exchange<B>, Response = Response<ResponseBody>, Error = Error>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = InterceptFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Exchange<B>) -> Self::Future {
        match request_target::judge(&self.shared.endpoints, &mut exchange.request) {
            Ok(Verdict::Forward) => match self.shared.allows(&exchange) {
                Ok(()) => InterceptFuture::Forwarded { inner: self.inner.call(exchange) },
                Err(error) => InterceptFuture::Answered { answer: Some(Err(error)) },
            },
            Ok(Verdict::Options) => InterceptFuture::Answered { answer: Some(Ok(methods())) },
            Ok(Verdict::TokenCall(shape)) => {
                let shared = Arc::clone(&self.shared);
                InterceptFuture::Granting {
                    inner: Box::pin(async move { token_request::answer(&shared.token, shape, exchange).await }),
                }
            }
            Err(error) => InterceptFuture::Answered { answer: Some(Err(error)) },
        }
    }
}

/// The answer to a question for the methods.
fn methods() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::local(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOWED_METHODS));
    response
}

/// The response to a request that the policy denies.
fn denied(denial: Denial) -> Error {
    let (code, detail) = match denial {
        Denial::Denied => {
            (Code::RouteDenied, "The operator of this proxy does not let this call through (policy.deny).")
        }
        Denial::Billable => (
            Code::RouteDenied,
            "The operator of this proxy lets no call through that may be billed (policy.deny_billable).",
        ),
        Denial::NotAllowed => (
            Code::RouteDenied,
            "The operator of this proxy does not let this call through (policy.allow does not name it).",
        ),
        Denial::Unclear => (
            Code::BadRequest,
            "This proxy has rules for paths, so a path must be plain: ASCII, no empty segment, no slash at the end, no encoded \
                 or other separator.",
        ),
    };
    Error::new(code, detail)
}

pin_project! {
    #[project = LocalProjection]
    pub(super) enum InterceptFuture<F> {
        Forwarded { #[pin] inner: F },
        Granting { inner: Pin<Box<dyn Future<Output = Answer> + Send>> },
        Answered { answer: Option<Answer> },
    }
}

impl<F: Future<Output = Answer>> Future for InterceptFuture<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.project() {
            LocalProjection::Forwarded { inner } => inner.poll(cx),
            LocalProjection::Granting { inner } => inner.as_mut().poll(cx),
            LocalProjection::Answered { answer } => Poll::Ready(answer.take().expect("polled after it was ready")),
        }
    }
}
