//! Accepts connections under a limit: each gets a slot, for which another connection may be evicted. Counts a reached limit, a lack of
//! file descriptors and rejected UIDs, and logs each at most once a second.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{error, warn};

use super::{
    listener::{Listener, is_per_connection},
    slots::{EvictionPolicy, PeerGroup, Slot, Slots},
    socket_stream::SocketStream,
};
use crate::telemetry::{LogLimiter, Metrics};

/// How long a client's connection is idle before it is evicted, if there is another candidate: the first request of a new connection may
/// be on its way. A client on this machine needs milliseconds from connecting to sending when the machine is busy.
const IDLE_GRACE: Duration = Duration::from_millis(250);

/// The same for probes and administrators. A new connection is the last candidate of 64, so it has time for its request anyway; with a
/// longer grace, clients that keep reconnecting would delay probes.
const OPERATOR_IDLE_GRACE: Duration = Duration::from_millis(20);

/// How long accepting pauses when the process has no file descriptor left. An immediate retry would spin.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

labels! {
    /// Why a connection was not served immediately.
    enum AcceptProblem {
        /// There was no free slot.
        LimitReached = "full",
        /// Its UID is not one of `listen.socket_uids`.
        UidRejected = "refused",
        /// It could not be accepted.
        Failed = "failed",
    }
}

/// Accepts the connections of one or more listeners that share their slots.
#[derive(Debug)]
pub(super) struct Acceptor {
    name: &'static str,
    limit: usize,
    slots: Slots,
    /// Whether the peer with the most connections loses one first.
    groups_by_peer: bool,
    metrics: Arc<Metrics>,
    limit_log: LogLimiter,
    failure_log: LogLimiter,
    rejection_log: LogLimiter,
}

impl Acceptor {
    /// An acceptor with `limit` slots, for clients' requests. `name` is the listener's name in logs and metrics.
    pub(super) fn new(name: &'static str, limit: usize, metrics: Arc<Metrics>) -> Self {
        for problem in AcceptProblem::LABELS {
            metrics.init_accept_problem(name, problem);
        }
        let slots = Slots::new(limit, EvictionPolicy { grace: IDLE_GRACE, evicts_stalled: false });
        let (limit_log, failure_log, rejection_log) = Default::default();
        Self { name, limit, slots, groups_by_peer: true, metrics, limit_log, failure_log, rejection_log }
    }

    /// The same for probes or administrators.
    pub(super) fn for_operators(name: &'static str, limit: usize, metrics: Arc<Metrics>) -> Self {
        let slots = Slots::new(limit, EvictionPolicy { grace: OPERATOR_IDLE_GRACE, evicts_stalled: true });
        Self { slots, groups_by_peer: false, ..Self::new(name, limit, metrics) }
    }

    /// Returns the next connection of `listener` with its slot. It accepts before it acquires the slot, so that an idle listener holds none.
    /// While a connection waits for a slot, later ones wait in the kernel's queue.
    pub(super) async fn accept_with_slot(&self, listener: &Listener) -> (SocketStream, Slot) {
        let stream = self.accept(listener).await;
        let slot = self.acquire_slot(&stream).await;
        (stream, slot)
    }

    /// Returns a slot for a connection. If none is free, it evicts the longest idle connection; if all are busy, it waits.
    pub(super) async fn acquire_slot(&self, stream: &SocketStream) -> Slot {
        let group = if self.groups_by_peer { PeerGroup::of(stream.peer()) } else { PeerGroup::All };
        if let Some(slot) = self.slots.try_acquire(group) {
            return slot;
        }
        self.metrics.accept_problem(self.name, AcceptProblem::LimitReached.as_str());
        let all_busy = || {
            if let Some(times) = self.limit_log.count() {
                warn!(listener = self.name, limit = self.limit, times, "connection limit reached; new ones wait");
            }
        };
        self.slots.acquire(group, all_busy).await
    }

    /// Stops listening. Returns the connections in the kernel's queue.
    pub(super) fn close(&self, listener: Listener) -> Vec<SocketStream> {
        let (queued, error) = listener.close();
        if let Some(error) = error {
            warn!(listener = self.name, %error, "lost connections that were waiting to be accepted: raise RLIMIT_NOFILE");
        }
        queued
    }

    /// Returns the next connection from a permitted UID. Skips errors of single connections, and pauses when file descriptors run out.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost.
    pub(super) async fn accept(&self, listener: &Listener) -> SocketStream {
        loop {
            match listener.accept().await {
                Ok(stream) if listener.admits(&stream) => return stream,
                Ok(stream) => {
                    if let Some(times) = self.count_problem(AcceptProblem::UidRejected, &self.rejection_log) {
                        let uid = stream.peer_uid();
                        warn!(
                            listener = self.name,
                            uid, times, "connection closed: the peer's UID is not in listen.socket_uids"
                        );
                    }
                }
                Err(error) if is_per_connection(&error) => {}
                Err(error) => {
                    if let Some(times) = self.count_problem(AcceptProblem::Failed, &self.failure_log) {
                        let pause_s = ACCEPT_PAUSE.as_secs();
                        error!(
                            listener = self.name, %error, times, pause_s,
                            "cannot accept connections: raise RLIMIT_NOFILE"
                        );
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Counts a problem. If it is time for a log line, returns the number of occurrences since the last one.
    fn count_problem(&self, problem: AcceptProblem, log: &LogLimiter) -> Option<u64> {
        self.metrics.accept_problem(self.name, problem.as_str());
        log.count()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::UnixStream, time::timeout};

    use super::*;
    use crate::server::{SocketAccess, unix_socket::UnixSocket};

    #[tokio::test]
    async fn k08_an_unlisted_uid_is_rejected_and_the_next_peer_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let own_uid = rustix::process::geteuid().as_raw();
        let bind = |uid| {
            UnixSocket::bind(&path, SocketAccess { mode: 0o600, uids: vec![uid] }).unwrap().with_own_uid(own_uid + 2)
        };
        let metrics = Arc::new(Metrics::new());
        let acceptor = Acceptor::new("proxy", 1, Arc::clone(&metrics));

        let listener = Listener::on_socket(bind(own_uid + 1));
        let (mut client, mut byte) = (UnixStream::connect(&path).await.unwrap(), [0]);
        let read = tokio::select! {
            _ = acceptor.accept_with_slot(&listener) => panic!("accepted"),
            read = client.read(&mut byte) => read.unwrap(),
        };
        assert_eq!(read, 0);
        assert!(metrics.render().contains(r#"accept_problems_total{listener="proxy",problem="refused"} 1"#));

        drop(listener);
        let listener = Listener::on_socket(bind(own_uid));
        let _client = UnixStream::connect(&path).await.unwrap();
        let _connection =
            timeout(Duration::from_secs(60), acceptor.accept_with_slot(&listener)).await.expect("accepted");
    }
}
