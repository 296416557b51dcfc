//! How connections come in: each gets a slot, which another one may have to give up. Where all are busy, where the process has no
//! file descriptor left, or where a user is not let in, the metrics say so, and the log once a second.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{error, warn};

use super::{
    listener::{Listener, is_per_connection},
    slots::{PeerGroup, Policy, Slot, Slots},
    socket_stream::SocketStream,
};
use crate::telemetry::{LogLimiter, Metrics};

/// How long a caller's connection is idle before it gives way, if another one can: a new one's first request may be on its way. A
/// caller on this machine needs some milliseconds from connecting to sending when it is not given the processor.
const GRACE: Duration = Duration::from_millis(250);

/// The same for probes and administrators. The new connection takes the turn of the oldest of 64, so it has time for its request
/// anyway; with a longer grace, clients that connect again and again would keep probes waiting.
const SIDE_GRACE: Duration = Duration::from_millis(20);

/// How long accepting pauses when the process has no file descriptor left. Trying at once would spin.
const PAUSE: Duration = Duration::from_secs(1);

labels! {
    /// Why a connection was not served at once.
    enum Problem {
        /// There was no free slot.
        Full = "full",
        /// Its user is not one of `listen.socket_uids`.
        Refused = "refused",
        /// It could not be accepted.
        Failed = "failed",
    }
}

/// The way in through one or more listeners that share their slots.
#[derive(Debug)]
pub(super) struct Acceptor {
    name: &'static str,
    limit: usize,
    slots: Slots,
    /// Whether the peer that has most connections loses one first.
    by_peer: bool,
    metrics: Arc<Metrics>,
    full: LogLimiter,
    failed: LogLimiter,
    refused: LogLimiter,
}

impl Acceptor {
    /// An entrance with `limit` slots, for requests of callers. Logs and metrics call it `name`.
    pub(super) fn new(name: &'static str, limit: usize, metrics: Arc<Metrics>) -> Self {
        for problem in Problem::LABELS {
            metrics.init_accept_problem(name, problem);
        }
        let slots = Slots::new(limit, Policy { grace: GRACE, evicts_stalled: false });
        let (full, failed, refused) = Default::default();
        Self { name, limit, slots, by_peer: true, metrics, full, failed, refused }
    }

    /// The same for probes or administrators.
    pub(super) fn side(name: &'static str, limit: usize, metrics: Arc<Metrics>) -> Self {
        let slots = Slots::new(limit, Policy { grace: SIDE_GRACE, evicts_stalled: true });
        Self { slots, by_peer: false, ..Self::new(name, limit, metrics) }
    }

    /// The next connection of `listener` with its slot. First the connection, so that an idle listener holds no slot; while it
    /// waits for one, the next ones wait in the kernel's queue.
    pub(super) async fn next(&self, listener: &Listener) -> (SocketStream, Slot) {
        let stream = self.accept(listener).await;
        let slot = self.slot(&stream).await;
        (stream, slot)
    }

    /// A slot for a connection. Where none is free, the longest idle connection gives way; where all are busy, it waits.
    pub(super) async fn slot(&self, stream: &SocketStream) -> Slot {
        let group = if self.by_peer { PeerGroup::of(stream.peer()) } else { PeerGroup::All };
        if let Some(slot) = self.slots.try_acquire(group) {
            return slot;
        }
        self.metrics.accept_problem(self.name, Problem::Full.as_str());
        let all_busy = || {
            if let Some(times) = self.full.count() {
                warn!(listener = self.name, limit = self.limit, times, "connection limit reached; new ones wait");
            }
        };
        self.slots.acquire(group, all_busy).await
    }

    /// Stops listening, and returns the connections that the kernel has taken for us already.
    pub(super) fn close(&self, listener: Listener) -> Vec<SocketStream> {
        let (waiting, error) = listener.close();
        if let Some(error) = error {
            warn!(listener = self.name, %error, "connections that waited to be accepted are lost");
        }
        waiting
    }

    /// The next connection of a user who may connect. Errors of a single connection are skipped; when descriptors run out,
    /// accepting pauses.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub(super) async fn accept(&self, listener: &Listener) -> SocketStream {
        loop {
            match listener.accept().await {
                Ok(stream) if listener.admits(&stream) => return stream,
                Ok(stream) => {
                    if let Some(times) = self.note(Problem::Refused, &self.refused) {
                        let uid = stream.peer_uid();
                        warn!(listener = self.name, uid, times, "connection refused: not a user of listen.socket_uids");
                    }
                }
                Err(error) if is_per_connection(&error) => {}
                Err(error) => {
                    if let Some(times) = self.note(Problem::Failed, &self.failed) {
                        let pause_s = PAUSE.as_secs();
                        error!(
                            listener = self.name, %error, times, pause_s,
                            "cannot accept connections: raise the limit of open files"
                        );
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Counts a problem. Returns how often there was one since the log was last told, when it is to be told now.
    fn note(&self, problem: Problem, seldom: &LogLimiter) -> Option<u64> {
        self.metrics.accept_problem(self.name, problem.as_str());
        seldom.count()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::UnixStream, time::timeout};

    use super::*;
    use crate::server::{SocketAccess, unix_socket::Socket};

    #[tokio::test]
    async fn k08_a_user_who_is_not_listed_is_disconnected_and_the_next_one_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let own = rustix::process::geteuid().as_raw();
        let bind = |uid| Socket::bind(&path, SocketAccess { mode: 0o600, uids: vec![uid] }).unwrap().owned_by(own + 2);
        let metrics = Arc::new(Metrics::new());
        let entrance = Acceptor::new("proxy", 1, Arc::clone(&metrics));

        let listener = Listener::on_socket(bind(own + 1));
        let (mut caller, mut byte) = (UnixStream::connect(&path).await.unwrap(), [0]);
        let refused = tokio::select! {
            _ = entrance.next(&listener) => panic!("let in"),
            read = caller.read(&mut byte) => read.unwrap(),
        };
        assert_eq!(refused, 0);
        assert!(metrics.render().contains(r#"accept_problems_total{listener="proxy",problem="refused"} 1"#));

        drop(listener);
        let listener = Listener::on_socket(bind(own));
        let _caller = UnixStream::connect(&path).await.unwrap();
        let _connection = timeout(Duration::from_secs(60), entrance.next(&listener)).await.expect("let in");
    }
}
