//! A worker: one thread, one single-threaded runtime, its connections and its services.

use std::{fmt, io, thread};

use tokio::runtime::{self, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Answers, OpenConnection, connection::Connections, slots::Slot, socket_stream::SocketStream};
use crate::message::transport::PerTransport;

/// The handle on a worker thread. Dropping it cuts off the worker's connections and ends the thread.
pub(super) struct Worker {
    serve: Box<dyn Fn(SocketStream, Slot, OpenConnection) + Send + Sync>,
    connections: Connections,
    runtime: Handle,
    _stop: DropGuard,
}

impl Worker {
    /// Starts the thread, which serves its `connections` with the one of `services` for the door that each came in by.
    /// `ended` is dropped when the thread ends, however it does.
    pub(super) fn start(
        number: usize,
        connections: Connections,
        services: PerTransport<impl Answers + Sync>,
        ended: DropGuard,
    ) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let _ended = ended;
            runtime.block_on(stopped.cancelled());
        })?;

        let (serving, on) = (connections.clone(), handle.clone());
        let serve = Box::new(move |stream: SocketStream, slot, open| {
            let service = services.get(stream.door()).clone();
            serving.serve(&on, stream, service, slot, open);
        });
        Ok(Self { serve, connections, runtime: handle, _stop: stop.drop_guard() })
    }

    /// The worker's connections.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Serves `stream` on this worker. `slot` and `open` are dropped with the connection.
    pub(super) fn serve(&self, stream: SocketStream, slot: Slot, open: OpenConnection) {
        (self.serve)(stream, slot, open);
    }

    /// Returns when the event loop has come round, and whether there is one.
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
