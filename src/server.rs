//! The proxy's own accept loop and its workers.
//!
//! Connections are accepted in one place and handed to the worker that has the fewest. A worker is a thread with a
//! single-threaded runtime that owns its connections, their timers and its pool of upstream connections, so that a request
//! never moves between threads (ADR 0001).
//!
//! Deliberately absent: HTTP/2 and protocol upgrades towards callers, and `axum::serve`, which has no header timeout.

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
mod socket_stream;
mod control_listener;
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
pub use config::{Config, GivenUp, Limits};
pub use control_listener::{Side, serve};
pub use head_budget::HeadBudget;
pub use listener::{BindError, Listener, bind};
pub use service::Answers;
pub use unix_socket::SocketAccess;

use self::{
    acceptor::Acceptor,
    connection::{Connections, Shared},
    evictions::Evictions,
    socket_stream::SocketStream,
    syn_filter::HANDSHAKE,
    worker::Worker,
};
use crate::{message::transport::PerTransport, process::drain::Drain, telemetry::Metrics};

/// How long an event loop may take to answer a ping before it counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection may still bring a request when no new ones are taken any more: one that was on its way. A caller
/// on this machine needs some microseconds from connecting to sending, or some milliseconds when it is not given the processor.
const LAST_REQUEST: Duration = Duration::from_millis(250);

/// How long the last answers may take to leave, once no request is waited for any more.
pub const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The workers and what they share.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    entrance: Acceptor,
    metrics: Arc<Metrics>,
    end: Drain,
    /// What accepts connections, until the last one that waited has a worker.
    accepting: TaskTracker,
    /// Cancelled when a worker thread ends.
    ended: CancellationToken,
}

impl Server {
    /// Starts the worker threads; `stack` makes the services of each. Once `end` has begun, each answer is its connection's last.
    /// Unfinished heads count in `heads`, and those that are given up get the response `given_up`.
    ///
    /// # Errors
    ///
    /// When a thread or its runtime cannot be started.
    pub fn start<S: Answers + Sync>(
        config: &Config,
        metrics: Arc<Metrics>,
        heads: HeadBudget,
        given_up: GivenUp,
        end: Drain,
        stack: impl Fn() -> PerTransport<S>,
    ) -> io::Result<Self> {
        let ended = CancellationToken::new();
        let evictions = Evictions::new("proxy", given_up.response, Some(given_up.code), Arc::clone(&metrics));
        let shared = Arc::new(Shared { heads, evictions, closes: false });
        let worker = |number| {
            let connections = Connections::new(config.limits, Arc::clone(&shared), end.clone(), LAST_REQUEST);
            Worker::start(number, connections, stack(), ended.clone().drop_guard())
        };
        let workers = (0..config.worker_threads.get()).map(worker).collect::<io::Result<_>>()?;
        let limit = connection_limit(config);
        metrics.connections_limit().set(i64::try_from(limit).unwrap_or(i64::MAX));
        let entrance = Acceptor::new("proxy", limit, Arc::clone(&metrics));
        Ok(Self { workers, entrance, metrics, end, accepting: TaskTracker::new(), ended })
    }

    /// Accepts connections from `listener` until `stop` is cancelled, and those that wait then.
    pub fn accept(
        self: Arc<Self>,
        listener: Listener,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        // From the call on, so that a stop before the first connection waits for those in the queue too.
        let accepting = self.accepting.token();
        async move {
            let _accepting = accepting;
            loop {
                let stream = select! {
                    biased;
                    () = stop.cancelled() => break,
                    stream = self.entrance.accept(&listener) => stream,
                };
                self.serve(stream).await;
            }
            if listener.drop_new() {
                let end = Instant::now() + HANDSHAKE;
                while let Ok(stream) = timeout_at(end, self.entrance.accept(&listener)).await {
                    self.serve(stream).await;
                }
            }
            for stream in self.entrance.close(listener) {
                self.serve(stream).await;
            }
        }
    }

    /// Hands `stream` to a worker as soon as there is a place for it.
    async fn serve(&self, stream: SocketStream) {
        let slot = self.entrance.slot(&stream).await;
        let worker = self.workers.iter().min_by_key(|worker| worker.connections().open());
        let open = OpenConnection::new(Arc::clone(&self.metrics));
        worker.expect("there is at least one worker").serve(stream, slot, open);
    }

    /// Whether every worker's event loop answers within two seconds.
    pub async fn is_alive(&self) -> bool {
        for worker in &self.workers {
            if !timeout(PING_TIMEOUT, worker.ping()).await.unwrap_or(false) {
                return false;
            }
        }
        true
    }

    /// Waits until a worker thread has ended, which only a bug makes it do.
    pub async fn worker_ended(&self) {
        self.ended.cancelled().await;
    }

    /// Lets every connection finish the request that it is working on, and closes it then; idle ones are closed after a moment, in
    /// which a request that was on its way is still taken. To be called when accepting has been told to stop.
    ///
    /// What is not answered after `patience` is answered with 503, and what is still open a second later is cut off. Returns how
    /// many requests were not served to their end.
    pub async fn drain(&self, patience: Duration) -> usize {
        let connections = || self.workers.iter().map(Worker::connections);
        self.end.begin();
        connections().for_each(Connections::drain);
        if timeout(patience, self.finished()).await.is_err() {
            self.end.expire();
            connections().for_each(Connections::expire);
            if timeout(LAST_ANSWERS, self.finished()).await.is_err() {
                connections().for_each(Connections::abort);
                self.finished().await;
            }
        }
        self.end.cut_off()
    }

    /// Waits until nothing is accepted and no connection is open.
    async fn finished(&self) {
        self.accepting.close();
        self.accepting.wait().await;
        for worker in &self.workers {
            worker.connections().finished().await;
        }
    }
}

/// The most connections that may be open: as many as are configured, or as the limit of open files has room for.
fn connection_limit(config: &Config) -> usize {
    let open_files = getrlimit(Resource::Nofile).current;
    let room = open_files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let limit = fd_budget::fitting(config.connections, config.upstream_connections, room);
    if limit < config.connections {
        warn!(
            configured = config.connections,
            limit,
            open_files,
            "limits.connections does not fit the limit of open files and is lowered: raise that limit"
        );
    }
    limit
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
struct OpenConnection(Arc<Metrics>);

impl OpenConnection {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections().inc();
        Self(metrics)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections().dec();
    }
}
