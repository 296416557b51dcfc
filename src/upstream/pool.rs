//! The connections to the upstream that are kept: which of them a request gets, and when one has served long enough.
//!
//! A connection is used again when its answer has been taken whole, newest first, so that those beyond what is needed grow
//! idle and are closed. Over HTTP/2 as many requests share one as the server takes at a time, on the oldest that has room. Each has an
//! age at which it takes no more requests, a little different for each, so that those of many proxies do not end together; a new one
//! looks the name up anew.
//!
//! Deliberately absent: a limit on the number of connections, which is that of requests, and waiting for one to become free
//! while a new one is being opened.

mod exclusive;
mod multiplexed;

use std::{
    collections::VecDeque,
    error::Error as StdError,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, Sleep, sleep_until},
};

pub(crate) use self::{exclusive::Exclusive, multiplexed::Shared};
use super::{
    UpstreamConfig,
    connect::{Connect, ConnectError, Protocol, failure::count_failure},
    http1::Http1Connection,
    http2,
    lifecycle::ConnectionMetrics,
};
use crate::telemetry::Metrics;

/// How far the age of a connection may differ from the configured one, either way.
const AGE_JITTER: f64 = 0.1;

/// The connections of one worker.
pub(crate) struct Pool<C: Connect, B> {
    connector: C,
    /// How long an unused connection is kept.
    idle_timeout: Duration,
    /// How long a connection takes requests.
    age: Duration,
    /// How long the upstream may take nothing of what it is sent.
    write_timeout: Duration,
    kept: Mutex<Idle<C, B>>,
    /// Held while an HTTP/2 connection is being opened, so that those who come meanwhile use it too.
    opening: AsyncMutex<()>,
    metrics: Arc<Metrics>,
}

struct Idle<C: Connect, B> {
    /// Those over HTTP/1.1 that are idle, the newest last, each since when.
    idle: VecDeque<(Box<Exclusive<C, B>>, Instant)>,
    /// Those over HTTP/2, the newest last, each with when it was last given to a request, or seen with one.
    shared: Vec<(Arc<Shared<C, B>>, Instant)>,
    /// Whether the last connection that was opened speaks HTTP/2, or the first may.
    http2: bool,
    /// Whether a task looks after what is kept …
    looked_after: bool,
    /// … and what wakes it.
    waker: Option<Waker>,
}

/// The connection that a request got.
pub(crate) struct Checkout<C: Connect, B> {
    pub(crate) connection: Connection<C, B>,
    /// Whether it has served before.
    pub(crate) reused: bool,
}

pub(crate) enum Connection<C: Connect, B> {
    Http1(Box<Exclusive<C, B>>),
    Http2(Arc<Shared<C, B>>),
}

impl<C: Connect, B> Pool<C, B> {
    /// A pool without connections, whose times are those of `config`.
    pub(crate) fn new(connector: C, config: &UpstreamConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let kept =
            Idle { idle: VecDeque::new(), shared: Vec::new(), http2: config.http2, looked_after: false, waker: None };
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
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn kept(&self) -> MutexGuard<'_, Idle<C, B>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C, B> Pool<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A connection for a request that [`take`](Self::take) had none for: a new one, or one that somebody opens already.
    pub(crate) async fn connection(self: &Arc<Self>, fresh: bool) -> Result<Checkout<C, B>, ConnectError> {
        if !self.kept().http2 {
            return self.open().await;
        }
        let Ok(_opening) = self.opening.try_lock() else {
            // Somebody opens one already. Should that fail, all who waited try at once, not one after another.
            drop(self.opening.lock().await);
            return match self.take(fresh, Instant::now()) {
                Some(chosen) => Ok(chosen),
                None => self.open().await,
            };
        };
        self.open().await
    }

    /// Takes a connection that is kept, if one can be used. `fresh` leaves out those that were idle, for a request whose connection
    /// turned out to be closed.
    pub(crate) fn take(&self, fresh: bool, now: Instant) -> Option<Checkout<C, B>> {
        let kept = &mut *self.kept();
        if let Some((shared, used)) =
            kept.shared.iter_mut().find(|(shared, _)| shared.has_room() && shared.is_usable(now))
        {
            *used = now;
            return Some(Checkout { connection: Connection::Http2(Arc::clone(shared)), reused: true });
        }
        // Whoever takes it drives it from now on; nobody else is woken for it.
        let mut nobody = Context::from_waker(Waker::noop());
        while !fresh && let Some((mut own, since)) = kept.idle.pop_back() {
            self.metrics.upstream().idle().dec();
            if own.stays(&mut nobody, now, since + self.idle_timeout) {
                return Some(Checkout { connection: Connection::Http1(own), reused: true });
            }
        }
        None
    }

    async fn open(self: &Arc<Self>) -> Result<Checkout<C, B>, ConnectError> {
        let started = Instant::now();
        let connected = self.connector.connect().await;
        let (stream, protocol) = connected.inspect_err(|error| count_failure(&self.metrics, error))?;
        let life = ConnectionMetrics::begin(Arc::clone(&self.metrics), started.elapsed());
        let jitter = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        let ends = Instant::now() + self.age.mul_f64(jitter);
        let pool = Arc::downgrade(self);
        self.kept().http2 = protocol == Protocol::Http2;
        let connection = match protocol {
            Protocol::Http1 => {
                let line = Http1Connection::new(stream, self.write_timeout);
                Connection::Http1(Box::new(Exclusive::new(line, ends, life, pool)))
            }
            Protocol::Http2 => {
                let begun =
                    http2::Connection::begin(stream, self.write_timeout, life).await.map_err(ConnectError::Http);
                let connection = begun.inspect_err(|error| count_failure(&self.metrics, error))?;
                let shared = Arc::new(Shared::new(connection, ends, pool));
                self.keep(|kept, now| {
                    kept.shared.retain(|(before, _)| before.stays(now, now + self.idle_timeout));
                    kept.shared.push((Arc::clone(&shared), now));
                });
                Connection::Http2(shared)
            }
        };
        Ok(Checkout { connection, reused: false })
    }

    /// Has `place` put something among what is kept, and somebody look after it.
    fn keep(self: &Arc<Self>, place: impl FnOnce(&mut Idle<C, B>, Instant)) {
        let mut kept = self.kept();
        place(&mut kept, Instant::now());
        if !mem::replace(&mut kept.looked_after, true) {
            #[expect(
                clippy::disallowed_methods,
                reason = "a task of the worker's runtime; it ends when the pool is empty or dropped"
            )]
            tokio::spawn(look_after(Arc::downgrade(self)));
        }
    }

    /// Drops what is too old or has ended, and says when to look again, unless `cx` is woken before. `None` when nothing is kept.
    fn sweep(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let now = Instant::now();
        let kept = &mut *self.kept();
        let before = kept.idle.len();
        kept.idle.retain_mut(|(own, since)| own.stays(cx, now, *since + self.idle_timeout));
        self.metrics.upstream().idle().sub((before - kept.idle.len()) as i64);
        kept.shared.retain_mut(|(shared, used)| {
            if shared.users() > 0 {
                // Its time without use has not begun; to look at it again at the end of a time that is over would be to go on looking.
                *used = now;
            }
            shared.stays(now, *used + self.idle_timeout)
        });
        let next = kept.idle.iter().map(|(_, since)| *since).chain(kept.shared.iter().map(|(_, used)| *used)).min();
        kept.looked_after = next.is_some();
        kept.waker = next.map(|_| cx.waker().clone());
        next.map(|since| since + self.idle_timeout)
    }
}

/// Drops connections that grow too old or end, until none is kept.
async fn look_after<C, B>(pool: Weak<Pool<C, B>>)
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until(Instant::now()));
    poll_fn(|cx| {
        // Each time that it is woken: for the time, or by a connection.
        while let Some(next) = pool.upgrade().and_then(|pool| pool.sweep(cx)) {
            timer.as_mut().reset(next);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    })
    .await;
}
