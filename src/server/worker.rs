//! A worker: one thread, one single-threaded runtime, its connections and its service.

use std::{convert::Infallible, error::Error as StdError, io, thread};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{
    net::TcpStream,
    runtime::{self, Handle},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Service;

use super::connection::{Connections, Limits};

/// The handle on a worker thread. Dropping it cuts off the worker's connections and ends the thread.
#[derive(Debug)]
pub(super) struct Worker<S> {
    service: S,
    connections: Connections,
    runtime: Handle,
    _stop: DropGuard,
}

impl<S, B> Worker<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    /// Starts the thread.
    pub(super) fn start(number: usize, limits: Limits, service: S) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { service, connections: Connections::new(limits), runtime: handle, _stop: stop.drop_guard() })
    }

    /// The worker's connections.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Serves `stream` on this worker. `held` is dropped with the connection.
    pub(super) fn serve(&self, stream: TcpStream, held: impl Send + 'static) {
        self.connections.serve(&self.runtime, stream, self.service.clone(), held);
    }

    /// Returns when the event loop has come round.
    pub(super) async fn ping(&self) {
        let _ = self.runtime.spawn(async {}).await;
    }
}
