//! A token that the upstream refuses is replaced, and the request sent once more.
//!
//! When a 401 comes back that is about the token ([`refused_token`]), the refresher is asked for a newer token, and the request
//! (`ReplayBuffer`) goes down the rest of the stack again, once. Every other answer passes untouched, and so does a 401 when no
//! newer token is to be had.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tokio::time::timeout;
use tower::{Layer, Service};

use super::{
    body::{Remainder, ResponseBody},
    config::Config,
    error::Error,
    exchange::Exchange,
    replay::{ReplayBody, ReplayBuffer, Resend},
    vendor_code,
};
use crate::{
    telemetry::{Metrics, ReauthOutcome as Outcome},
    token::TokenControl,
    vendor::refused_token,
};

#[derive(Clone, Debug)]
pub(super) struct HealLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    control: TokenControl,
    metrics: Arc<Metrics>,
    replay_buffer: usize,
    wait: Duration,
}

impl HealLayer {
    pub(super) fn new(config: &Config, control: TokenControl, metrics: Arc<Metrics>) -> Self {
        let (replay_buffer, wait) = (config.replay_buffer, config.heal_wait);
        Self(Arc::new(Shared { control, metrics, replay_buffer, wait }))
    }
}

impl<S> Layer<S> for HealLayer {
    type Service = Heal<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Heal { inner, shared: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Heal<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B> Service<Exchange<B>> for Heal<S>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = HealFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let request = ReplayBuffer::keep(exchange.request, self.shared.replay_buffer);
        let exchange = Exchange { request, record: exchange.record };
        let (first, again) = Resend::after(&mut self.inner, exchange, &self.shared);
        HealFuture::First { inner: first, again: Some(again) }
    }
}

type Answer = Result<Response<ResponseBody>, Error>;

pin_project! {
    #[project = HealProjection]
    pub(super) enum HealFuture<S, B, F> {
        First { #[pin] inner: F, again: Option<Resend<S, B, Shared>> },
        Healing { inner: Pin<Box<dyn Future<Output = Answer> + Send>> },
    }
}

impl<S, B> Future for HealFuture<S, B, S::Future>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        loop {
            let healing = match self.as_mut().project() {
                HealProjection::Healing { inner } => return inner.as_mut().poll(cx),
                HealProjection::First { inner, again } => match ready!(inner.poll(cx)) {
                    Ok(response) if response.status() == StatusCode::UNAUTHORIZED => {
                        Box::pin(again.take().expect("polled after it was ready").heal(response))
                    }
                    answer => return Poll::Ready(answer),
                },
            };
            self.set(Self::Healing { inner: healing });
        }
    }
}

impl<S, B> Resend<S, B, Shared>
where
    S: Service<Exchange<ReplayBody<B>>, Response = Response<ResponseBody>, Error = Error>,
    B: Body<Data = Bytes> + Unpin,
{
    /// Gives the answer to a request that was answered with a 401: that one, or the one to a second try.
    async fn heal(mut self, refused: Response<ResponseBody>) -> Answer {
        let (parts, body) = refused.into_parts();
        let (start, rest) = read_start(body).await;
        let whole = matches!(rest, Remainder::Nothing);
        if whole {
            vendor_code::note(&self.record, &parts.headers, &start);
        }
        let token_refused = refused_token::token_refused(&parts.headers, if whole { &start } else { &[] });
        let relayed = Response::from_parts(parts, ResponseBody::read(start, rest));
        let Some(version) = self.record.token_version().filter(|_| token_refused) else { return Ok(relayed) };
        let metrics = &self.shared.metrics;
        metrics.token_refused();
        if !self.original.is_kept() {
            // This request cannot be sent again, but the next ones should have a better token.
            metrics.reauthenticated(Outcome::NotReplayable);
            self.shared.control.report_refused(version);
            return Ok(relayed);
        }
        if !timeout(self.shared.wait, self.shared.control.replace_refused(version)).await.unwrap_or(false) {
            metrics.reauthenticated(Outcome::NoToken);
            return Ok(relayed);
        }
        // Only now: it ends the connection that an upload may still be under way on, with the answer to be relayed.
        let Some(request) = self.original.again() else {
            metrics.reauthenticated(Outcome::NotReplayable);
            return Ok(relayed);
        };
        self.record.set_replayed();
        metrics.replayed();
        std::future::poll_fn(|cx| self.service.poll_ready(cx)).await?;
        let answer = self.service.call(Exchange { request, record: self.record }).await;
        metrics.reauthenticated(match &answer {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => Outcome::RefusedAgain,
            Ok(_) => Outcome::Accepted,
            Err(_) => Outcome::Failed,
        });
        answer
    }
}

/// The start of `body`, up to the limit of what is looked at, and what follows it.
async fn read_start(mut body: ResponseBody) -> (Bytes, Remainder) {
    let mut start = BytesMut::new();
    while start.len() <= refused_token::MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => start.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(error)) => return (start.freeze(), Remainder::Failed(error)),
            None => return (start.freeze(), Remainder::Nothing),
        }
    }
    (start.freeze(), Remainder::More(Box::new(body)))
}
