//! One connection, from its first byte to its last.
//!
//! Most connections of most callers are idle, so an idle one rests: until the next head has arrived in full, nothing of HTTP is kept
//! for it, and no buffers but that of the head; only a timer is.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

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
    Answers, Limits,
    connection_service::{Counted, IdleDetector},
    downstream::{Downstream, DownstreamIo, Reclaim},
    evictions::{Evictions, Reason},
    framed_reader::{FramedReader, HEAD_SLACK, ReaderStatus},
    head_budget::HeadBudget,
    slots::Slot,
    socket_stream::SocketStream,
};
use crate::process::drain::Drain;

/// The least number of header fields that hyper gets to see, for the same reason. It is also what costs it nothing.
const MIN_HEADERS: usize = 100;

/// How long an idle connection waits for the next request before it rests: for one time this long at least, for two at most.
/// Waking it costs a few allocations, which a caller with so few requests does not notice.
const REST_AFTER: Duration = Duration::from_millis(250);

/// What the connections of one kind of listener share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Of all listeners of the process.
    pub(super) heads: HeadBudget,
    /// Those of this kind of listener.
    pub(super) evictions: Evictions,
    /// Whether each response is its connection's last.
    pub(super) closes: bool,
}

/// The connections of one runtime: serves them, lets them finish, or cuts them off.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    limits: Limits,
    shared: Arc<Shared>,
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
    pub(super) fn new(limits: Limits, shared: Arc<Shared>, end: Drain, last_request: Duration) -> Self {
        let (tasks, drain, overdue, abort) = Default::default();
        Self { limits, shared, tasks, end, last_request, drain, overdue, abort }
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Serves `stream` with `service` on `runtime` until it closes. `slot` and `held` are dropped with the connection.
    ///
    /// The stream leaves the reactor that accepted it and joins the one that serves it.
    pub(super) fn serve(
        &self,
        runtime: &Handle,
        stream: SocketStream,
        service: impl Answers,
        slot: Slot,
        held: impl Send + 'static,
    ) {
        self.tasks.spawn_on(self.clone().attend(stream, service, slot, held), runtime);
    }

    /// Rests until a request comes, serves it and those that follow it, and rests again, until `transport` closes.
    async fn attend(self, transport: SocketStream, service: impl Answers, slot: Slot, _held: impl Send) {
        let moved = transport.move_here().and_then(|stream| stream.set_nodelay().map(|()| stream));
        let transport = match moved {
            Ok(transport) => transport,
            Err(error) => return debug!(%error, "connection lost before it was served"),
        };
        let view = ReaderStatus::default();
        let (state, share) = (slot.state(), self.shared.heads.share());
        let gate =
            FramedReader::new(self.limits.head, self.limits.header_timeout, view.clone(), Arc::clone(state), share);
        let mut stream = Downstream::new(transport, gate);
        let mut end = Instant::now() + self.limits.header_timeout;
        loop {
            let messages = stream.messages();
            // A head after the first has a time of its own.
            let is_idle = |stream: &Downstream| messages == 0 || !stream.is_in_head();
            let woken = select! {
                biased;
                // First, since empty lines wake a connection and are no request.
                () = sleep_until(end), if is_idle(&stream) => {
                    if !is_idle(&stream) {
                        continue;
                    }
                    Ok(false)
                }
                collected = stream.collect() => collected,
                () = last_chance(&self.drain, self.last_request, &view, &self.overdue) => Ok(false),
            };
            if let Some(reason) = stream.gave_way() {
                return Box::pin(self.give_way(stream, reason)).await;
            }
            if !woken.unwrap_or(false) {
                return self.close(stream).await;
            }
            // On the heap, so that a resting connection has no room for it.
            stream = match Box::pin(self.serve_awake(stream, messages, service.clone(), view.clone())).await {
                Some(stream) => stream,
                None => return,
            };
            if stream.messages() > messages {
                end = Instant::now() + self.limits.keepalive_timeout;
            }
        }
    }

    /// Serves the requests of `stream` after the first `messages`, until it closes, or has been idle for a while and is given back.
    async fn serve_awake(
        &self,
        stream: Downstream,
        messages: u64,
        service: impl Answers,
        view: ReaderStatus,
    ) -> Option<Downstream> {
        let Self { limits, end, last_request, drain, overdue, abort, .. } = self;
        let returned = Reclaim::default();
        let state = Arc::clone(stream.state());
        let exchanges = IdleDetector::after(messages, Arc::clone(&state));
        let stream = DownstreamIo::new(stream, limits.write_timeout, returned.clone());
        let ended = {
            let service = Counted::new(service, exchanges.clone(), view.clone(), end.clone(), self.shared.closes);
            let mut connection = pin!(
                http1::Builder::new()
                    .timer(exchanges.clone())
                    // This timer only counts, and says when it was set.
                    .header_read_timeout(Duration::ZERO)
                    .max_headers(limits.head.headers.max(MIN_HEADERS))
                    // The stream itself notices a caller that goes away.
                    .half_close(true)
                    .max_buf_size(limits.head.target_bytes + limits.head.header_bytes + HEAD_SLACK)
                    .serve_connection(TokioIo::new(stream), service)
            );
            select! {
                biased;
                ended = connection.as_mut() => Ended::ByItself(ended),
                () = idle(&exchanges, &view, &returned) => Ended::Idle,
                // After the connection, so that all that can be written is.
                () = poll_fn(|cx| {
                    state.watch(cx);
                    Poll::Pending
                }) => unreachable!("it is never ready"),
                () = last_chance(drain, *last_request, &view, overdue) => {
                    connection.as_mut().graceful_shutdown();
                    select! {
                        ended = connection.as_mut() => Ended::ByItself(ended),
                        () = overdue.cancelled() => select! {
                            biased;
                            // Polled here, the request that is waited for sees that its time is over.
                            ended = connection => Ended::ByItself(ended),
                            () = abort.cancelled() => Ended::CutOff,
                        }
                    }
                }
            }
        };
        let stream = returned.take()?;
        if let Some(reason) = stream.gave_way() {
            Box::pin(self.give_way(stream, reason)).await;
            return None;
        }
        match ended {
            Ended::Idle => return Some(stream),
            Ended::CutOff => {
                end.note_cut_off();
                stream.reset();
            }
            // An answer may have broken off. Where the request could not be read, hyper has answered, which must arrive.
            Ended::ByItself(Err(error)) if !error.is_parse() => {
                debug!(%error, "connection ended with an error");
                stream.reset();
            }
            Ended::ByItself(ended) => {
                if let Err(error) = ended {
                    debug!(%error, "a request could not be read");
                }
                self.close(stream).await;
            }
        }
        None
    }

    /// Closes a connection to make room.
    async fn give_way(&self, mut stream: Downstream, reason: Reason) {
        self.shared.evictions.note(reason);
        if reason.needs_response() {
            stream.respond(self.shared.evictions.response()).await;
        }
        match reason {
            // The next connection does not wait for this one, and its client may go on sending.
            Reason::HeadBytes => self.close(stream).await,
            Reason::Stalled => stream.reset(),
            Reason::Idle | Reason::Head | Reason::Closing => {}
        }
    }

    async fn close(&self, stream: Downstream) {
        select! {
            // On the heap, so that what a connection needs at its end takes no memory before.
            gave_way = Box::pin(stream.close()) => {
                if gave_way {
                    self.shared.evictions.note(Reason::Closing);
                }
            }
            () = self.abort.cancelled() => {}
        }
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

/// How it came that a connection is not served any more.
enum Ended {
    ByItself(hyper::Result<()>),
    Idle,
    CutOff,
}

/// Waits until a connection has been idle for a while: hyper waits for a request of which nothing has come, and has written all of
/// the answer before it.
async fn idle(exchanges: &IdleDetector, view: &ReaderStatus, stream: &Reclaim) {
    let mut before = None;
    loop {
        sleep(REST_AFTER).await;
        let awaited = exchanges.awaited().filter(|_| view.is_between_messages() && !stream.has_more_to_write());
        if awaited.is_some() && awaited == before {
            return;
        }
        before = awaited;
    }
}

/// Waits until an idle connection is to be closed. A request may be in the kernel already, or on its way by a caller that has not
/// heard of the end, or its head may have arrived in part, of which hyper makes nothing; closing at once would lose it.
async fn last_chance(
    drain: &CancellationToken,
    last_request: Duration,
    view: &ReaderStatus,
    overdue: &CancellationToken,
) {
    drain.cancelled().await;
    // On the heap, as what is needed once, at the end.
    Box::pin(async {
        while timeout(last_request, overdue.cancelled()).await.is_err() {
            if !view.is_in_head() || last_request.is_zero() {
                return;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
