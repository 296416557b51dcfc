//! A worker: a thread with a single-threaded runtime, its connections and its services.

use std::{fmt, io, thread};

use tokio::runtime::{self, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{HttpService, OpenConnectionGuard, connection::Connections, slots::Slot, socket_stream::SocketStream};
use crate::message::transport::PerTransport;

/// The handle to a worker thread. Dropping it aborts the worker's connections and ends the thread.
pub(super) struct Worker {
    serve: Box<dyn Fn(SocketStream, Slot, OpenConnectionGuard) + Send + Sync>,
    connections: Connections,
    runtime: Handle,
    _stop: DropGuard,
}

impl Worker {
    /// Starts the thread. It serves each of its `connections` with the service of `services` for the connection's transport.
    /// `exited` is dropped when the thread ends, for whatever reason.
    pub(super) fn start(
        number: usize,
        connections: Connections,
        services: PerTransport<impl HttpService + Sync>,
        exited: DropGuard,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stop_requested = stop.clone();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let _exited = exited;
            runtime.block_on(stop_requested.cancelled());
        })?;

        let (worker_connections, worker_runtime) = (connections.clone(), handle.clone());
        let serve = Box::new(move |stream: SocketStream, slot, open_guard| {
            let service = services.get(stream.transport()).clone();
            worker_connections.serve(&worker_runtime, stream, service, slot, open_guard);
        });
        Ok(Self { serve, connections, runtime: handle, _stop: stop.drop_guard() })
    }

    /// The worker's connections.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Serves `stream` on this worker. `slot` and `open_guard` are dropped with the connection.
    pub(super) fn serve(&self, stream: SocketStream, slot: Slot, open_guard: OpenConnectionGuard) {
        (self.serve)(stream, slot, open_guard);
    }

    /// Runs an empty task on the event loop. Returns false if the loop has ended.
    #[expect(clippy::disallowed_methods, reason = "the task is awaited here")]
    pub(super) async fn ping(&self) -> bool {
        self.runtime.spawn(async {}).await.is_ok()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("connections", &self.connections).finish_non_exhaustive()
    }
}
