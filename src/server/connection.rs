//! One connection, from its first byte to its last.
//!
//! Most connections are idle most of the time, so an idle one is parked: until the next head is complete, it keeps no HTTP state and no
//! buffer except that of the head, only a timer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    runtime::Handle,
    select,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    HttpService, Limits,
    connection_service::{ConnectionService, IdleDetector},
    downstream::{Downstream, DownstreamIo, Reclaim},
    evictions::{EvictionReason, Evictions},
    framed_reader::{FramedReader, HEAD_SLACK, ReaderStatus},
    head_budget::HeadBudget,
    slots::Slot,
    socket_stream::SocketStream,
};
use crate::{message::framing::MIN_FIELD_LIMIT, process::drain::Drain};

/// How often a connection that hyper serves is checked for idleness. It is parked when two checks in a row find it idle, which takes
/// between one and two of these intervals. Until then hyper keeps 16 KiB of buffers for it. Resuming a parked
/// connection costs a few allocations, which is negligible on a connection that is used so rarely.
const PARK_AFTER: Duration = Duration::from_millis(250);

/// State shared by the connections of one kind of listener.
#[derive(Debug)]
pub(super) struct ListenerContext {
    /// Shared by all listeners of the process.
    pub(super) head_budget: HeadBudget,
    /// The evictions of this kind of listener.
    pub(super) evictions: Evictions,
    /// Whether each response closes its connection.
    pub(super) close_after_response: bool,
}

/// The connections of one runtime: serves, drains and aborts them.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    limits: Limits,
    context: Arc<ListenerContext>,
    tasks: TaskTracker,
    /// Read for each response. Counts aborted connections.
    drain: Drain,
    /// How long an idle connection stays open after the start of the drain, because a request may be on its way.
    idle_grace: Duration,
    /// Cancelled in this order.
    drain_started: CancellationToken,
    drain_expired: CancellationToken,
    aborted: CancellationToken,
}

impl Connections {
    /// Starts without connections. Once `drain` has begun, each response closes its connection.
    pub(super) fn new(limits: Limits, context: Arc<ListenerContext>, drain: Drain, idle_grace: Duration) -> Self {
        let (tasks, drain_started, drain_expired, aborted) = Default::default();
        Self { limits, context, tasks, drain, idle_grace, drain_started, drain_expired, aborted }
    }

    /// The number of open connections.
    pub(super) fn open_count(&self) -> usize {
        self.tasks.len()
    }

    /// Serves `stream` with `service` on `runtime` until it closes. `slot` and `guard` are dropped with the connection.
    ///
    /// The stream moves from the reactor that accepted it to that of `runtime`.
    pub(super) fn serve(
        &self,
        runtime: &Handle,
        stream: SocketStream,
        service: impl HttpService,
        slot: Slot,
        guard: impl Send + 'static,
    ) {
        self.tasks.spawn_on(self.clone().run(stream, service, slot, guard), runtime);
    }

    /// Waits for a request, serves it and those that follow, and parks the connection again, until `socket` closes.
    async fn run(self, socket: SocketStream, service: impl HttpService, slot: Slot, _guard: impl Send) {
        let registered = socket.register_here().and_then(|socket| socket.set_nodelay().map(|()| socket));
        let socket = match registered {
            Ok(socket) => socket,
            Err(error) => return debug!(%error, "connection lost before its first request"),
        };
        let status = ReaderStatus::default();
        let (state, head_share) = (slot.state(), self.context.head_budget.share());
        let reader = FramedReader::new(
            self.limits.head,
            self.limits.header_timeout,
            status.clone(),
            Arc::clone(state),
            head_share,
        );
        let mut stream = Downstream::new(socket, reader);
        let mut idle_deadline = Instant::now() + self.limits.header_timeout;
        loop {
            let messages_begun = stream.messages_begun();
            // Heads after the first have a timeout of their own.
            let is_idle = |stream: &Downstream| messages_begun == 0 || !stream.is_in_head();
            let has_request = select! {
                biased;
                // Listed first, because empty lines wake the task and are not a request.
                () = sleep_until(idle_deadline), if is_idle(&stream) => {
                    if !is_idle(&stream) {
                        continue;
                    }
                    Ok(stream.reject_late_head())
                }
                buffered = stream.buffer_head() => buffered,
                () = drain_grace(&self.drain_started, self.idle_grace, &status, &self.drain_expired) => Ok(false),
            };
            if !has_request.unwrap_or(false) {
                return match stream.eviction() {
                    Some(reason) => Box::pin(self.evict(stream, reason)).await,
                    None => self.close(stream).await,
                };
            }
            // On the heap, so that a parked connection does not need the memory.
            stream = match Box::pin(self.serve_active(stream, messages_begun, service.clone(), status.clone())).await {
                Some(stream) => stream,
                None => return,
            };
            if stream.messages_begun() > messages_begun {
                idle_deadline = Instant::now() + self.limits.keepalive_timeout;
            }
        }
    }

    /// Serves the requests on `stream`; the first one has the number `messages_begun` + 1. Returns the stream when it is to be parked, and
    /// `None` when the connection is closed.
    async fn serve_active(
        &self,
        stream: Downstream,
        messages_begun: u64,
        service: impl HttpService,
        status: ReaderStatus,
    ) -> Option<Downstream> {
        let reclaim = Reclaim::default();
        let state = Arc::clone(stream.state());
        let detector = IdleDetector::new(messages_begun, Arc::clone(&state));
        let io = DownstreamIo::new(stream, self.limits.write_timeout, reclaim.clone());
        let outcome = {
            let closes = self.context.close_after_response;
            let service = ConnectionService::new(service, detector.clone(), status.clone(), self.drain.clone(), closes);
            let mut connection = pin!(self.http1(&detector).serve_connection(TokioIo::new(io), service));
            select! {
                biased;
                result = connection.as_mut() => ServeOutcome::Ended(result),
                () = until_idle(&detector, &status, &reclaim) => ServeOutcome::Idle,
                // Listed after the connection: polled once everything that can be written has been written.
                () = poll_fn(|cx| {
                    state.schedule_eviction(cx);
                    Poll::Pending
                }) => unreachable!("it is never ready"),
                () = drain_grace(&self.drain_started, self.idle_grace, &status, &self.drain_expired) => {
                    self.finish_request(connection).await
                }
            }
        };
        let stream = reclaim.take()?;
        if let Some(reason) = stream.eviction() {
            Box::pin(self.evict(stream, reason)).await;
            return None;
        }
        match self.next_step(outcome) {
            NextStep::Park => return Some(stream),
            NextStep::Reset => stream.reset(),
            NextStep::Close => self.close(stream).await,
        }
        None
    }

    /// hyper's settings. `detector` serves as the timer for heads.
    fn http1(&self, detector: &IdleDetector) -> http1::Builder {
        let head = self.limits.head;
        let mut builder = http1::Builder::new();
        builder
            .timer(detector.clone())
            // `detector` only counts how often the timer is set, and records when.
            .header_read_timeout(Duration::ZERO)
            .max_headers(head.headers.max(MIN_FIELD_LIMIT))
            // `DownstreamIo` detects a disconnect itself.
            .half_close(true)
            .max_buf_size(head.target_bytes + head.header_bytes + HEAD_SLACK);
        builder
    }

    /// Serves the request in flight on a draining connection, and no further one.
    async fn finish_request<S: HttpService>(&self, mut connection: Pin<&mut Http1Connection<S>>) -> ServeOutcome {
        connection.as_mut().graceful_shutdown();
        select! {
            result = connection.as_mut() => ServeOutcome::Ended(result),
            () = self.drain_expired.cancelled() => select! {
                biased;
                // Poll once, so that the request in flight sees that the drain timeout has expired.
                result = connection => ServeOutcome::Ended(result),
                () = self.aborted.cancelled() => ServeOutcome::Aborted,
            }
        }
    }

    /// Returns what to do with a connection after `outcome`, and counts or logs a failure. Not async, because a stream that is passed to
    /// another future takes memory in that future too.
    fn next_step(&self, outcome: ServeOutcome) -> NextStep {
        match outcome {
            ServeOutcome::Idle => NextStep::Park,
            ServeOutcome::Aborted => {
                self.drain.count_aborted();
                NextStep::Reset
            }
            // The response may be truncated, so the connection is reset. Not after a parse error: hyper has then responded, and that
            // response must arrive.
            ServeOutcome::Ended(Err(error)) if !error.is_parse() => {
                debug!(%error, "connection ended with an error");
                NextStep::Reset
            }
            ServeOutcome::Ended(result) => {
                if let Err(error) = result {
                    debug!(%error, "cannot parse a request");
                }
                NextStep::Close
            }
        }
    }

    /// Closes an evicted connection. The response to an unfinished head has been sent.
    async fn evict(&self, stream: Downstream, reason: EvictionReason) {
        self.context.evictions.record(reason);
        match reason {
            // No new connection waits for the slot, and the client may still be sending.
            EvictionReason::UnfinishedHeadBytes => self.close(stream).await,
            EvictionReason::StalledResponse => stream.reset(),
            EvictionReason::Idle | EvictionReason::UnfinishedHead | EvictionReason::Closing => {}
        }
    }

    async fn close(&self, stream: Downstream) {
        select! {
            // On the heap, so that the memory is taken only at the close.
            evicted = Box::pin(stream.close()) => {
                if evicted {
                    self.context.evictions.record(EvictionReason::Closing);
                }
            }
            () = self.aborted.cancelled() => {}
        }
    }

    /// Starts the drain: every connection finishes the request in flight or on its way, then closes. Idle ones close.
    pub(super) fn drain(&self) {
        self.tasks.close();
        self.drain_started.cancel();
    }

    /// Polls every request still in flight once more. Call it after [`drain`](Self::drain).
    pub(super) fn expire(&self) {
        self.drain_expired.cancel();
    }

    /// Waits until no connection is open. Call it after [`drain`](Self::drain).
    pub(super) async fn closed(&self) {
        self.tasks.wait().await;
    }

    /// Resets the connections that are still open. Call it after [`expire`](Self::expire).
    pub(super) fn abort(&self) {
        self.aborted.cancel();
    }
}

/// hyper's connection.
type Http1Connection<S> = http1::Connection<TokioIo<DownstreamIo>, ConnectionService<S>>;

/// Why hyper no longer serves a connection.
enum ServeOutcome {
    /// hyper has finished it.
    Ended(hyper::Result<()>),
    /// It has been idle for a while.
    Idle,
    /// The connection was aborted: the grace time after the drain timeout is over, or a second signal arrived.
    Aborted,
}

/// What to do with a connection that hyper no longer serves.
enum NextStep {
    Park,
    Reset,
    Close,
}

/// Waits until a connection has been idle for a while: hyper waits for a request, no byte of the request has arrived, and the previous
/// response has been written.
async fn until_idle(detector: &IdleDetector, status: &ReaderStatus, reclaim: &Reclaim) {
    let mut previous = None;
    loop {
        sleep(PARK_AFTER).await;
        let awaited_request =
            detector.awaited_request().filter(|_| status.is_between_messages() && !reclaim.has_pending_write());
        if awaited_request.is_some() && awaited_request == previous {
            return;
        }
        previous = awaited_request;
    }
}

/// Waits until the drain closes an idle connection: `idle_grace` after the start of the drain, or after the end of a head that has arrived
/// in part. A request may already be in the kernel, or on its way from a client that does not know of the drain; an immediate close
/// would lose it.
async fn drain_grace(
    drain_started: &CancellationToken,
    idle_grace: Duration,
    status: &ReaderStatus,
    drain_expired: &CancellationToken,
) {
    drain_started.cancelled().await;
    // On the heap, because it is needed only once.
    Box::pin(async {
        while timeout(idle_grace, drain_expired.cancelled()).await.is_err() {
            if !status.is_in_head() || idle_grace.is_zero() {
                return;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
