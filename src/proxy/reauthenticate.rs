//! Replaces a token that the upstream refuses, and resends the request once.
//!
//! If a 401 is about the token ([`refused_token`]), this layer requests a newer token from the refresher and resends the request, which
//! a `ReplayBuffer` holds, through the layers below. Every other response passes unchanged, and so does the 401 if no newer token is
//! available in time or the request cannot be resent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tokio::time::timeout;
use tower::{Layer, Service};

use super::{
    body::{Remainder, ResponseBody},
    config::Config,
    error::Error,
    exchange::{Exchange, ResponseResult},
    replay::{ReplayBody, ReplayBuffer, Resend},
    vendor_code,
};
use crate::{
    telemetry::{Metrics, ReauthOutcome},
    token::TokenControl,
    vendor::refused_token,
};

#[derive(Clone, Debug)]
pub(super) struct ReauthLayer(Arc<Reauthenticator>);

#[derive(Debug)]
struct Reauthenticator {
    control: TokenControl,
    metrics: Arc<Metrics>,
    wait: Duration,
}

impl ReauthLayer {
    pub(super) fn new(config: &Config, control: TokenControl, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Reauthenticator { control, metrics, wait: config.reauth_wait }))
    }
}

impl<S> Layer<S> for ReauthLayer {
    type Service = Reauth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Reauth { inner, reauthenticator: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Reauth<S> {
    inner: S,
    reauthenticator: Arc<Reauthenticator>,
}

impl<S, B> Service<Exchange<ReplayBody<B>>> for Reauth<S>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ReauthFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<ReplayBody<B>>) -> Self::Future {
        let (first, resend) = Resend::send_first(&mut self.inner, exchange, &self.reauthenticator);
        ReauthFuture::First { inner: first, resend: Some(resend) }
    }
}

pin_project! {
    #[project = ReauthProjection]
    pub(super) enum ReauthFuture<S, B, F> {
        First { #[pin] inner: F, resend: Option<Resend<S, B, Reauthenticator>> },
        Reauthenticating { inner: Pin<Box<dyn Future<Output = ResponseResult> + Send>> },
    }
}

impl<S, B> Future for ReauthFuture<S, B, S::Future>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Output = ResponseResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ResponseResult> {
        loop {
            let second = match self.as_mut().project() {
                ReauthProjection::Reauthenticating { inner } => return inner.as_mut().poll(cx),
                ReauthProjection::First { inner, resend } => match ready!(inner.poll(cx)) {
                    Ok(response) if response.status() == StatusCode::UNAUTHORIZED => {
                        Box::pin(resend.take().expect("polled after it was ready").reauthenticate(response))
                    }
                    result => return Poll::Ready(result),
                },
            };
            self.set(Self::Reauthenticating { inner: second });
        }
    }
}

impl<S, B> Resend<S, B, Reauthenticator>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error>,
    B: Body<Data = Bytes> + Unpin,
{
    /// The result of a request that got the 401 `response`: that response, or the result of the resend.
    async fn reauthenticate(mut self, response: Response<ResponseBody>) -> ResponseResult {
        let (parts, body) = response.into_parts();
        let (prefix, remainder) = peek(body).await;
        let is_whole = matches!(remainder, Remainder::End);
        if is_whole {
            vendor_code::record(&self.record, &parts.headers, &prefix);
        }
        let token_refused = refused_token::token_refused(&parts.headers, if is_whole { &prefix } else { &[] });
        let relayed = Response::from_parts(parts, ResponseBody::prefixed(prefix, remainder));
        let Some(version) = self.record.token_version().filter(|_| token_refused) else { return Ok(relayed) };
        let metrics = &self.context.metrics;
        metrics.token_refused();
        // The upstream refused the token, so it did not execute the request.
        self.record.withdraw_attempt();
        let request = match with_new_token(&self.buffer, &self.context, version).await {
            Ok(request) => request,
            Err(outcome) => {
                metrics.reauthenticated(outcome);
                // The upstream's 401 is relayed, so the request counts as one that reached the upstream.
                self.record.begin_attempt();
                return Ok(relayed);
            }
        };
        self.record.set_replayed();
        metrics.replayed();
        std::future::poll_fn(|cx| self.service.poll_ready(cx)).await?;
        let result = self.service.call(Exchange { request, record: self.record }).await;
        metrics.reauthenticated(match &result {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => ReauthOutcome::RefusedAgain,
            Ok(_) => ReauthOutcome::Accepted,
            Err(_) => ReauthOutcome::Failed,
        });
        result
    }
}

/// Replaces the refused token of `version`. Returns the request to resend, or why there is none.
async fn with_new_token<B>(
    buffer: &Arc<ReplayBuffer<B>>,
    reauthenticator: &Reauthenticator,
    version: u64,
) -> Result<Request<ReplayBody<B>>, ReauthOutcome> {
    let Reauthenticator { control, wait, .. } = reauthenticator;
    if !buffer.is_complete() {
        // This request cannot be resent, but later ones need a new token.
        control.report_refused(version);
        return Err(ReauthOutcome::NotReplayable);
    }
    if !timeout(*wait, control.replace_refused(version)).await.unwrap_or(false) {
        return Err(ReauthOutcome::NoToken);
    }
    // Only now: taking the request aborts an upload that is still running on the connection, and with it the response, which was to be
    // relayed if no newer token had arrived.
    buffer.resend().ok_or(ReauthOutcome::NotReplayable)
}

/// Reads `body` to its end, or until more than [`refused_token::MAX_BODY_BYTES`] are read. Returns what was read, and the remainder.
async fn peek(mut body: ResponseBody) -> (Bytes, Remainder) {
    let mut prefix = BytesMut::new();
    while prefix.len() <= refused_token::MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => prefix.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(error)) => return (prefix.freeze(), Remainder::Failed(error)),
            None => return (prefix.freeze(), Remainder::End),
        }
    }
    (prefix.freeze(), Remainder::More(Box::new(body)))
}
