//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{runtime::Handle, select};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::debug;

use super::{
    gate::{Gate, Refused},
    stream::{CallerStream, Returned},
    transport::Transport,
};
use crate::framing::HeadLimits;

/// What hyper may buffer beyond the limits of a head, so that a head over a limit still gets a proper answer.
const HEAD_SLACK: usize = 32 * 1024;

/// The least number of header fields that hyper gets to see, for the same reason. It is also what costs it nothing.
const MIN_HEADERS: usize = 100;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How large the head of a request may be.
    pub head: HeadLimits,
    /// The time for the head of a request to arrive, from its first byte (`limits.header_timeout`).
    pub header_timeout: Duration,
    /// The time between an answer and the next request (`limits.keepalive_timeout`).
    pub keepalive_timeout: Duration,
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
    pub(super) fn serve<S, B>(&self, runtime: &Handle, stream: Transport, service: S, held: impl Send + 'static)
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
            let moved = stream.move_here().and_then(|stream| stream.set_nodelay().map(|()| stream));
            let stream = match moved {
                Ok(stream) => stream,
                Err(error) => return debug!(%error, "connection lost before it was served"),
            };
            let (returned, refused) = (Returned::default(), Refused::default());
            let gate = Gate::new(limits.head, limits.header_timeout, refused.clone());
            let stream = CallerStream::new(stream, gate, limits.write_timeout, returned.clone());
            let ended = {
                let mut connection = pin!(
                    http1::Builder::new()
                        .timer(TokioTimer::new())
                        // hyper counts this from the last answer to the end of the next head.
                        .header_read_timeout(limits.keepalive_timeout + limits.header_timeout)
                        .max_headers(limits.head.headers.max(MIN_HEADERS))
                        .max_buf_size(limits.head.target_bytes + limits.head.header_bytes + HEAD_SLACK)
                        .serve_connection(TokioIo::new(stream), Numbered::new(service, refused))
                );
                select! {
                    biased;
                    ended = connection.as_mut() => Some(ended),
                    () = drain.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        select! {
                            ended = connection => Some(ended),
                            () = abort.cancelled() => None,
                        }
                    }
                }
            };
            let Some(stream) = returned.take() else { return };
            match ended {
                None => stream.reset(),
                // An answer may have broken off. Where the request could not be read, hyper has answered, which must arrive.
                Some(Err(error)) if !error.is_parse() => {
                    debug!(%error, "connection ended with an error");
                    stream.reset();
                }
                Some(ended) => {
                    if let Err(error) = ended {
                        debug!(%error, "a request could not be read");
                    }
                    select! {
                        () = stream.close() => {}
                        () = abort.cancelled() => {}
                    }
                }
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

/// Counts the requests of a connection, and says of the one that the gate refused what is wrong with it.
#[derive(Debug)]
struct Numbered<S> {
    inner: TowerToHyperService<S>,
    count: AtomicU64,
    refused: Refused,
}

impl<S> Numbered<S> {
    fn new(inner: S, refused: Refused) -> Self {
        Self { inner: TowerToHyperService::new(inner), count: AtomicU64::new(0), refused }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Numbered<S>
where
    S: Service<Request<Incoming>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = <TowerToHyperService<S> as hyper::service::Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(fault) = self.refused.fault_of(number) {
            request.extensions_mut().insert(fault);
        }
        self.inner.call(request)
    }
}
