//! One connection, from its first byte to its last.

use std::{convert::Infallible, error::Error as StdError, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, runtime::Handle, select};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::debug;

use super::stream::{Broken, CallerStream};

/// The largest head of a request: the header block and the request line.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most header fields of a request.
const MAX_HEADERS: usize = 100;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time for a request's head to arrive, and for the next one on a kept connection.
    pub header_timeout: Duration,
    /// The longest time that the caller may take nothing of an answer (`upstream.idle_timeout`).
    pub write_timeout: Duration,
}

/// The connections of one runtime: serves them, lets them finish, or cuts them off.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    limits: Limits,
    tasks: TaskTracker,
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Connections {
    /// No connections yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, tasks: TaskTracker::new(), drain: CancellationToken::new(), abort: CancellationToken::new() }
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Serves `stream` with `service` on `runtime` until it closes. `held` is dropped with the connection.
    ///
    /// The stream leaves the reactor that accepted it and joins the one that serves it.
    pub(super) fn serve<S, B>(&self, runtime: &Handle, stream: TcpStream, service: S, held: impl Send + 'static)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        let (limits, drain, abort) = (self.limits, self.drain.clone(), self.abort.clone());
        runtime.spawn(self.tasks.track_future(async move {
            let _held = held;
            let moved = stream.into_std().and_then(TcpStream::from_std).and_then(|s| s.set_nodelay(true).map(|()| s));
            let stream = match moved {
                Ok(stream) => stream,
                Err(error) => return debug!(%error, "connection lost before it was served"),
            };
            let broken = Broken::default();
            let mut connection = pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits.header_timeout)
                    .max_headers(MAX_HEADERS)
                    .max_buf_size(MAX_HEAD_BYTES)
                    .serve_connection(
                        TokioIo::new(CallerStream::new(stream, limits.write_timeout, broken.clone())),
                        TowerToHyperService::new(service)
                    )
            );
            let ended = select! {
                biased;
                ended = connection.as_mut() => ended,
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    select! {
                        ended = connection => ended,
                        () = abort.cancelled() => return broken.set(),
                    }
                }
            };
            if let Err(error) = ended {
                if error.is_user() {
                    // The body of an answer failed.
                    broken.set();
                }
                debug!(%error, "connection ended with an error");
            }
        }));
    }

    /// Lets every connection finish the request that it is working on; idle ones close at once.
    pub(super) fn drain(&self) {
        self.tasks.close();
        self.drain.cancel();
    }

    /// Waits until no connection is open. To be called after [`drain`](Self::drain).
    pub(super) async fn finished(&self) {
        self.tasks.wait().await;
    }

    /// Cuts off what is still open after [`drain`](Self::drain).
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }
}
