//! The bottom of the stack: the streaming client to the one upstream.
//!
//! Connections and their pool are its own: what may be sent once more depends on what exactly became of a request, on which
//! connection ([`Fate`]), and pooled clients keep that to themselves.

mod answer;
mod connect;
mod early;
mod http1;
mod http2;
mod life;
mod pool;
mod send;
mod stream;

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, Version, header, uri::Authority};
use http_body::Body;
use tokio::time::Instant;
use tower::Service;

pub use self::connect::server_name;
pub(super) use self::{
    answer::AnswerBody,
    connect::{ConnectError, NameError},
    http1::Error as Http1Error,
    send::NoAnswer,
};
use self::{
    connect::{Connect, Connector},
    pool::{Connection, Pool},
    send::SendError,
};
use super::{
    Code, Error, Exchange, Record, RequestBody, ResponseBody,
    error::Fate,
    headers::{self, OwnNames},
    target,
};
use crate::{cause, egress, telemetry::Metrics, tls::Trust};

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

/// Sends requests to the configured authority, over verified TLS, on connections that it keeps and reuses.
pub(super) struct Upstream<B, C: Connect = Connector>(Arc<Shared<B, C>>);

struct Shared<B, C: Connect> {
    pool: Arc<Pool<C, RequestBody<B>>>,
    authority: Authority,
    host: HeaderValue,
    own_names: Arc<OwnNames>,
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
    pub(super) fn new(config: &UpstreamConfig, own_names: Arc<OwnNames>, trust: Trust, metrics: Arc<Metrics>) -> Self {
        Self::with_connector(config, own_names, Connector::new(config, trust), metrics)
    }
}

impl<B, C: Connect> Upstream<B, C> {
    fn with_connector(config: &UpstreamConfig, own_names: Arc<OwnNames>, connector: C, metrics: Arc<Metrics>) -> Self {
        let authority = config.url.authority().expect("the configuration checked the upstream's authority").clone();
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a legal header value");
        let pool = Pool::new(connector, config, metrics);
        Self(Arc::new(Shared { pool, authority, host, own_names, idle_timeout: config.idle_timeout }))
    }
}

impl<B, C> Service<Exchange<B>> for Upstream<B, C>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.send(exchange).await })
    }
}

impl<B, C> Shared<B, C>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    async fn send(&self, exchange: Exchange<B>) -> Result<Response<ResponseBody>, Error> {
        let Exchange { request, record } = exchange;
        let sent = Instant::now();
        let chosen = self.pool.connection(record.is_retried()).await.map_err(not_connected)?;
        self.pool.metrics().upstream().sent(chosen.reused);
        record.set_connection(chosen.reused);
        let mut request = request.map(|body| RequestBody::new(body, Arc::clone(&record)));
        *request.version_mut() = Version::HTTP_11;
        if matches!(chosen.connection, Connection::Http1(_)) {
            // The target as the caller sent it; whom it is for stands in `Host`.
            request.headers_mut().insert(header::HOST, self.host.clone());
        } else {
            *request.uri_mut() = target::upstream_uri(&self.authority, request.uri());
        }
        // Before it is sent: the upstream goes on with a request whose caller leaves.
        record.set_reached_upstream(true);
        let mut response = chosen.send(request).await.map_err(|failure| {
            record.set_reached_upstream(!failure.is_unexecuted());
            unanswered(failure, &record)
        })?;
        record.set_upstream_first_byte(sent.elapsed());
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            self.pool.metrics().upstream().throttled();
        }
        record.set_upstream_status(response.status());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::new(
                Code::UpstreamProtocol,
                "The upstream switched protocols without having been asked to.",
            ));
        }
        headers::strip_response(&self.own_names, response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| ResponseBody::upstream(body, self.idle_timeout, record)))
    }
}

/// The error of a request for which there was no connection.
fn not_connected(error: ConnectError) -> Error {
    let (code, detail) = match cause::find::<rustls::Error>(&error) {
        Some(_) => {
            (Code::UpstreamTls, "The upstream's TLS certificate or handshake is not acceptable; nothing was sent.")
        }
        None => (Code::UpstreamUnreachable, "The upstream cannot be reached; nothing was sent."),
    };
    Error::new(code, detail).because(error)
}

/// The error of a request that was sent, or begun to be sent, and brought no answer: whose fault it was, by the causes.
fn unanswered(failure: SendError, record: &Record) -> Error {
    let SendError { error, fate } = failure;
    if let Some(failed) = record.upload_error() {
        return Error::from(failed).because(error);
    }
    let (code, detail) = if fate.is_some_and(Fate::is_unexecuted) {
        (Code::UpstreamUnreachable, "The upstream closed the connection before it looked at the request.")
    } else if error.is_of_the_caller() && !record.is_request_complete() {
        (Code::BadRequest, "The request body broke off.")
    } else if error.is_of_the_protocol() {
        (Code::UpstreamProtocol, "The upstream's answer is not valid HTTP; it may have executed the request.")
    } else {
        (Code::UpstreamUnreachable, "The connection to the upstream broke; it may have executed the request.")
    };
    Error::new(code, detail).because(error).with_fate(fate)
}

#[cfg(test)]
mod tests;
