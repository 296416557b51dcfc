//! The accept loop and the workers.
//!
//! One accept loop hands each connection to the worker with the fewest. A worker is a thread with a single-threaded runtime that
//! owns its connections, their timers and its pool of upstream connections, so a request never moves between threads (ADR 0001).
//!
//! Deliberately absent: HTTP/2 and protocol upgrades for clients, and `axum::serve`, which has no header timeout.

mod config;
mod service;
mod address;
mod connection;
mod fd_budget;
mod acceptor;
mod evictions;
mod connection_service;
mod framed_reader;
mod head_budget;
mod head_buffer;
mod listener;
mod syn_filter;
mod slots;
mod unix_socket;
mod downstream;
mod peer_state;
mod client_watch;
mod socket_stream;
mod operator_listener;
mod worker;

use std::{io, sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit};
use tokio::{
    select,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

pub use address::{Address, AddressError};
pub use config::{Config, Limits};
pub use head_budget::HeadBudget;
pub use listener::{BindError, Listener, bind, inspect};
pub use operator_listener::{MAX_OPERATOR_CONNECTIONS, OperatorListenerConfig, serve};
pub use service::HttpService;
pub use unix_socket::SocketAccess;

use self::{
    acceptor::Acceptor,
    connection::{Connections, ListenerContext},
    evictions::Evictions,
    socket_stream::SocketStream,
    syn_filter::HANDSHAKE_GRACE,
    worker::Worker,
};
use crate::{message::transport::PerTransport, process::drain::Drain, telemetry::Metrics};

/// How long a worker's event loop may take to run the task of a ping before the worker counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection stays open after the start of the drain, because a request may be on its way. A client on this machine
/// needs microseconds from connecting to sending, or milliseconds when the machine is busy.
const IDLE_DRAIN_GRACE: Duration = Duration::from_millis(250);

/// How long sending the last responses may take after the drain timeout has expired.
pub const FINAL_RESPONSE_GRACE: Duration = Duration::from_secs(1);

/// How long aborted connections may take to close. It takes one turn of each worker's event loop.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// The workers and the state that they share.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    acceptor: Acceptor,
    metrics: Arc<Metrics>,
    drain: Drain,
    /// One task per listener. It ends when the last connection in the listener's queue has been handed to a worker.
    accept_tasks: TaskTracker,
    /// Cancelled when a worker thread ends.
    worker_exited: CancellationToken,
}

impl Server {
    /// Starts the worker threads, each with the services from one call of `make_stack`. Once `drain` has begun, each response closes its
    /// connection. Unfinished heads count towards `head_budget`.
    ///
    /// # Errors
    ///
    /// If a thread or its runtime cannot be started.
    pub fn start<S: HttpService + Sync>(
        config: &Config,
        metrics: Arc<Metrics>,
        head_budget: HeadBudget,
        drain: Drain,
        make_stack: impl Fn() -> PerTransport<S>,
    ) -> io::Result<Self> {
        let worker_exited = CancellationToken::new();
        let evictions = Evictions::new("proxy", Arc::clone(&metrics));
        let context = Arc::new(ListenerContext { head_budget, evictions, close_after_response: false });
        let worker = |number| {
            let connections = Connections::new(config.limits, Arc::clone(&context), drain.clone(), IDLE_DRAIN_GRACE);
            Worker::start(number, connections, make_stack(), worker_exited.clone().drop_guard())
        };
        let workers = (0..config.worker_threads.get()).map(worker).collect::<io::Result<_>>()?;
        let limit = effective_connection_limit(config);
        metrics.connections_limit().set(i64::try_from(limit).unwrap_or(i64::MAX));
        let acceptor = Acceptor::new("proxy", limit, Arc::clone(&metrics));
        Ok(Self { workers, acceptor, metrics, drain, accept_tasks: TaskTracker::new(), worker_exited })
    }

    /// Accepts connections from `listener` until `stop` is cancelled, then those in the kernel's queue.
    pub fn accept(
        self: Arc<Self>,
        listener: Listener,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Taken here and not in the future, so that `closed` waits for the queue even if `stop` is cancelled before the first poll.
        let accept_task = self.accept_tasks.token();
        async move {
            let _accept_task = accept_task;
            loop {
                let stream = select! {
                    biased;
                    () = stop.cancelled() => break,
                    stream = self.acceptor.accept(&listener) => stream,
                };
                self.serve(stream).await;
            }
            if listener.drop_new_connections() {
                let handshake_deadline = Instant::now() + HANDSHAKE_GRACE;
                while let Ok(stream) = timeout_at(handshake_deadline, self.acceptor.accept(&listener)).await {
                    self.serve(stream).await;
                }
            }
            for stream in self.acceptor.close(listener) {
                self.serve(stream).await;
            }
        }
    }

    /// Acquires a slot for `stream` and hands it to the worker with the fewest connections.
    async fn serve(&self, stream: SocketStream) {
        let slot = self.acceptor.acquire_slot(&stream).await;
        let worker = self.workers.iter().min_by_key(|worker| worker.connections().open_count());
        let open_guard = OpenConnectionGuard::new(Arc::clone(&self.metrics));
        worker.expect("there is at least one worker").serve(stream, slot, open_guard);
    }

    /// Whether every worker's event loop responds within two seconds.
    pub async fn is_alive(&self) -> bool {
        for worker in &self.workers {
            if !timeout(PING_TIMEOUT, worker.ping()).await.unwrap_or(false) {
                return false;
            }
        }
        true
    }

    /// Waits until a worker thread has ended. Only a bug ends one.
    pub async fn worker_ended(&self) {
        self.worker_exited.cancelled().await;
    }

    /// Closes every connection after the request in flight. Idle ones close after a grace time, in which a request that was on its way is
    /// still served. Call it after cancelling the `stop` of [`accept`](Self::accept).
    ///
    /// Requests without a response after `drain_timeout` get a 503. Connections that are still open after another
    /// [`FINAL_RESPONSE_GRACE`] are reset. Returns the number of aborted requests.
    pub async fn drain(&self, drain_timeout: Duration) -> usize {
        let connections = || self.workers.iter().map(Worker::connections);
        self.drain.begin();
        connections().for_each(Connections::drain);
        if timeout(drain_timeout, self.closed()).await.is_err() {
            self.drain.expire();
            connections().for_each(Connections::expire);
            if timeout(FINAL_RESPONSE_GRACE, self.closed()).await.is_err() {
                connections().for_each(Connections::abort);
                self.closed().await;
            }
        }
        self.drain.aborted()
    }

    /// Resets the connections that have a request in flight, and closes the others. Call it after cancelling the `stop` of
    /// [`accept`](Self::accept). Returns the number of aborted requests, including those that [`drain`](Self::drain) aborted.
    pub async fn abort(&self) -> usize {
        let connections = || self.workers.iter().map(Worker::connections);
        self.drain.begin();
        for connections in connections() {
            connections.drain();
            connections.expire();
            connections.abort();
        }
        let all_closed = async {
            for connections in connections() {
                connections.closed().await;
            }
        };
        // Each connection closes when its task runs next. A worker that does not run its tasks is not waited for.
        let _ = timeout(ABORT_GRACE, all_closed).await;
        self.drain.aborted()
    }

    /// Waits until the accept tasks have ended and no connection is open.
    async fn closed(&self) {
        self.accept_tasks.close();
        self.accept_tasks.wait().await;
        for worker in &self.workers {
            worker.connections().closed().await;
        }
    }
}

/// The connection limit: the configured one, lowered where necessary to fit `RLIMIT_NOFILE`.
fn effective_connection_limit(config: &Config) -> usize {
    let soft_limit = getrlimit(Resource::Nofile).current;
    let max_open_files = soft_limit.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let limit = fd_budget::connection_limit(config.connections, config.upstream_connections, max_open_files);
    if limit < config.connections {
        warn!(
            configured = config.connections,
            limit,
            open_files = soft_limit,
            "limits.connections does not fit RLIMIT_NOFILE; using a lower limit: raise RLIMIT_NOFILE or lower the key"
        );
    }
    limit
}

/// Counts an open connection in the metrics until dropped.
#[derive(Debug)]
struct OpenConnectionGuard(Arc<Metrics>);

impl OpenConnectionGuard {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections().inc();
        Self(metrics)
    }
}

impl Drop for OpenConnectionGuard {
    fn drop(&mut self) {
        self.0.connections().dec();
    }
}
