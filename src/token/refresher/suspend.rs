//! A suspend of the machine: the clock advances, but timers do not.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderValue, header};
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};

use super::*;
use crate::{
    credentials::Scheme,
    token::{
        Clock, HEARTBEAT_LIMIT, TokenReader, channel,
        classify::TokenFailure,
        command_channel,
        scheme::{AuthHeaders, FINICITY_APP_KEY},
        tests::credentials,
    },
};

/// A mock endpoint that issues tokens with a lifetime of an hour, and hangs on the requests numbered in `hangs_on`.
#[derive(Clone, Debug, Default)]
struct Endpoint {
    calls: Arc<Mutex<Vec<Instant>>>,
    hangs_on: Vec<usize>,
}

impl Endpoint {
    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

impl TokenSource for Endpoint {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, _: &Credentials, limit: Duration) -> Result<AuthHeaders, TokenFailure> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Instant::now());
            calls.len()
        };
        if self.hangs_on.contains(&number) {
            sleep(limit).await;
            return Err(self.timed_out(limit));
        }
        let value = HeaderValue::from_static("Bearer t");
        let headers = [(FINICITY_APP_KEY, value.clone()), (header::AUTHORIZATION, value)];
        Ok(AuthHeaders { headers, expires_in: Some(Duration::from_secs(3600)), untyped: false })
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        Ok(())
    }
}

/// Starts a refresher and waits for its first token. The returned function adds suspended seconds to its clock.
async fn start(endpoint: &Endpoint) -> (TokenReader, impl Fn(u64) + use<>) {
    let suspended: &'static AtomicU64 = Box::leak(Box::default());
    let (writer, reader) = channel(Clock::Suspending(Instant::now(), suspended), Duration::from_secs(2));
    let (control, commands) = command_channel();
    let (lockout, metrics) = (Lockout::open(None).unwrap(), Arc::new(Metrics::new()));
    let credentials = credentials(Scheme::OAuth2, "id", "secret");
    let refresher =
        Refresher::new(writer, endpoint.clone(), credentials, lockout, commands, Duration::from_secs(7200), metrics);
    tokio::spawn(async move {
        let _control = control;
        refresher.run(CancellationToken::new()).await;
    });
    reader.wait().await.unwrap();
    settle().await;
    (reader, |seconds| {
        suspended.fetch_add(seconds, Ordering::Relaxed);
    })
}

/// Runs all tasks until only timers can make progress.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_the_first_request_gets_a_new_token() {
    let endpoint = Endpoint::default();
    let (reader, suspend) = start(&endpoint).await;
    suspend(8 * 3600);
    let resumed = Instant::now();
    assert!(reader.usable().is_none());
    assert_eq!(reader.wait().await.unwrap().version(), 2);
    assert_eq!((resumed.elapsed(), endpoint.calls()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_request_in_flight_is_abandoned_after_a_suspend() {
    let endpoint = Endpoint { hangs_on: vec![2], ..Endpoint::default() };
    let (reader, suspend) = start(&endpoint).await;
    // The first request after the expiry triggers a token request, during which the machine is suspended again.
    suspend(8 * 3600);
    let waiting = {
        let reader = reader.clone();
        tokio::spawn(async move { reader.wait().await.map(drop) })
    };
    settle().await;
    assert_eq!(endpoint.calls(), 2);
    suspend(8 * 3600);
    let resumed = Instant::now();
    // The first wait finds the token request in flight; the second finds the next one, due a moment later.
    let version = match reader.wait().await {
        Ok(token) => token.version(),
        Err(_) => reader.wait().await.unwrap().version(),
    };
    assert_eq!((version, endpoint.calls()), (2, 3));
    assert!(resumed.elapsed() < Duration::from_secs(4), "{:?}", resumed.elapsed());
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_do_not_advance_the_next_token_request() {
    // After a failure, waiting requests must not make the next token request due earlier.
    let endpoint = Endpoint { hangs_on: vec![2, 3, 4, 5], ..Endpoint::default() };
    let (reader, suspend) = start(&endpoint).await;
    suspend(8 * 3600);
    let _ = reader.wait().await;
    for _ in 0..200 {
        advance(Duration::from_millis(100)).await;
        settle().await;
        if endpoint.calls() == 3 {
            break;
        }
    }
    let calls = endpoint.calls.lock().unwrap().clone();
    assert!(calls[2] - calls[1] >= Duration::from_secs(10), "{calls:?}");
    for _ in 0..100 {
        let reader = reader.clone();
        tokio::spawn(async move { reader.wait().await.map(drop) });
        settle().await;
    }
    assert_eq!(endpoint.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_the_refresher_is_alive() {
    let (reader, suspend) = start(&Endpoint::default()).await;
    suspend(8 * 3600);
    let resumed = Instant::now();
    assert!(reader.heartbeat_age() > HEARTBEAT_LIMIT);
    assert!(reader.is_refresher_alive(HEARTBEAT_LIMIT).await);
    assert!(resumed.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_hung_refresher_is_not_alive() {
    let suspended: &'static AtomicU64 = Box::leak(Box::default());
    let (_writer, reader) = channel(Clock::Suspending(Instant::now(), suspended), Duration::from_secs(2));
    assert!(reader.is_refresher_alive(HEARTBEAT_LIMIT).await);
    suspended.store(8 * 3600, Ordering::Relaxed);
    assert!(!reader.is_refresher_alive(HEARTBEAT_LIMIT).await);
}
