//! The proxy's own accept loop and its workers.
//!
//! Connections are accepted in one place and handed to the worker that has the fewest. A worker is a thread with a
//! single-threaded runtime that owns its connections, their timers and its pool of upstream connections, so that a request
//! never moves between threads (ADR 0001).
//!
//! Deliberately absent: HTTP/2 and protocol upgrades towards callers, and `axum::serve`, which has no header timeout.

mod connection;
mod gate;
mod listener;
mod socket;
mod stream;
mod worker;

use std::{convert::Infallible, error::Error as StdError, io, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

pub use connection::Limits;
pub use listener::{BindError, bind};
pub use socket::{SocketError, bind_socket};

use self::{connection::Connections, worker::Worker};
use crate::telemetry::Metrics;

/// How long an event loop may take to answer a ping before it counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The most connections of a listener for probes or administrators. Some tens are a crowd there.
const MAX_SIDE_CONNECTIONS: usize = 256;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of worker threads (`runtime.worker_threads`).
    pub worker_threads: NonZeroUsize,
    /// The most connections open at once (`limits.connections`); further ones wait in the kernel's queue.
    pub connections: usize,
    /// What a single connection may do.
    pub limits: Limits,
}

/// The workers and what they share.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Cancelled when a worker thread ends.
    ended: CancellationToken,
}

impl Server {
    /// Starts the worker threads; `stack` makes the service of each.
    ///
    /// # Errors
    ///
    /// When a thread or its runtime cannot be started.
    pub fn start<S, B>(config: &Config, metrics: Arc<Metrics>, stack: impl Fn() -> S) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        let ended = CancellationToken::new();
        let worker = |number| Worker::start(number, config.limits, stack(), ended.clone().drop_guard());
        Ok(Self {
            workers: (0..config.worker_threads.get()).map(worker).collect::<io::Result<_>>()?,
            places: Arc::new(Semaphore::new(config.connections)),
            metrics,
            ended,
        })
    }

    /// Accepts connections from `listener` until `stop` is cancelled.
    pub async fn accept(&self, listener: TcpListener, stop: CancellationToken) {
        loop {
            let (stream, place) = select! {
                biased;
                () = stop.cancelled() => return,
                next = next_connection(&listener, &self.places) => next,
            };
            let worker = self.workers.iter().min_by_key(|worker| worker.connections().open());
            let open = OpenConnection::new(Arc::clone(&self.metrics));
            worker.expect("there is at least one worker").serve(stream, (place, open));
        }
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

    /// Lets every connection finish the request that it is working on, and closes it then; idle ones are closed at once.
    /// What is still open after `patience` is cut off.
    ///
    /// Returns how many connections were cut off.
    pub async fn drain(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut cut_off = 0;
        for worker in &self.workers {
            worker.connections().drain();
        }
        for worker in &self.workers {
            let connections = worker.connections();
            if timeout_at(deadline, connections.finished()).await.is_err() {
                cut_off += connections.open();
                connections.abort();
                connections.finished().await;
            }
        }
        cut_off
    }
}

/// Serves the connections of `listener` with `service` on this runtime, until `stop` is cancelled: for the listeners that are
/// not on the path of requests. At most 256 are open at once.
pub async fn serve<S, B>(listener: TcpListener, service: S, limits: Limits, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    let connections = Connections::new(limits);
    let places = Arc::new(Semaphore::new(MAX_SIDE_CONNECTIONS));
    loop {
        let (stream, place) = select! {
            () = stop.cancelled() => return connections.drain(),
            next = next_connection(&listener, &places) => next,
        };
        connections.serve(&Handle::current(), stream, service.clone(), place);
    }
}

/// The next connection, once there is a place for it: first the connection, so that an idle listener holds no place.
async fn next_connection(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let stream = listener::accept(listener).await;
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    (stream, place)
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
