//! The connections to the upstream that are kept: which of them a request gets, and when one has served long enough.
//!
//! A connection is used again when its answer has been taken whole, newest first, so that those beyond what is needed grow
//! idle and are closed. Over HTTP/2 there is one for all. Each has an age at which it takes no more requests, a little
//! different for each, so that those of many proxies do not end together; a new one looks the name up anew.
//!
//! Deliberately absent: a limit on the number of connections, which is that of requests, and waiting for one to become free
//! while a new one is being opened.

use std::{
    collections::VecDeque,
    error::Error as StdError,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep_until},
};

use super::{
    UpstreamConfig,
    connect::{Connect, ConnectError, Protocol},
    connection::{Connection, SendError},
    life::{self, Life},
};
use crate::telemetry::{Closed, Metrics};

/// How far the age of a connection may differ from the configured one, either way.
const AGE_JITTER: f64 = 0.1;

/// The most requests at a time on a connection over HTTP/2: as many as a client may count on before the server has said its own
/// limit (RFC 9113, 5.1.2). Further ones would wait unseen, be told that they may have been executed, and sent when nobody wants
/// them any more; so they get a connection of their own.
const MAX_STREAMS: usize = 100;

/// The connections of one worker.
pub(super) struct Pool<C, B> {
    connector: C,
    /// How long an unused connection is kept.
    idle_timeout: Duration,
    /// How long a connection takes requests.
    age: Duration,
    /// How long the upstream may take nothing of what it is sent.
    write_timeout: Duration,
    kept: Mutex<Kept<C, B>>,
    /// Held while an HTTP/2 connection is being opened, so that those who come meanwhile use it too.
    opening: AsyncMutex<()>,
    metrics: Arc<Metrics>,
}

struct Kept<C, B> {
    /// Those over HTTP/1.1 that are idle, the newest last.
    idle: VecDeque<Idle<C, B>>,
    /// The one over HTTP/2.
    shared: Option<Idle<C, B>>,
    /// Whether the last connection that was opened speaks HTTP/2, or the first may.
    http2: bool,
    /// Whether a task looks after what grows too old.
    looked_after: bool,
}

struct Idle<C, B> {
    member: Arc<Member<C, B>>,
    since: Instant,
}

/// A connection and the pool that it belongs to.
struct Member<C, B> {
    connection: Connection<B>,
    pool: Weak<Pool<C, B>>,
}

/// The connection that a request got.
pub(super) struct Chosen<C, B> {
    member: Arc<Member<C, B>>,
    /// Whether it has served before.
    reused: bool,
}

impl<C, B> Pool<C, B> {
    /// A pool without connections, whose times are those of `config`.
    pub(super) fn new(connector: C, config: &UpstreamConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let kept = Kept { idle: VecDeque::new(), shared: None, http2: config.http2, looked_after: false };
        Arc::new(Self {
            connector,
            idle_timeout: config.pool_idle_timeout,
            age: config.connection_age,
            write_timeout: config.idle_timeout,
            kept: Mutex::new(kept),
            opening: AsyncMutex::new(()),
            metrics,
        })
    }

    /// Where its connections are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn kept(&self) -> MutexGuard<'_, Kept<C, B>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that is kept, if one can be used. `fresh` leaves out those that were idle.
    fn take(&self, fresh: bool) -> Option<Chosen<C, B>> {
        let now = Instant::now();
        let kept = &mut *self.kept();
        let usable = |shared: &&mut Idle<C, B>| shared.users() < MAX_STREAMS && shared.member.connection.is_usable(now);
        if let Some(shared) = kept.shared.as_mut().filter(usable) {
            shared.since = now;
            return Some(Chosen { member: Arc::clone(&shared.member), reused: true });
        }
        while !fresh && let Some(idle) = kept.idle.pop_back() {
            self.metrics.upstream().idle().dec();
            if idle.stays(now, self.idle_timeout) {
                return Some(Chosen { member: idle.member, reused: true });
            }
        }
        None
    }

    /// Gives no more requests to `member`, which may not have noticed yet that it has ended.
    fn forget(&self, member: &Arc<Member<C, B>>) {
        self.kept().shared.take_if(|shared| Arc::ptr_eq(&shared.member, member));
    }

    /// Drops what is too old, and says when to look again. `None` when nothing is kept.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let kept = &mut *self.kept();
        let before = kept.idle.len();
        kept.idle.retain(|idle| idle.stays(now, self.idle_timeout));
        self.metrics.upstream().idle().sub((before - kept.idle.len()) as i64);
        kept.shared.take_if(|shared| !shared.stays(now, self.idle_timeout));
        let next = kept.idle.iter().chain(&kept.shared).map(|idle| idle.since + self.idle_timeout).min();
        kept.looked_after = next.is_some();
        next
    }
}

impl<C, B> Idle<C, B> {
    /// Whether it may be kept, and used. If not, it ends, and this is the place that knows why.
    fn stays(&self, now: Instant, idle_timeout: Duration) -> bool {
        let connection = &self.member.connection;
        let idle = now >= self.since + idle_timeout && self.users() == 0;
        let usable = connection.is_usable(now);
        if !usable {
            connection.note_age(now);
        } else if idle {
            connection.life().ends_because(Closed::Idle);
        }
        usable && !idle
    }

    /// How many requests are on it.
    fn users(&self) -> usize {
        Arc::strong_count(&self.member) - 1
    }
}

impl<C, B> Pool<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A connection for a request: one that is kept, or a new one. `fresh` asks for one that has not been idle, for a request
    /// whose connection turned out to be closed.
    pub(super) async fn connection(self: &Arc<Self>, fresh: bool) -> Result<Chosen<C, B>, ConnectError> {
        if let Some(chosen) = self.take(fresh) {
            return Ok(chosen);
        }
        if !self.kept().http2 {
            return self.open().await;
        }
        let Ok(_opening) = self.opening.try_lock() else {
            // Somebody opens one already. Should that fail, all who waited try at once, not one after another.
            drop(self.opening.lock().await);
            return match self.take(fresh) {
                Some(chosen) => Ok(chosen),
                None => self.open().await,
            };
        };
        self.open().await
    }

    async fn open(self: &Arc<Self>) -> Result<Chosen<C, B>, ConnectError> {
        let started = Instant::now();
        let connected = self.connector.connect().await;
        let (stream, protocol) = connected.inspect_err(|error| life::count_failure(&self.metrics, error))?;
        let life = Life::begin(Arc::clone(&self.metrics), started.elapsed());
        let jitter = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        let ends = Instant::now() + self.age.mul_f64(jitter);
        let begun = Connection::begin(stream, protocol, ends, self.write_timeout, life).await;
        let connection = begun.inspect_err(|error| life::count_failure(&self.metrics, error))?;
        let member = Arc::new(Member { connection, pool: Arc::downgrade(self) });
        self.kept().http2 = protocol == Protocol::Http2;
        if protocol == Protocol::Http2 {
            // One that is closed already is found to be so when the request is sent.
            let _ = self.keep(Arc::clone(&member), |kept, idle| {
                if let Some(before) = kept.shared.replace(idle) {
                    before.member.connection.note_age(Instant::now());
                }
            });
        }
        Ok(Chosen { member, reused: false })
    }

    /// Keeps `member` where `place` puts it. Gives it back, if it cannot serve.
    fn keep(
        self: &Arc<Self>,
        member: Arc<Member<C, B>>,
        place: impl FnOnce(&mut Kept<C, B>, Idle<C, B>),
    ) -> Result<(), Arc<Member<C, B>>> {
        let now = Instant::now();
        if !member.connection.is_usable(now) {
            member.connection.note_age(now);
            return Err(member);
        }
        let mut kept = self.kept();
        place(&mut kept, Idle { member, since: now });
        if !mem::replace(&mut kept.looked_after, true) {
            tokio::spawn(look_after(Arc::downgrade(self)));
        }
        Ok(())
    }
}

/// Drops connections that grow too old, until none is kept.
async fn look_after<C, B>(pool: Weak<Pool<C, B>>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.sweep()) {
        sleep_until(next).await;
    }
}

impl<C, B> Chosen<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    pub(super) fn protocol(&self) -> Protocol {
        self.member.connection.protocol()
    }

    /// Whether it has served before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends `request`. The lease that comes with the answer is to be held until the answer's body has been taken.
    pub(super) async fn send(self, request: Request<B>) -> Result<(Response<Incoming>, Lease), SendError> {
        match self.member.connection.send(request, self.reused).await {
            Ok(response) => Ok((response, Lease { leased: Some(self.member), finished: false })),
            Err(failure) => {
                if let Some(pool) = self.member.pool.upgrade().filter(|_| failure.ended) {
                    pool.forget(&self.member);
                }
                Err(failure)
            }
        }
    }
}

/// A connection that is in use until this is dropped.
pub(in crate::proxy) struct Lease {
    leased: Option<Arc<dyn Leased>>,
    finished: bool,
}

impl Lease {
    /// Notes that the answer has been taken whole.
    pub(in crate::proxy) fn finish(&mut self) {
        self.finished = true;
    }
}

trait Leased: Send + Sync {
    /// Back to the pool. `finished` says whether the answer has been taken whole.
    fn give_back(self: Arc<Self>, finished: bool);
}

impl<C, B> Leased for Member<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn give_back(self: Arc<Self>, finished: bool) {
        if self.connection.protocol() == Protocol::Http1
            && let Some(pool) = self.pool.upgrade()
        {
            match pool.keep(self, |kept, idle| kept.idle.push_back(idle)) {
                Ok(()) => pool.metrics.upstream().idle().inc(),
                Err(ended) if !finished => ended.connection.life().ends_because(Closed::Unfinished),
                Err(_) => {}
            }
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(leased) = self.leased.take() {
            leased.give_back(self.finished);
        }
    }
}
