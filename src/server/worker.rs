//! A worker: one thread, one single-threaded runtime, its connections and its services.

use std::{fmt, io, thread};

use tokio::{
    runtime::{self, Handle},
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Answers, OpenConnection, connection::Connections, transport::Transport};
use crate::guard::ByDoor;

/// What a connection holds for as long as it lives.
pub(super) type Held = (OwnedSemaphorePermit, OpenConnection);

/// The handle on a worker thread. Dropping it cuts off the worker's connections and ends the thread.
pub(super) struct Worker {
    serve: Box<dyn Fn(Transport, Held) + Send + Sync>,
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
        services: ByDoor<impl Answers + Sync>,
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
        let serve = Box::new(move |stream: Transport, held| {
            let service = services.get(stream.door()).clone();
            serving.serve(&on, stream, service, held);
        });
        Ok(Self { serve, connections, runtime: handle, _stop: stop.drop_guard() })
    }

    /// The worker's connections.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Serves `stream` on this worker. `held` is dropped with the connection.
    pub(super) fn serve(&self, stream: Transport, held: Held) {
        (self.serve)(stream, held);
    }

    /// Returns when the event loop has come round, and whether there is one.
    pub(super) async fn ping(&self) -> bool {
        self.runtime.spawn(async {}).await.is_ok()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("connections", &self.connections).finish_non_exhaustive()
    }
}
