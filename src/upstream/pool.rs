//! The pool of upstream connections: which connection a request gets, and when a connection is no longer reused.
//!
//! An HTTP/1.1 connection is reused once its response has been read completely. The newest is reused first, so that surplus connections
//! become idle and are closed. Over HTTP/2, requests share the oldest connection that has a free stream. Each connection has a maximum
//! age, after which it takes no more requests; the age varies, so that the connections of many proxies do not expire together. A new
//! connection does a new DNS lookup.
//!
//! Deliberately absent: a connection limit (the request limit bounds connections), and waiting for a connection to become free while a
//! new one is being opened.

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

pub(crate) use self::{exclusive::ExclusiveConnection, multiplexed::MultiplexedConnection};
use super::{
    UpstreamConfig,
    connect::{Connect, ConnectError, Protocol, failure::count_failure},
    http1::Http1Connection,
    http2::Http2Connection,
    lifecycle::ConnectionMetrics,
};
use crate::telemetry::Metrics;

/// How far a connection's maximum age may differ from the configured one, as a fraction. It spreads the reconnects of connections that were
/// opened together, such as those of many proxies after a rollout.
const AGE_JITTER: f64 = 0.1;

/// The connections of one worker.
pub(crate) struct Pool<C: Connect, B> {
    connector: C,
    /// How long an idle connection is kept.
    idle_timeout: Duration,
    /// How long a connection takes new requests.
    max_age: Duration,
    /// How long a write may make no progress.
    write_timeout: Duration,
    state: Mutex<State<C, B>>,
    /// Held while an HTTP/2 connection is being opened, so that requests that arrive in the meantime share it.
    http2_opening: AsyncMutex<()>,
    metrics: Arc<Metrics>,
}

struct State<C: Connect, B> {
    /// The idle HTTP/1.1 connections, newest last, each with its idle deadline.
    idle: VecDeque<(Box<ExclusiveConnection<C, B>>, Instant)>,
    /// The HTTP/2 connections, newest last, each with the time of its last use.
    multiplexed: Vec<(Arc<MultiplexedConnection<C, B>>, Instant)>,
    /// Whether the most recent connection negotiated HTTP/2; before the first one, whether HTTP/2 is enabled.
    expect_http2: bool,
    /// The number of connections opened so far.
    opened: u64,
    /// Whether the reaper task runs.
    reaper_running: bool,
    /// Wakes the reaper.
    reaper_waker: Option<Waker>,
    /// When the reaper runs next unless woken.
    next_reap: Option<Instant>,
}

/// The connection for a request.
pub(crate) struct Checkout<C: Connect, B> {
    pub(crate) connection: PooledConnection<C, B>,
    /// Whether the connection has served a request before.
    pub(crate) reused: bool,
}

pub(crate) enum PooledConnection<C: Connect, B> {
    Http1(Box<ExclusiveConnection<C, B>>),
    Http2(Arc<MultiplexedConnection<C, B>>),
}

impl<C: Connect, B> Pool<C, B> {
    /// An empty pool with the timeouts in `config`.
    pub(crate) fn new(connector: C, config: &UpstreamConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State {
            idle: VecDeque::new(),
            multiplexed: Vec::new(),
            expect_http2: config.http2,
            opened: 0,
            reaper_running: false,
            reaper_waker: None,
            next_reap: None,
        };
        Arc::new(Self {
            connector,
            idle_timeout: config.pool_idle_timeout,
            max_age: config.connection_age,
            write_timeout: config.idle_timeout,
            state: Mutex::new(state),
            http2_opening: AsyncMutex::new(()),
            metrics,
        })
    }

    /// The metrics that count the pool's connections.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn state(&self) -> MutexGuard<'_, State<C, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C, B> Pool<C, B>
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Returns a connection for a request that got none from [`checkout`](Self::checkout): a new one, or an HTTP/2 connection that another
    /// request is opening.
    pub(crate) async fn open_or_join(
        self: &Arc<Self>,
        newer_than: Option<u64>,
    ) -> Result<Checkout<C, B>, ConnectError> {
        if !self.state().expect_http2 {
            return self.open().await;
        }
        let Ok(_opening) = self.http2_opening.try_lock() else {
            // Another request is opening one. If that fails, all waiting requests open their own in parallel, not one after another.
            drop(self.http2_opening.lock().await);
            return match self.checkout(newer_than, Instant::now()) {
                Some(checkout) => Ok(checkout),
                None => self.open().await,
            };
        };
        self.open().await
    }

    /// Returns a reusable connection, if there is one. `newer_than` is the number of the connection of an earlier attempt. What failed that
    /// attempt may also have affected the idle connections, so a second attempt gets none of them, and over HTTP/2 only a connection that
    /// was opened later.
    pub(crate) fn checkout(&self, newer_than: Option<u64>, now: Instant) -> Option<Checkout<C, B>> {
        let state = &mut *self.state();
        if let Some((multiplexed, last_used)) = state.multiplexed.iter_mut().find(|(multiplexed, _)| {
            newer_than.is_none_or(|number| multiplexed.number() > number)
                && multiplexed.has_capacity()
                && multiplexed.is_usable(now)
        }) {
            *last_used = now;
            return Some(Checkout { connection: PooledConnection::Http2(Arc::clone(multiplexed)), reused: true });
        }
        // A no-op waker: from now on the request polls the connection, so events on it need not wake the reaper.
        let mut noop_cx = Context::from_waker(Waker::noop());
        while newer_than.is_none()
            && let Some((mut exclusive, idle_until)) = state.idle.pop_back()
        {
            self.metrics.upstream().idle().dec();
            if exclusive.check_reusable(&mut noop_cx, now, idle_until) {
                return Some(Checkout { connection: PooledConnection::Http1(exclusive), reused: true });
            }
        }
        None
    }

    async fn open(self: &Arc<Self>) -> Result<Checkout<C, B>, ConnectError> {
        let started = Instant::now();
        let connected = self.connector.connect().await;
        let (stream, protocol) = connected.inspect_err(|error| count_failure(&self.metrics, error))?;
        let connection_metrics = ConnectionMetrics::opened(Arc::clone(&self.metrics), started.elapsed());
        let jitter = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        let expires_at = Instant::now() + self.max_age.mul_f64(jitter);
        let pool = Arc::downgrade(self);
        let number = self.next_number(protocol);
        let connection = match protocol {
            Protocol::Http1 => {
                let http1 = Http1Connection::new(stream, self.write_timeout);
                PooledConnection::Http1(Box::new(ExclusiveConnection::new(
                    http1,
                    number,
                    expires_at,
                    connection_metrics,
                    pool,
                )))
            }
            Protocol::Http2 => {
                let http2 = Http2Connection::begin(stream, self.write_timeout, connection_metrics)
                    .await
                    .map_err(ConnectError::Http);
                let http2 = http2.inspect_err(|error| count_failure(&self.metrics, error))?;
                let multiplexed = Arc::new(MultiplexedConnection::new(http2, number, expires_at, pool));
                self.insert(|state, now| {
                    state.multiplexed.retain(|(older, _)| older.check_reusable(now, now + self.idle_timeout));
                    state.multiplexed.push((Arc::clone(&multiplexed), now));
                });
                PooledConnection::Http2(multiplexed)
            }
        };
        Ok(Checkout { connection, reused: false })
    }

    /// Assigns a number to a new connection, and records its protocol.
    fn next_number(&self, protocol: Protocol) -> u64 {
        let mut state = self.state();
        state.expect_http2 = protocol == Protocol::Http2;
        state.opened += 1;
        state.opened
    }

    /// Calls `insert_into` with the state, then starts the reaper unless it runs.
    fn insert(self: &Arc<Self>, insert_into: impl FnOnce(&mut State<C, B>, Instant)) {
        let mut state = self.state();
        insert_into(&mut state, Instant::now());
        if !mem::replace(&mut state.reaper_running, true) {
            #[expect(
                clippy::disallowed_methods,
                reason = "a task of the worker's runtime; it ends when the pool is empty or dropped"
            )]
            tokio::spawn(run_reaper(Arc::downgrade(self)));
        }
    }

    /// Drops connections that are not reusable. Returns when to reap next, unless `cx` is woken earlier; `None` if no connection is left.
    fn reap(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let now = Instant::now();
        let state = &mut *self.state();
        let idle_before = state.idle.len();
        state.idle.retain_mut(|(exclusive, idle_until)| exclusive.check_reusable(cx, now, *idle_until));
        self.metrics.upstream().idle().sub((idle_before - state.idle.len()) as i64);
        state.multiplexed.retain_mut(|(multiplexed, last_used)| {
            if multiplexed.active_requests() > 0 {
                // In use: restart its idle timer. Otherwise the deadline would be in the past, and the reaper would spin.
                *last_used = now;
            }
            multiplexed.check_reusable(now, *last_used + self.idle_timeout)
        });
        let idle_untils = state.idle.iter().map(|(_, idle_until)| *idle_until);
        let last_useds = state.multiplexed.iter().map(|(_, last_used)| *last_used + self.idle_timeout);
        state.next_reap = idle_untils.chain(last_useds).min();
        state.reaper_running = state.next_reap.is_some();
        state.reaper_waker = state.next_reap.map(|_| cx.waker().clone());
        state.next_reap
    }
}

/// Drops connections that are closed, too old or idle for too long. Ends when none is left.
async fn run_reaper<C, B>(pool: Weak<Pool<C, B>>)
where
    C: Connect,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until(Instant::now()));
    poll_fn(|cx| {
        // Runs each time the timer or a connection wakes it.
        while let Some(next_reap) = pool.upgrade().and_then(|pool| pool.reap(cx)) {
            timer.as_mut().reset(next_reap);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    })
    .await;
}
