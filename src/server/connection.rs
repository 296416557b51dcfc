//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, select, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::debug;

use super::{
    gate::{Gate, Refused},
    stream::{CallerStream, Returned},
    transport::Transport,
};
use crate::{drain::Drain, framing::HeadLimits};

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
    /// Looked at with each answer, and told of connections that were cut off.
    end: Drain,
    /// How long an idle connection may still bring a request once no new ones are taken.
    last_request: Duration,
    /// Cancelled one after the other.
    drain: CancellationToken,
    overdue: CancellationToken,
    abort: CancellationToken,
}

impl Connections {
    /// No connections yet. Once `end` has begun, each answer is its connection's last one.
    pub(super) fn new(limits: Limits, end: Drain, last_request: Duration) -> Self {
        let (tasks, drain, overdue, abort) = Default::default();
        Self { limits, tasks, end, last_request, drain, overdue, abort }
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
        let Self { limits, end, last_request, drain, overdue, abort, .. } = self.clone();
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
                        .serve_connection(TokioIo::new(stream), Numbered::new(service, refused, end.clone()))
                );
                select! {
                    biased;
                    ended = connection.as_mut() => Some(ended),
                    () = last_chance(&drain, last_request, &overdue) => {
                        connection.as_mut().graceful_shutdown();
                        select! {
                            ended = connection.as_mut() => Some(ended),
                            () = overdue.cancelled() => select! {
                                biased;
                                // Polled here, the request that is waited for sees that its time is over.
                                ended = connection => Some(ended),
                                () = abort.cancelled() => None,
                            }
                        }
                    }
                }
            };
            if ended.is_none() {
                end.note_cut_off();
            }
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

    /// Lets every connection finish the request that it is working on, or that is on its way; idle ones close.
    pub(super) fn drain(&self) {
        self.tasks.close();
        self.drain.cancel();
    }

    /// Has every request looked at once more that is still waited for after [`drain`](Self::drain).
    pub(super) fn expire(&self) {
        self.overdue.cancel();
    }

    /// Waits until no connection is open. To be called after [`drain`](Self::drain).
    pub(super) async fn finished(&self) {
        self.tasks.wait().await;
    }

    /// Cuts off what is still open after [`expire`](Self::expire).
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }
}

/// Waits until an idle connection is to be closed. A request may be in the kernel already, or on its way by a caller that has not
/// heard of the end; closing at once would lose it.
async fn last_chance(drain: &CancellationToken, last_request: Duration, overdue: &CancellationToken) {
    drain.cancelled().await;
    let _ = timeout(last_request, overdue.cancelled()).await;
}

/// Counts the requests of a connection, says of the one that the gate refused what is wrong with it, and tells callers when the
/// connection is about to close.
#[derive(Debug)]
struct Numbered<S> {
    inner: TowerToHyperService<S>,
    count: AtomicU64,
    refused: Refused,
    end: Drain,
}

impl<S> Numbered<S> {
    fn new(inner: S, refused: Refused, end: Drain) -> Self {
        Self { inner: TowerToHyperService::new(inner), count: AtomicU64::new(0), refused, end }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Numbered<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<<TowerToHyperService<S> as hyper::service::Service<Request<Incoming>>>::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(fault) = self.refused.fault_of(number) {
            request.extensions_mut().insert(fault);
        }
        Answer { inner: self.inner.call(request), end: self.end.clone() }
    }
}

pin_project! {
    /// An answer that says `Connection: close` when it is the last one, upon which hyper closes the connection.
    struct Answer<F> {
        #[pin]
        inner: F,
        end: Drain,
    }
}

impl<F: Future<Output = Result<Response<B>, E>>, B, E> Future for Answer<F> {
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(cx));
        if let Ok(response) = &mut answer
            && this.end.has_begun()
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
