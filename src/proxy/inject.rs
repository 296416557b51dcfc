//! The layer that this proxy exists for: it adds the credentials to a request.
//!
//! It reads the token once. While a usable one is there, nothing is waited for and nothing allocated; otherwise the request
//! waits, briefly and in bounded company, for the refresher to bring one. A request that is sent once more has the credentials of
//! the try before in it, which go first: those of another scheme have another name.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderName, header};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{config::Config, error::Error, exchange::Exchange};
use crate::token::{Token, TokenReader};

#[derive(Clone, Debug)]
pub(super) struct InjectLayer(Arc<Injector>);

#[derive(Debug)]
struct Injector {
    token: TokenReader,
    /// All names that credentials may have, whatever their scheme.
    credential_names: Vec<HeaderName>,
}

impl InjectLayer {
    pub(super) fn new(config: &Config, token: TokenReader) -> Self {
        let credential_names = config.injected_headers.iter().cloned().chain([header::AUTHORIZATION]).collect();
        Self(Arc::new(Injector { token, credential_names }))
    }
}

impl<S> Layer<S> for InjectLayer {
    type Service = Inject<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Inject { inner, injector: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Inject<S> {
    inner: S,
    injector: Arc<Injector>,
}

impl<S, B> Service<Exchange<B>> for Inject<S>
where
    S: Service<Exchange<B>, Error = Error> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = InjectFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Exchange<B>) -> Self::Future {
        if let Some(token) = self.injector.token.usable()
            && let Some(token) = token.as_ref()
        {
            self.injector.inject(&mut exchange, token);
            return InjectFuture::Calling { inner: self.inner.call(exchange) };
        }
        let (injector, waiting) = (Arc::clone(&self.injector), Arc::clone(&self.injector));
        let wait: TokenFuture = Box::pin(async move {
            let token = &waiting.token;
            token.wait().await.map_err(|missing| Error::without_token(missing, token.unresolved_error().as_deref()))
        });
        // The service that was polled ready is the one to call; the clone takes its place.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        InjectFuture::Waiting { wait, since: Instant::now(), call: Some(Box::new((inner, exchange, injector))) }
    }
}

type TokenFuture = Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + Send>>;

pin_project! {
    #[project = InjectProjection]
    pub(super) enum InjectFuture<S, B, F> {
        // What it waits with is on the heap, so that a request that does not wait has no room for it.
        Waiting { wait: TokenFuture, since: Instant, call: Option<Box<(S, Exchange<B>, Arc<Injector>)>> },
        Calling { #[pin] inner: F },
    }
}

impl<S, B> Future for InjectFuture<S, B, S::Future>
where
    S: Service<Exchange<B>, Error = Error>,
{
    type Output = Result<S::Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let inner = match self.as_mut().project() {
                InjectProjection::Calling { inner } => return inner.poll(cx),
                InjectProjection::Waiting { wait, since, call } => {
                    let token = ready!(wait.as_mut().poll(cx));
                    let (mut service, mut exchange, injector) = *call.take().expect("polled after it was ready");
                    exchange.record.set_token_wait(since.elapsed());
                    injector.inject(&mut exchange, &*token?);
                    service.call(exchange)
                }
            };
            self.set(Self::Calling { inner });
        }
    }
}

impl Injector {
    fn inject<B>(&self, exchange: &mut Exchange<B>, token: &Token) {
        let headers = exchange.request.headers_mut();
        if exchange.record.token_version().is_some() {
            // What the try before carried goes: what gets no other value now is taken out.
            let stale =
                self.credential_names.iter().filter(|name| token.headers().iter().all(|(current, _)| current != *name));
            stale.for_each(|name| drop(headers.remove(name)));
        }
        for (name, value) in token.headers() {
            headers.insert(name, value.clone());
        }
        exchange.record.set_token_version(token.version());
    }
}
