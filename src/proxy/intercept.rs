//! Forwards a request, responds to it locally, or rejects it, by [`request_target::classify`] and the operator's [`Policy`].
//!
//! A forwarded request costs only these checks.

mod token_format;
mod token_request;
mod webhook_verification;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use self::webhook_verification::WebhookVerification;
use super::{
    billing::{BillingBudget, Reservation},
    body::ResponseBody,
    config::Config,
    endpoints::AuthEndpoints,
    error::{Code, Error},
    exchange::{Exchange, ResponseResult},
    request_target::{self, ALLOWED_METHODS, RequestAction},
    webhook::SharedSigningKeys,
};
use crate::{
    policy::{Denial, Mode, Policy},
    token::TokenReader,
};

#[derive(Clone, Debug)]
pub(super) struct InterceptLayer(Arc<Interceptor>);

#[derive(Debug)]
struct Interceptor {
    endpoints: AuthEndpoints,
    policy: Arc<Policy>,
    billing: Option<Arc<BillingBudget>>,
    token: TokenReader,
    webhooks: WebhookVerification,
}

impl InterceptLayer {
    pub(super) fn new(
        config: &Config,
        token: TokenReader,
        billing: Option<Arc<BillingBudget>>,
        signing_keys: SharedSigningKeys,
    ) -> Self {
        let (endpoints, policy) = (config.endpoints.clone(), Arc::clone(&config.policy));
        let webhooks = WebhookVerification::new(&config.webhook, signing_keys);
        Self(Arc::new(Interceptor { endpoints, policy, billing, token, webhooks }))
    }
}

impl Interceptor {
    /// Checks the request against the operator's policy and the daily billing budget.
    ///
    /// # Errors
    ///
    /// Those of [`check_policy`](Self::check_policy) and [`check_budget`](Self::check_budget).
    fn admit<B>(&self, exchange: &Exchange<B>) -> Result<Option<Reservation>, Error> {
        self.check_policy(exchange)?;
        self.check_budget(exchange)
    }

    /// Checks the request against the operator's policy. Records a denial in both modes.
    ///
    /// # Errors
    ///
    /// [`Code::RouteDenied`] or [`Code::BadRequest`], unless denials are only reported.
    fn check_policy<B>(&self, Exchange { request, record }: &Exchange<B>) -> Result<(), Error> {
        if self.policy.is_open() {
            return Ok(());
        }
        let decision = self.policy.check(request.method(), request.uri().path(), record.operation());
        let Err(denial) = decision else { return Ok(()) };
        record.set_policy_denial(denial);
        match self.policy.mode() {
            Mode::Enforce => Err(denial_error(denial)),
            Mode::Report => Ok(()),
        }
    }
}

impl Interceptor {
    /// Reserves one call of the daily budget for a billable request. Records a denial if the budget is spent.
    ///
    /// # Errors
    ///
    /// [`Code::BillingBudgetSpent`], unless denials are only reported.
    fn check_budget<B>(&self, Exchange { record, .. }: &Exchange<B>) -> Result<Option<Reservation>, Error> {
        let Some(billing) = self.billing.as_ref().filter(|_| record.operation().is_billable()) else {
            return Ok(None);
        };
        let is_enforced = self.policy.mode() == Mode::Enforce;
        let is_spent = !is_enforced && billing.is_spent();
        let reservation = billing.reserve(!is_enforced);
        if reservation.is_none() || is_spent {
            record.set_policy_denial(Denial::BudgetSpent);
        }
        match reservation {
            None => Err(denial_error(Denial::BudgetSpent).with_retry_after(billing.until_next_day())),
            reserved => Ok(reserved),
        }
    }
}

impl<S> Layer<S> for InterceptLayer {
    type Service = Intercept<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Intercept { inner, interceptor: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Intercept<S> {
    inner: S,
    interceptor: Arc<Interceptor>,
}

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
        match request_target::classify(&self.interceptor.endpoints, &mut exchange.request) {
            Ok(RequestAction::Forward) => match self.interceptor.admit(&exchange) {
                Ok(reservation) => InterceptFuture::Forwarded { inner: self.inner.call(exchange), reservation },
                Err(error) => InterceptFuture::Done { result: Some(Err(error)) },
            },
            Ok(RequestAction::Options) => InterceptFuture::Done { result: Some(Ok(options_response())) },
            Ok(RequestAction::TokenRequest(shape)) => {
                let interceptor = Arc::clone(&self.interceptor);
                InterceptFuture::Local {
                    inner: Box::pin(async move { token_request::respond(&interceptor.token, shape, exchange).await }),
                }
            }
            Ok(RequestAction::WebhookVerification) => {
                let interceptor = Arc::clone(&self.interceptor);
                InterceptFuture::Local { inner: Box::pin(async move { interceptor.webhooks.respond(exchange).await }) }
            }
            Err(error) => InterceptFuture::Done { result: Some(Err(error)) },
        }
    }
}

/// The local response to `OPTIONS`.
fn options_response() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOWED_METHODS));
    response
}

/// The error of a request that the policy denies.
fn denial_error(denial: Denial) -> Error {
    let (code, detail) = match denial {
        Denial::Denied => (Code::RouteDenied, "Denied by the operator's policy (policy.deny)."),
        Denial::Billable => {
            (Code::RouteDenied, "Billable calls are denied by the operator's policy (policy.deny_billable).")
        }
        Denial::BudgetSpent => (
            Code::BillingBudgetSpent,
            "The daily budget of billable calls is spent, or reserved by calls in progress (policy.billable_per_day); it resets at \
             00:00 UTC.",
        ),
        Denial::NotAllowed => (Code::RouteDenied, "Not allowed by the operator's policy (no match in policy.allow)."),
        Denial::Ambiguous => (
            Code::BadRequest,
            "The operator's policy requires a plain path: ASCII only, no empty segment, no trailing slash, no encoded or alternative \
             separator.",
        ),
    };
    Error::new(code, detail)
}

pin_project! {
    #[project = InterceptProjection]
    pub(super) enum InterceptFuture<F> {
        Forwarded { #[pin] inner: F, reservation: Option<Reservation> },
        Local { inner: Pin<Box<dyn Future<Output = ResponseResult> + Send>> },
        Done { result: Option<ResponseResult> },
    }
}

impl<F: Future<Output = ResponseResult>> Future for InterceptFuture<F> {
    type Output = ResponseResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ResponseResult> {
        match self.project() {
            InterceptProjection::Forwarded { inner, reservation } => {
                let result = ready!(inner.poll(cx));
                if let Some(reservation) = reservation.take()
                    && result.as_ref().is_ok_and(|response| response.status().is_success())
                {
                    reservation.spend();
                }
                Poll::Ready(result)
            }
            InterceptProjection::Local { inner } => inner.as_mut().poll(cx),
            InterceptProjection::Done { result } => Poll::Ready(result.take().expect("polled after it was ready")),
        }
    }
}
