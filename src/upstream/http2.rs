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
    response_future::{Failure, Http2ResponseFuture},
};
use super::{
    counting_io::CountingIo,
    lifecycle::{ConnectionMetrics, OpenGuard},
};
use crate::telemetry::CloseReason;

/// The largest head of an answer.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

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
const RESET_STREAMS: usize = 64;
const FAULTY_STREAMS: usize = 128;

/// A connection on which many requests are under way at once. It is run by a task of its own.
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    life: Arc<ConnectionMetrics>,
}

impl Connection {
    /// Begins to speak HTTP/2 on `stream`. A write may make no progress for `write_timeout`.
    pub(super) async fn begin<S>(
        stream: S,
        write_timeout: Duration,
        life: Arc<ConnectionMetrics>,
    ) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = CountingIo::new(stream, write_timeout);
        let heard = stream.count();
        let open = OpenGuard(Arc::clone(&life));
        let (sender, mut connection) = builder().handshake(stream).await?;
        let pings = connection.ping_pong().expect("nobody has taken it before");
        let lost = keep_alive::lost(pings, heard);
        #[expect(clippy::disallowed_methods, reason = "a task of the worker's runtime; it ends with the connection")]
        tokio::spawn(run(connection, lost, open));
        Ok(Self { sender, life })
    }

    /// Whether a request can be sent now.
    pub(super) fn is_usable(&self) -> bool {
        // It knows by itself, and of nothing that it could wait for.
        let mut nobody = Context::from_waker(Waker::noop());
        matches!(self.sender.clone().poll_ready(&mut nobody), Poll::Ready(Ok(())))
    }

    /// Whether the server takes one request more beside so many. It would wait unseen otherwise, be told that it may have been executed,
    /// and sent when nobody wants it any more.
    pub(super) fn has_room_beside(&self, requests: usize) -> bool {
        requests < self.sender.current_max_send_streams().min(MAX_STREAMS)
    }

    /// How it lives and ends.
    pub(super) fn life(&self) -> &ConnectionMetrics {
        &self.life
    }

    /// Sends `request`, as far as that goes without waiting. `reused` says whether the connection has served before.
    pub(super) fn send<B>(&self, request: Request<B>, reused: bool) -> Http2ResponseFuture<B>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = request.into_parts();
        let sent = self.sender.clone().send_request(Request::from_parts(head, ()), body.is_end_stream());
        Http2ResponseFuture::new(sent, body, reused)
    }
}

/// Runs a connection to its end, which is nobody's concern any more: each request knows how it fared itself. `lost` is ready when it
/// does not live any more, although it is open.
async fn run<S>(connection: client::Connection<CountingIo<S>>, lost: impl Future<Output = ()>, open: OpenGuard)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ended = select! {
        biased;
        ended = connection => ended.map_err(Error::from),
        () = lost => Err(Error::Io(io::ErrorKind::TimedOut.into())),
    };
    if let Err(error) = ended {
        open.0.ends_because(CloseReason::Failed);
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
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(FAULTY_STREAMS));
    builder
}

#[cfg(test)]
mod tests;
