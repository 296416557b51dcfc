//! The bottom of the stack: the streaming client to the one upstream.
//!
//! Connections and their pool are its own: what may be sent once more depends on what exactly became of a request, on which
//! connection ([`Fate`](super::error::Fate)), and pooled clients keep that to themselves.

mod answer;
mod connect;
mod early;
mod http1;
mod http2;
mod life;
mod pool;
mod request;
mod send;
mod stream;

use std::{
    error::Error as StdError,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, Uri, uri::Authority};
use http_body::Body;
use tower::Service;

pub use self::connect::server_name;
pub(super) use self::{
    answer::AnswerBody,
    connect::{ConnectError, NameError},
    http1::Error as Http1Error,
    http2::Error as Http2Error,
    send::NoAnswer,
};
use self::{
    connect::{Connect, Connector},
    pool::Pool,
    request::Sending,
};
use super::{Error, Exchange, ReplayBody, RequestBody, ResponseBody, headers::HeaderRules};
use crate::{egress, telemetry::Metrics, tls::Trust};

/// Where requests go, and over which connections.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Scheme and authority (`upstream.url`): `https://`, or `http://` and a loopback address. Every request goes there and
    /// nowhere else.
    pub url: Uri,
    /// The proxy that connections go through, if there is one (`upstream.egress_proxy`).
    pub egress: Option<egress::Config>,
    /// The time to connect, TLS included (`upstream.connect_timeout`).
    pub connect_timeout: Duration,
    /// The longest time that a body may make no progress (`upstream.idle_timeout`).
    pub idle_timeout: Duration,
    /// How long an unused connection is kept (`upstream.pool_idle_timeout`).
    pub pool_idle_timeout: Duration,
    /// How long a connection takes new requests (`upstream.connection_age`).
    pub connection_age: Duration,
    /// Whether HTTP/2 is offered (`upstream.http2 = "auto"`).
    pub http2: bool,
}

/// The body of a request as it is sent: noted as it goes, and kept for a second time.
type Sent<B> = RequestBody<ReplayBody<B>>;

/// Sends requests to the configured authority, over verified TLS, on connections that it keeps and reuses.
pub(super) struct Upstream<B, C: Connect = Connector>(Arc<Shared<B, C>>);

struct Shared<B, C: Connect> {
    pool: Arc<Pool<C, Sent<B>>>,
    authority: Authority,
    host: HeaderValue,
    own_names: Arc<HeaderRules>,
    idle_timeout: Duration,
}

impl<B, C: Connect> Clone for Upstream<B, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Upstream<B> {
    /// A client for `config.url`, trusting what `trust` says at each connection. Its connections live on the runtime that it is
    /// used on. Answers lose what is named like `own_names`.
    pub(super) fn new(
        config: &UpstreamConfig,
        own_names: Arc<HeaderRules>,
        trust: Trust,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::with_connector(config, own_names, Connector::new(config, trust), metrics)
    }
}

impl<B, C: Connect> Upstream<B, C> {
    fn with_connector(
        config: &UpstreamConfig,
        own_names: Arc<HeaderRules>,
        connector: C,
        metrics: Arc<Metrics>,
    ) -> Self {
        let authority = config.url.authority().expect("the configuration checked the upstream's authority").clone();
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a legal header value");
        let pool = Pool::new(connector, config, metrics);
        Self(Arc::new(Shared { pool, authority, host, own_names, idle_timeout: config.idle_timeout }))
    }
}

impl<B, C> Service<Exchange<ReplayBody<B>>> for Upstream<B, C>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Sending<B, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<ReplayBody<B>>) -> Self::Future {
        Sending::begin(&self.0, exchange)
    }
}

#[cfg(test)]
mod tests;
