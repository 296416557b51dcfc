//! HTTP/2 to the upstream: one connection for many concurrent requests, and the disposition of failed ones (RFC 9113).
//!
//! h2 implements the protocol. Requests go to it directly and not through hyper's client, which adds a queue and two tasks between a
//! request and its stream (ADR 0003). One task drives a connection; each request polls its own stream.

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

/// The maximum size of a response head.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// The maximum size of the informational responses before a response, as encoded in HTTP/1.1.
const INTERIM_LIMIT: usize = 64 * 1024;

/// The flow-control windows: how much of one body, and of all bodies of a connection, may be buffered for slow clients. They are fixed
/// because with adaptive windows the server would decide how much memory the proxy uses.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The maximum frame size: the protocol's default, and the smallest value that can be set.
const MAX_FRAME_BYTES: u32 = 16 * 1024;

/// How much of a request body is buffered for a slow server.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// The maximum number of concurrent requests on a connection: the value that RFC 9113, section 6.5.2, recommends as the minimum for a
/// server's limit, so it is safe to use before the server's SETTINGS arrive.
const MAX_STREAMS: usize = 100;

/// How many reset streams are remembered, because frames for them may still arrive; and how many streams may fail because of server
/// errors before the connection is closed.
const MAX_RESET_STREAMS: usize = 64;
const MAX_FAULTY_STREAMS: usize = 128;

/// A connection with many concurrent requests, driven by a task of its own.
pub(super) struct Http2Connection {
    sender: SendRequest<Bytes>,
    connection_metrics: Arc<ConnectionMetrics>,
}

impl Http2Connection {
    /// Does the HTTP/2 handshake on `stream`. A write may make no progress for at most `write_timeout`.
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
        let pings = connection.ping_pong().expect("it is taken only once");
        let ping_timed_out = keep_alive::ping_timed_out(pings, bytes_read);
        #[expect(clippy::disallowed_methods, reason = "a task of the worker's runtime; it ends with the connection")]
        tokio::spawn(run(connection, ping_timed_out, open_guard));
        Ok(Self { sender, connection_metrics })
    }

    /// Whether a request can be sent now.
    pub(super) fn is_usable(&self) -> bool {
        // The result is known immediately, so no waker is needed.
        let mut noop_cx = Context::from_waker(Waker::noop());
        matches!(self.sender.clone().poll_ready(&mut noop_cx), Poll::Ready(Ok(())))
    }

    /// Whether the server accepts another request in addition to `active_requests`. h2 would queue a request over the limit: it would wait
    /// unnoticed, and count as possibly executed.
    pub(super) fn has_capacity(&self, active_requests: usize) -> bool {
        active_requests < self.sender.current_max_send_streams().min(MAX_STREAMS)
    }

    /// The metrics of the connection.
    pub(super) fn connection_metrics(&self) -> &ConnectionMetrics {
        &self.connection_metrics
    }

    /// Starts sending `request`. `reused`: the connection has served a request before.
    pub(super) fn send<B>(&self, request: Request<B>, reused: bool) -> Http2ResponseFuture<B>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = request.into_parts();
        let stream = self.sender.clone().send_request(Request::from_parts(head, ()), body.is_end_stream());
        Http2ResponseFuture::new(stream, body, reused)
    }
}

/// Drives a connection until it closes. `ping_timed_out` is ready when a ping on the open connection has timed out.
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
        debug!(%error, "upstream connection ended with an error");
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
