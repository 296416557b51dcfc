//! The lowest layer: sends a request on a connection to the upstream, and turns the result into a response or an error.
//!
//! Only this layer uses [`upstream`](crate::upstream).

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header, uri::Authority};
use http_body::Body;
use tokio::time::Instant;
use tower::Service;

use super::{
    body::{ProgressBody, ResponseBody},
    error::{Code, Error, Executed},
    exchange::Exchange,
    headers::{self, HeaderRules},
    record::Record,
    replay::ReplayBody,
    request_target,
};
use crate::{
    dns::{ResolveError, Resolver},
    error_chain,
    telemetry::Metrics,
    tls::TrustStore,
    upstream::{
        Checkout, Connect, ConnectError, Connector, ExclusiveConnection, Http1Request, Http2Request,
        MultiplexedConnection, Pool, PooledConnection, UnansweredRequest, UpstreamBody, UpstreamConfig,
    },
};

/// A request body as it is sent: buffered for a resend, with its progress recorded.
type SentBody<B> = ProgressBody<ReplayBody<B>>;

/// Sends requests to the configured authority, over verified TLS, on pooled connections.
pub(super) struct Upstream<B, C: Connect = Connector>(Arc<UpstreamInner<B, C>>);

struct UpstreamInner<B, C: Connect> {
    pool: Arc<Pool<C, SentBody<B>>>,
    authority: Authority,
    host: HeaderValue,
    header_rules: Arc<HeaderRules>,
    idle_timeout: Duration,
}

impl<B, C: Connect> Clone for Upstream<B, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Upstream<B> {
    /// A client for `config.url`. `resolver` looks up its name, and each new connection uses the TLS configuration that `trust` holds then.
    /// Connections live on the runtime that the client is used on. `header_rules` apply to responses.
    pub(super) fn new(
        config: &UpstreamConfig,
        header_rules: Arc<HeaderRules>,
        resolver: Resolver,
        trust: TrustStore,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::with_connector(config, header_rules, Connector::new(config, resolver, trust), metrics)
    }
}

impl<B, C: Connect> Upstream<B, C> {
    fn with_connector(
        config: &UpstreamConfig,
        header_rules: Arc<HeaderRules>,
        connector: C,
        metrics: Arc<Metrics>,
    ) -> Self {
        let authority = config.url.authority().expect("the configuration checked the upstream's authority").clone();
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a legal header value");
        let pool = Pool::new(connector, config, metrics);
        Self(Arc::new(UpstreamInner { pool, authority, host, header_rules, idle_timeout: config.idle_timeout }))
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
    type Future = ResponseFuture<B, C>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<ReplayBody<B>>) -> Self::Future {
        ResponseFuture::begin(&self.0, exchange)
    }
}

/// The future of a request that is being sent.
pub(super) struct ResponseFuture<B, C: Connect>(State<B, C>);

enum State<B, C: Connect> {
    /// Sent over HTTP/1.1 on a pooled connection. This is the common case, and it allocates nothing.
    Http1Request { request: Http1Request<C, SentBody<B>>, attempt: SendAttempt<B, C> },
    /// Sent over HTTP/2, on a connection that other requests share.
    Http2Request { request: Http2Request<C, SentBody<B>>, attempt: SendAttempt<B, C> },
    /// Waiting for a connection to be opened; then sent on it.
    Opening(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error>> + Send>>),
}

impl<B, C> ResponseFuture<B, C>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Prepares to send the request of `exchange` when polled. The caller must poll immediately, because the connection is already checked
    /// out and the attempt already counted.
    fn begin(upstream: &Arc<UpstreamInner<B, C>>, exchange: Exchange<ReplayBody<B>>) -> Self {
        let Exchange { request, record } = exchange;
        let attempt = SendAttempt { upstream: Arc::clone(upstream), record, started: Instant::now() };
        Self(match upstream.pool.checkout(attempt.record.connection(), attempt.started) {
            Some(Checkout { connection: PooledConnection::Http1(connection), reused }) => {
                State::Http1Request { request: attempt.send_http1(connection, request, reused), attempt }
            }
            Some(Checkout { connection: PooledConnection::Http2(connection), reused }) => {
                State::Http2Request { request: attempt.send_http2(connection, request, reused), attempt }
            }
            None => State::Opening(Box::pin(attempt.open_and_send(request))),
        })
    }
}

impl<B, C> Future for ResponseFuture<B, C>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Http1Request { request, attempt } => {
                Poll::Ready(attempt.response(ready!(Pin::new(request).poll(cx))))
            }
            State::Http2Request { request, attempt } => {
                Poll::Ready(attempt.response(ready!(Pin::new(request).poll(cx))))
            }
            State::Opening(opening) => opening.as_mut().poll(cx),
        }
    }
}

/// One attempt to send a request.
struct SendAttempt<B, C: Connect> {
    upstream: Arc<UpstreamInner<B, C>>,
    record: Arc<Record>,
    started: Instant,
}

impl<B, C> SendAttempt<B, C>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Sends `request` on a connection that is opened for it; over HTTP/2, other requests may share the opening.
    async fn open_and_send(self, request: Request<ReplayBody<B>>) -> Result<Response<ResponseBody>, Error> {
        let opened = self.upstream.pool.open_or_join(self.record.connection()).await;
        let Checkout { connection, reused } = opened.map_err(|error| connect_error(error, self.record.executed()))?;
        let sent = match connection {
            PooledConnection::Http1(connection) => self.send_http1(connection, request, reused).await,
            PooledConnection::Http2(connection) => self.send_http2(connection, request, reused).await,
        };
        self.response(sent)
    }

    /// Sends `request` on `connection`, which serves one request at a time.
    fn send_http1(
        &self,
        connection: Box<ExclusiveConnection<C, SentBody<B>>>,
        request: Request<ReplayBody<B>>,
        reused: bool,
    ) -> Http1Request<C, SentBody<B>> {
        self.record_connection(connection.number(), reused);
        let (mut head, body) = request.into_parts();
        // Origin-form: the target stays as the caller sent it, and the authority goes into `Host`.
        head.headers.insert(header::HOST, self.upstream.host.clone());
        let buffer = body.buffer();
        let sending = Http1Request::begin(connection, &head, ProgressBody::new(body, Arc::clone(&self.record)), reused);
        buffer.set_head(head);
        sending
    }

    /// Sends `request` on `connection`, which it shares with other requests.
    fn send_http2(
        &self,
        connection: Arc<MultiplexedConnection<C, SentBody<B>>>,
        request: Request<ReplayBody<B>>,
        reused: bool,
    ) -> Http2Request<C, SentBody<B>> {
        self.record_connection(connection.number(), reused);
        let (mut head, body) = request.into_parts();
        body.buffer().set_head(head.clone());
        // An earlier attempt over HTTP/1.1 added `Host`; HTTP/2 has `:authority`. HTTP/2 frames delimit the body.
        head.headers.remove(header::HOST);
        head.headers.remove(header::TRANSFER_ENCODING);
        head.version = Version::HTTP_2;
        head.uri = request_target::upstream_uri(&self.upstream.authority, &head.uri);
        let body = ProgressBody::new(body, Arc::clone(&self.record));
        Http2Request::begin(connection, Request::from_parts(head, body), reused)
    }

    /// Records the connection and the attempt. Called before the request is sent, because the upstream may execute it even if the caller
    /// disconnects.
    fn record_connection(&self, number: u64, reused: bool) {
        self.upstream.pool.metrics().upstream().request_sent(reused);
        self.record.set_connection(number, reused);
        self.record.begin_attempt();
    }

    /// The response or error for the result `sent`.
    fn response(
        &self,
        sent: Result<Response<UpstreamBody>, UnansweredRequest>,
    ) -> Result<Response<ResponseBody>, Error> {
        let Self { upstream, record, started } = self;
        let mut response = sent.map_err(|unanswered| {
            if unanswered.is_unexecuted() {
                record.withdraw_attempt();
            }
            request_error(unanswered, record)
        })?;
        record.set_upstream_first_byte(started.elapsed());
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            upstream.pool.metrics().upstream().throttled();
        }
        record.set_upstream_status(response.status());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::new(
                Code::UpstreamProtocol,
                "The upstream sent an unsolicited 101 Switching Protocols response.",
            ));
        }
        headers::strip_response(&upstream.header_rules, response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| ResponseBody::upstream(body, upstream.idle_timeout, Arc::clone(record))))
    }
}

/// The error of a request that got no connection. `executed` is about its earlier attempts.
pub(super) fn connect_error(error: ConnectError, executed: Executed) -> Error {
    let is_tls = error_chain::find::<rustls::Error>(&error).is_some();
    let (code, detail) = match (&error, executed) {
        (_, Executed::No) if is_tls => {
            (Code::UpstreamTls, "The TLS handshake with the upstream failed; nothing was sent.")
        }
        (_, Executed::Unknown) if is_tls => (
            Code::UpstreamTls,
            "The upstream connection was lost, and the TLS handshake of the next one failed; the upstream may have executed the request.",
        ),
        (ConnectError::Resolve(error), Executed::No) => (Code::UpstreamUnreachable, resolve_detail(*error)),
        (_, Executed::No) => (Code::UpstreamUnreachable, "The upstream is unreachable; nothing was sent."),
        (_, Executed::Unknown) => (
            Code::UpstreamUnreachable,
            "The upstream connection was lost, and reconnecting failed; the upstream may have executed the request.",
        ),
    };
    Error::new(code, detail).with_source(error)
}

/// The error detail for a failed name lookup.
fn resolve_detail(error: ResolveError) -> &'static str {
    match error {
        ResolveError::NoName => "The upstream's name cannot be resolved (NXDOMAIN); nothing was sent.",
        ResolveError::ServerFailure => "The upstream's name cannot be resolved (SERVFAIL); nothing was sent.",
        ResolveError::TimedOut => "The upstream's name cannot be resolved (timeout); nothing was sent.",
        ResolveError::System(_) => "The upstream's name cannot be resolved; nothing was sent.",
    }
}

/// The error of a request that was sent, at least in part, without getting a response. The causes decide which side failed.
fn request_error(unanswered: UnansweredRequest, record: &Record) -> Error {
    let UnansweredRequest { error, disposition } = unanswered;
    if let Some(body_error) = record.request_body_error() {
        return Error::from(body_error).with_source(error);
    }
    let (code, detail) = if record.executed() == Executed::No {
        (Code::UpstreamUnreachable, "The upstream closed the connection before it processed the request.")
    } else if error.is_downstream() && !record.is_request_complete() {
        (Code::BadRequest, "The request body is incomplete.")
    } else if error.is_protocol() {
        (
            Code::UpstreamProtocol,
            "The upstream's response is not valid HTTP; the upstream may have executed the request.",
        )
    } else {
        (Code::UpstreamUnreachable, "The upstream connection was lost; the upstream may have executed the request.")
    };
    Error::new(code, detail).with_source(error).with_disposition(disposition)
}

#[cfg(test)]
mod tests;
