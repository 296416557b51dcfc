//! Adds the proxy's credentials to a request.
//!
//! The layer reads the token once. While there is a usable token, nothing waits and nothing is allocated. Otherwise the request waits for
//! the refresher to obtain one; the time and the number of waiting requests are limited. A resent request still has the credentials of the
//! earlier attempt; they are removed first, because those of another scheme have other names.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderName, header};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    config::{Config, ExtraHeaders},
    error::Error,
    exchange::Exchange,
};
use crate::token::{Token, TokenReader};

#[derive(Clone, Debug)]
pub(super) struct InjectLayer(Arc<Injector>);

#[derive(Debug)]
struct Injector {
    token: TokenReader,
    /// All names of credential fields, of any scheme.
    credential_names: Vec<HeaderName>,
    extra_headers: ExtraHeaders,
}

/// The names under which some of the vendor's operations are documented to take App Key and token, in addition to the usual names. The
/// vendor's own client sends both pairs.
const EXTRA_NAMES: [HeaderName; 2] = [HeaderName::from_static("app-key"), HeaderName::from_static("app-token")];

impl InjectLayer {
    pub(super) fn new(config: &Config, token: TokenReader) -> Self {
        let names = config.injected_headers.iter().cloned().chain([header::AUTHORIZATION]).chain(EXTRA_NAMES);
        let (credential_names, extra_headers) = (names.collect(), config.extra_headers);
        Self(Arc::new(Injector { token, credential_names, extra_headers }))
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
        // `poll_ready` reserved this instance, so call it and leave the clone in its place.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        InjectFuture::Waiting { wait, since: Instant::now(), call: Some(Box::new((inner, exchange, injector))) }
    }
}

type TokenFuture = Pin<Box<dyn Future<Output = Result<Arc<Token>, Error>> + Send>>;

pin_project! {
    #[project = InjectProjection]
    pub(super) enum InjectFuture<S, B, F> {
        // Boxed, so that the future of a request that does not wait stays small.
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
            // Remove the credentials of the earlier attempt that are not overwritten below.
            let stale =
                self.credential_names.iter().filter(|name| token.headers().iter().all(|(current, _)| current != *name));
            stale.for_each(|name| drop(headers.remove(name)));
        }
        if self.extra_headers.applies_to(exchange.record.operation()) && !token.is_bearer() {
            for (name, (_, value)) in EXTRA_NAMES.into_iter().zip(token.headers()) {
                headers.insert(name, value.clone());
            }
        }
        // Last, because a configured name may be one of `EXTRA_NAMES`.
        for (name, value) in token.headers() {
            headers.insert(name, value.clone());
        }
        exchange.record.set_token_version(token.version());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderValue, Method, Request};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::{
        proxy::record::Record,
        token::{Clock, channel, scheme::AuthHeaders},
        vendor::catalogue::Catalogue,
    };

    const NAMED: &str = "/data-sharing-consents";
    const OTHER: &str = "/aggregation/v1/customers";

    /// The fields `App-Key` and `App-Token` of a request that is sent with a token in `token_name`. If `sent_before`, it is a resend.
    async fn extra_fields(
        extra_headers: ExtraHeaders,
        token_name: HeaderName,
        path: &str,
        sent_before: bool,
    ) -> [Option<HeaderValue>; 2] {
        let (mut writer, token) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
        let value = |text| {
            let mut value = HeaderValue::from_static(text);
            value.set_sensitive(true);
            value
        };
        let headers = [(HeaderName::from_static("finicity-app-key"), value("key")), (token_name, value("token"))];
        let usable_until = writer.clock().now() + Duration::from_secs(60);
        writer.publish(AuthHeaders { headers, expires_in: None, untyped: false }, usable_until);
        let injector = Injector { token, credential_names: EXTRA_NAMES.to_vec(), extra_headers };
        let service = InjectLayer(Arc::new(injector))
            .layer(service_fn(|exchange: Exchange<()>| std::future::ready(Ok::<_, Error>(exchange.request))));
        let record = Arc::new(Record::new(Method::GET, None));
        record.set_operation(Catalogue::us().find(&Method::GET, path));
        let mut request = Request::new(());
        if sent_before {
            record.set_token_version(7);
            request.headers_mut().insert(EXTRA_NAMES[1].clone(), HeaderValue::from_static("stale"));
        }
        let request = service.oneshot(Exchange { request, record }).await.unwrap();
        EXTRA_NAMES.map(|name| request.headers().get(name).cloned())
    }

    #[tokio::test]
    async fn partner_credentials_are_sent_under_both_names_if_enabled() {
        let partner = || HeaderName::from_static("finicity-app-token");
        for (extra_headers, path, applies) in [
            (ExtraHeaders::Auto, NAMED, true),
            (ExtraHeaders::Auto, OTHER, false),
            (ExtraHeaders::Auto, "/unknown", false),
            (ExtraHeaders::Always, OTHER, true),
            (ExtraHeaders::Never, NAMED, false),
        ] {
            for sent_before in [false, true] {
                let fields = extra_fields(extra_headers, partner(), path, sent_before).await;
                let expected = applies.then(|| ["key", "token"].map(HeaderValue::from_static));
                assert_eq!(fields.clone().map(|field| field.is_some()), [applies; 2], "{extra_headers:?} {path}");
                assert_eq!(
                    fields.map(|field| field.map(|value| (value.is_sensitive(), value))),
                    match expected {
                        Some(expected) => expected.map(|value| Some((true, value))),
                        None => [None, None],
                    }
                );
                let bearer = extra_fields(extra_headers, header::AUTHORIZATION, path, sent_before).await;
                assert_eq!(bearer, [None, None], "an OAuth 2.0 token is sent in no other field");
            }
        }
    }

    #[tokio::test]
    async fn a_configured_name_in_the_second_pair_keeps_its_value() {
        // The name of the token field in Australia.
        let fields = extra_fields(ExtraHeaders::Always, EXTRA_NAMES[1].clone(), OTHER, false).await;
        assert_eq!(fields, ["key", "token"].map(|value| Some(HeaderValue::from_static(value))));
    }
}
