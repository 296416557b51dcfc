//! HTTP/2 to the upstream: one connection for many requests at once, and what became of one that it failed (RFC 9113).

use std::{
    error::Error as StdError,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{
    connect::ConnectError,
    life::{Life, Open},
    stream::Heard,
};
use crate::{cause, proxy::error::Fate, telemetry::Closed};

/// The largest head of an answer.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// How much of one HTTP/2 body, and of all bodies of a connection, may be on its way to a caller that does not take it. Fixed:
/// windows that grow with the connection's speed (adaptive ones) would let the server decide how much memory it takes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The largest HTTP/2 frame that is taken: the protocol's own default, and the least that can be asked for.
const MAX_FRAME_BYTES: u32 = 16 * 1024;

/// How much of a request's body waits in memory for an HTTP/2 server that does not take it.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// How many HTTP/2 streams that were given up are remembered, since frames for them may still come, and how many streams may
/// fail by the server's faults. A server that goes on beyond the latter loses its connection.
const RESET_STREAMS: usize = 64;
const FAULTY_STREAMS: usize = 128;

/// How often an HTTP/2 connection is asked whether it lives, and how long its answer may take. All requests of a worker share
/// one, so a dead one that TCP still takes for open would fail them all.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which many requests are under way at once. It is run by a task of its own.
pub(super) struct Connection<B> {
    sender: Mutex<http2::SendRequest<B>>,
    life: Arc<Life>,
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Begins to speak HTTP/2 on `stream`. A write may make no progress for `write_timeout`.
    pub(super) async fn begin<S>(stream: S, write_timeout: Duration, life: Arc<Life>) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(Heard::new(stream, write_timeout));
        let open = Open(Arc::clone(&life));
        let (sender, connection) = builder().handshake(io).await.map_err(ConnectError::Http)?;
        tokio::spawn(run(connection, open));
        Ok(Self { sender: Mutex::new(sender), life })
    }
}

impl<B> Connection<B> {
    /// Whether a request can be sent now.
    pub(super) fn is_usable(&self) -> bool {
        self.sender().is_ready()
    }

    /// How it lives and ends.
    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    fn sender(&self) -> MutexGuard<'_, http2::SendRequest<B>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that brought no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: hyper::Error,
    /// What is known to have become of it, if anything is.
    pub(super) fate: Option<Fate>,
    /// Whether the connection takes no further requests, and not only failed this one.
    pub(super) ended: bool,
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
{
    /// Sends `request` and gives the answer, whose body is still to come. `reused` says whether the connection has served
    /// before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request: its stream is reset.
    pub(super) async fn send(&self, request: Request<B>, reused: bool) -> Result<Response<Incoming>, Failure> {
        let answer = self.sender().try_send_request(request);
        answer.await.map_err(|failure: TrySendError<Request<B>>| {
            let unsent = failure.message().is_some();
            let error = failure.into_error();
            let fate = if unsent { Some(Fate::Unsent { reused }) } else { fate(&error, reused) };
            let reset = cause::find::<h2::Error>(&error).is_some_and(h2::Error::is_reset);
            let ended = !reset && !error.is_user();
            Failure { error, fate, ended }
        })
    }
}

/// Runs a connection to its end, which is nobody's concern any more: each request knows how it fared itself.
async fn run(connection: impl Future<Output = hyper::Result<()>>, open: Open) {
    if let Err(error) = connection.await {
        open.0.ends_because(Closed::Failed);
        debug!(%error, "a connection to the upstream has ended");
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(FAULTY_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    builder
}

/// The fate of a request that was sent over HTTP/2. A server says of a stream that it has not looked at it by refusing it, or
/// by a GOAWAY whose last stream is an earlier one (RFC 9113, 8.7): h2 ends only those streams with the server's GOAWAY. That
/// the connection closed without a word, hyper tells as an I/O error.
fn fate(error: &hyper::Error, reused: bool) -> Option<Fate> {
    let Some(told) = cause::find::<h2::Error>(error) else {
        let closed = cause::find::<io::Error>(error).is_some() && !error.is_user();
        return (reused && closed).then_some(Fate::Unanswered);
    };
    let refused = told.is_go_away() || told.is_reset() && told.reason() == Some(h2::Reason::REFUSED_STREAM);
    (refused && told.is_remote()).then_some(Fate::Refused)
}
