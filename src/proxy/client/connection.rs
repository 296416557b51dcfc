//! One connection to the upstream: how HTTP is spoken on it, and what became of a request that it failed.

use std::{
    error::Error as StdError,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_util::either::Either;
use tracing::debug;

use super::{
    connect::{ConnectError, Protocol},
    life::{Life, Open},
    stream::Heard,
};
use crate::{cause, proxy::error::Fate, telemetry::Closed};

/// The largest head of an answer, over either protocol, and the most header fields in one over HTTP/1.1.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;

/// How much of one HTTP/2 body, and of all bodies of a connection, may be on its way to a caller that does not take it. Fixed:
/// windows that grow with the connection's speed (adaptive ones) would let the server decide how much memory it takes.
const H2_STREAM_WINDOW: u32 = 1024 * 1024;
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The largest HTTP/2 frame that is taken: the protocol's own default, and the least that can be asked for.
const H2_MAX_FRAME_BYTES: u32 = 16 * 1024;

/// How much of a request's body waits in memory for an HTTP/2 server that does not take it.
const H2_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// How many HTTP/2 streams that were given up are remembered, since frames for them may still come, and how many streams may
/// fail by the server's faults. A server that goes on beyond the latter loses its connection.
const H2_RESET_STREAMS: usize = 64;
const H2_FAULTY_STREAMS: usize = 128;

/// How often an HTTP/2 connection is asked whether it lives, and how long its answer may take. All requests of a worker share
/// one, so a dead one that TCP still takes for open would fail them all.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that requests can be sent on: one after another, or over HTTP/2 many at once.
pub(super) struct Connection<B> {
    sender: Mutex<Sender<B>>,
    /// The bytes that came so far.
    heard: Arc<AtomicU64>,
    /// When it has served long enough.
    ends: Instant,
    life: Arc<Life>,
}

enum Sender<B> {
    Http1(http1::SendRequest<B>),
    Http2(http2::SendRequest<B>),
}

/// A request that brought no answer.
#[derive(Debug)]
pub(super) struct SendError {
    pub(super) error: hyper::Error,
    /// What is known to have become of it, if anything is.
    pub(super) fate: Option<Fate>,
    /// Whether the connection takes no further requests, and not only failed this one.
    pub(super) ended: bool,
}

impl SendError {
    /// Whether the upstream certainly did nothing with it.
    pub(super) fn is_unexecuted(&self) -> bool {
        self.fate.is_some_and(Fate::is_unexecuted)
    }
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Begins to speak `protocol` on `stream`. No request is to be sent after `ends`. A write may make no progress for
    /// `write_timeout`.
    pub(super) async fn begin<S>(
        stream: S,
        protocol: Protocol,
        ends: Instant,
        write_timeout: Duration,
        life: Arc<Life>,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let heard = Arc::new(AtomicU64::new(0));
        let io = TokioIo::new(Heard::new(stream, Arc::clone(&heard), write_timeout));
        let open = Open(Arc::clone(&life));
        let sender = match protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
                let (sender, connection) = builder.handshake(io).await.map_err(ConnectError::Http)?;
                tokio::spawn(run(connection, open));
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2_builder().handshake(io).await.map_err(ConnectError::Http)?;
                tokio::spawn(run(connection, open));
                Sender::Http2(sender)
            }
        };
        Ok(Self { sender: Mutex::new(sender), heard, ends, life })
    }
}

impl<B> Connection<B> {
    pub(super) fn protocol(&self) -> Protocol {
        match *self.sender() {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        }
    }

    /// Whether a request can be sent now: it is open, has not served its time, and has nothing else to do that cannot be done
    /// at the same time.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.ends
            && match &*self.sender() {
                Sender::Http1(sender) => sender.is_ready(),
                Sender::Http2(sender) => sender.is_ready(),
            }
    }

    /// How it lives and ends.
    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    /// Notes that it ends for its age, if it has that.
    pub(super) fn note_age(&self, now: Instant) {
        if now >= self.ends {
            self.life.ends_because(Closed::Age);
        }
    }

    fn sender(&self) -> MutexGuard<'_, Sender<B>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Dropping the future cancels the request: over HTTP/1.1 its connection is closed, over HTTP/2 its stream is reset.
    pub(super) async fn send(&self, request: Request<B>, reused: bool) -> Result<Response<Incoming>, SendError> {
        let heard = self.heard.load(Relaxed);
        let http1 = self.protocol() == Protocol::Http1;
        let answer = match &mut *self.sender() {
            Sender::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Sender::Http2(sender) => Either::Right(sender.try_send_request(request)),
        };
        let pending = self.life.pending(http1);
        let answer = answer.await;
        pending.ended();
        answer.map_err(|failure: TrySendError<Request<B>>| {
            let unsent = failure.message().is_some();
            let error = failure.into_error();
            let silent = self.heard.load(Relaxed) == heard;
            let fate = if unsent {
                Some(Fate::Unsent { reused })
            } else if http1 {
                http1_fate(&error, reused, silent)
            } else {
                http2_fate(&error, reused)
            };
            let reset = cause::find::<h2::Error>(&error).is_some_and(h2::Error::is_reset);
            let ended = !reset && !error.is_user();
            SendError { error, fate, ended }
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

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_frame_size(H2_MAX_FRAME_BYTES)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(H2_RESET_STREAMS)
        .max_pending_accept_reset_streams(H2_RESET_STREAMS)
        .max_local_error_reset_streams(H2_FAULTY_STREAMS)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .keep_alive_while_idle(true);
    builder
}

/// The fate of a request that was sent over HTTP/1.1: only a connection that served before, and then closed without a word,
/// is known to have been on its way out already.
fn http1_fate(error: &hyper::Error, reused: bool, silent: bool) -> Option<Fate> {
    (reused && silent && !error.is_user()).then_some(Fate::Unanswered)
}

/// The fate of a request that was sent over HTTP/2. A server says of a stream that it has not looked at it by refusing it, or
/// by a GOAWAY whose last stream is an earlier one (RFC 9113, 8.7): h2 ends only those streams with the server's GOAWAY. That
/// the connection closed without a word, hyper tells as an I/O error.
fn http2_fate(error: &hyper::Error, reused: bool) -> Option<Fate> {
    let Some(told) = cause::find::<h2::Error>(error) else {
        let closed = cause::find::<io::Error>(error).is_some() && !error.is_user();
        return (reused && closed).then_some(Fate::Unanswered);
    };
    let refused = told.is_go_away() || told.is_reset() && told.reason() == Some(h2::Reason::REFUSED_STREAM);
    (refused && told.is_remote()).then_some(Fate::Refused)
}
