//! The bottom of the stack: the streaming client to the one upstream.

mod connect;
mod verified;

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, Version, header, uri::Authority};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use self::{connect::TimedConnector, verified::VerifiedConnector};
use super::{
    Code, Error, Exchange, Record, RequestBody, ResponseBody,
    headers::{self, OwnNames},
    target,
    upload::UploadError,
};
use crate::{cause, tls::Trust};

/// The largest head of an answer, and the most header fields in it.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;

/// How often an HTTP/2 connection is asked whether it lives, and how long its answer may take. All requests of a worker share
/// one, so a dead one that TCP still takes for open would fail them all.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Where requests go, and over which connections.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// `https://` scheme and authority (`upstream.url`). Every request goes there and nowhere else.
    pub url: Uri,
    /// The time to connect, TLS included (`upstream.connect_timeout`).
    pub connect_timeout: Duration,
    /// The longest time that a body may make no progress (`upstream.idle_timeout`).
    pub idle_timeout: Duration,
    /// How long an unused connection is kept (`upstream.pool_idle_timeout`).
    pub pool_idle_timeout: Duration,
    /// Whether HTTP/2 is offered (`upstream.http2 = "auto"`).
    pub http2: bool,
}

/// Sends requests to the configured authority, over verified TLS, on connections that it keeps and reuses.
#[derive(Debug)]
pub struct Upstream<B = Incoming>(Arc<Shared<B>>);

#[derive(Debug)]
struct Shared<B> {
    client: Client<TimedConnector<VerifiedConnector<HttpConnector>>, RequestBody<B>>,
    authority: Authority,
    host: HeaderValue,
    own_names: Arc<OwnNames>,
    idle_timeout: Duration,
}

impl<B> Clone for Upstream<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A client for `config.url`, trusting what `trust` says at each connection. Its connections live on the runtime that it is used on. Answers
    /// lose what is named like `own_names`.
    pub fn new(config: &UpstreamConfig, own_names: Arc<OwnNames>, trust: Trust) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses of a name, so that a dead one leaves time for the next.
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let https = VerifiedConnector::new(tcp, trust, config.http2);
        let connector = TimedConnector::new(https, config.connect_timeout);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.pool_idle_timeout)
            .set_host(false)
            .http2_keep_alive_interval(H2_PING_INTERVAL)
            .http2_keep_alive_timeout(H2_PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http1_max_headers(MAX_HEADERS)
            .build(connector);
        let authority = config.url.authority().expect("the configuration checked the upstream's authority").clone();
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a legal header value");
        Self(Arc::new(Shared { client, authority, host, own_names, idle_timeout: config.idle_timeout }))
    }
}

impl<B> Service<Exchange<B>> for Upstream<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = UpstreamFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<B>) -> Self::Future {
        let Exchange { request, record } = exchange;
        let shared = &*self.0;
        let mut request = request.map(|body| RequestBody::new(body, Arc::clone(&record)));
        *request.uri_mut() = target::upstream_uri(&shared.authority, request.uri());
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(header::HOST, shared.host.clone());
        UpstreamFuture {
            inner: shared.client.request(request),
            sent: Instant::now(),
            own_names: Arc::clone(&shared.own_names),
            idle_timeout: shared.idle_timeout,
            record,
        }
    }
}

pin_project! {
    /// The answer's head, on its way.
    pub struct UpstreamFuture {
        #[pin]
        inner: legacy::ResponseFuture,
        sent: Instant,
        own_names: Arc<OwnNames>,
        idle_timeout: Duration,
        record: Arc<Record>,
    }
}

impl Future for UpstreamFuture {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.inner.poll(cx)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(classify(error, this.record))),
        };
        this.record.set_upstream_first_byte(this.sent.elapsed());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Err(Error::new(
                Code::UpstreamProtocol,
                "The upstream switched protocols without having been asked to.",
            )));
        }
        headers::strip_response(this.own_names, response.headers_mut());
        let version = std::mem::replace(response.version_mut(), Version::HTTP_11);
        Poll::Ready(Ok(
            response.map(|body| ResponseBody::upstream(body, version, *this.idle_timeout, Arc::clone(this.record)))
        ))
    }
}

/// Whose fault it was that no answer came, by the chain of causes.
fn classify(error: legacy::Error, record: &Record) -> Error {
    let hyper = cause::find::<hyper::Error>(&error);
    if let Some(given_up) = cause::find::<UploadError>(&error) {
        return Error::from(*given_up).because(error);
    }
    let (code, detail) = if error.is_connect() {
        match cause::find::<rustls::Error>(&error) {
            Some(_) => {
                (Code::UpstreamTls, "The upstream's TLS certificate or handshake is not acceptable; nothing was sent.")
            }
            None => (Code::UpstreamUnreachable, "The upstream cannot be reached; nothing was sent."),
        }
    } else if hyper.is_some_and(hyper::Error::is_user) && !record.is_request_complete() {
        (Code::BadRequest, "The request body broke off.")
    } else if hyper.is_some_and(|error| error.is_parse() || error.is_parse_too_large()) {
        (Code::UpstreamProtocol, "The upstream's answer is not valid HTTP; it may have executed the request.")
    } else {
        (Code::UpstreamUnreachable, "The connection to the upstream broke; it may have executed the request.")
    };
    Error::new(code, detail).because(error)
}
