//! HTTP/2 to the upstream: one connection for many requests at once, and what became of one that it failed (RFC 9113).
//!
//! The protocol is h2's. Requests are handed to it directly, and not by way of hyper's client, which puts a queue and two more tasks
//! between a request and its stream (ADR 0003). One task drives a connection; each request polls its own stream.

mod body;
mod error;
mod response_future;
mod keep_alive;
mod send_body;

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, Builder, SendRequest};
use http::Request;
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
};
use tracing::debug;

pub(crate) use self::error::Error;
pub(super) use self::{
    body::RecvBody,
    response_future::{Http2Failure, Http2ResponseFuture},
};
use super::{
    counting_io::CountingIo,
    lifecycle::{ConnectionMetrics, OpenGuard},
};
use crate::telemetry::CloseReason;

/// The largest head of an answer.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// The most bytes of informational responses before a response, each counted as HTTP/1.1 would write it.
const INTERIM_LIMIT: usize = 64 * 1024;

/// How much of one body, and of all bodies of a connection, may be on its way to a caller that does not take it. Fixed: windows
/// that grow with the connection's speed (adaptive ones) would let the server decide how much memory it takes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The largest frame that is taken: the protocol's own default, and the least that can be asked for.
const MAX_FRAME_BYTES: u32 = 16 * 1024;

/// How much of a request's body waits in memory for a server that does not take it.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// The most requests at a time on a connection: as many as a client may count on before the server has said its own limit
/// (RFC 9113, 5.1.2).
const MAX_STREAMS: usize = 100;

/// How many streams that were given up are remembered, since frames for them may still come, and how many streams may fail by the
/// server's faults. A server that goes on beyond the latter loses its connection.
const MAX_RESET_STREAMS: usize = 64;
const MAX_FAULTY_STREAMS: usize = 128;

/// A connection on which many requests are under way at once. It is run by a task of its own.
pub(super) struct Http2Connection {
    sender: SendRequest<Bytes>,
    connection_metrics: Arc<ConnectionMetrics>,
}

impl Http2Connection {
    /// Begins to speak HTTP/2 on `stream`. A write may make no progress for `write_timeout`.
    pub(super) async fn begin<S>(
        stream: S,
        write_timeout: Duration,
        connection_metrics: Arc<ConnectionMetrics>,
    ) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = CountingIo::new(stream, write_timeout);
        let bytes_read = stream.counter();
        let open_guard = OpenGuard(Arc::clone(&connection_metrics));
        let (sender, mut connection) = builder().handshake(stream).await?;
        let pings = connection.ping_pong().expect("nobody has taken it before");
        let ping_timed_out = keep_alive::ping_timed_out(pings, bytes_read);
        #[expect(clippy::disallowed_methods, reason = "a task of the worker's runtime; it ends with the connection")]
        tokio::spawn(run(connection, ping_timed_out, open_guard));
        Ok(Self { sender, connection_metrics })
    }

    /// Whether a request can be sent now.
    pub(super) fn is_usable(&self) -> bool {
        // It knows by itself, and of nothing that it could wait for.
        let mut noop_cx = Context::from_waker(Waker::noop());
        matches!(self.sender.clone().poll_ready(&mut noop_cx), Poll::Ready(Ok(())))
    }

    /// Whether the server takes one more request in addition to `active_requests`. Beyond that h2 queues it: it would wait unseen, and
    /// count as one that may have been executed.
    pub(super) fn has_capacity(&self, active_requests: usize) -> bool {
        active_requests < self.sender.current_max_send_streams().min(MAX_STREAMS)
    }

    /// Its metrics.
    pub(super) fn connection_metrics(&self) -> &ConnectionMetrics {
        &self.connection_metrics
    }

    /// Sends `request`, as far as that goes without waiting. `reused` says whether the connection has served before.
    pub(super) fn send<B>(&self, request: Request<B>, reused: bool) -> Http2ResponseFuture<B>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = request.into_parts();
        let stream = self.sender.clone().send_request(Request::from_parts(head, ()), body.is_end_stream());
        Http2ResponseFuture::new(stream, body, reused)
    }
}

/// Drives a connection until it is closed. `ping_timed_out` is ready when the server does not answer a ping on the open connection.
async fn run<S>(
    connection: client::Connection<CountingIo<S>>,
    ping_timed_out: impl Future<Output = ()>,
    open_guard: OpenGuard,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let result = select! {
        biased;
        result = connection => result.map_err(Error::from),
        () = ping_timed_out => Err(Error::Io(io::ErrorKind::TimedOut.into())),
    };
    if let Err(error) = result {
        open_guard.0.set_close_reason(CloseReason::Failed);
        debug!(%error, "a connection to the upstream has ended");
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(Some(MAX_FAULTY_STREAMS));
    builder
}

#[cfg(test)]
mod tests;
