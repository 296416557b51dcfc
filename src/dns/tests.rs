//! Scripted lookups under paused time.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{task::JoinSet, time::sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

type LookupResult = Result<Vec<IpAddr>, ResolveError>;

/// Returns the results in order, each after its delay, and repeats the last one. Hangs if there is none.
#[derive(Clone)]
pub(crate) struct ScriptedLookup {
    results: Arc<Mutex<VecDeque<(Duration, LookupResult)>>>,
    count: Arc<AtomicUsize>,
}

impl ScriptedLookup {
    pub(crate) fn new(results: impl IntoIterator<Item = LookupResult>) -> Self {
        Self::timed(results.into_iter().map(|result| (Duration::ZERO, result)))
    }

    fn timed(results: impl IntoIterator<Item = (Duration, LookupResult)>) -> Self {
        Self { results: Arc::new(Mutex::new(results.into_iter().collect())), count: Arc::default() }
    }
}

impl Lookup for ScriptedLookup {
    fn lookup(&self, _: &str, permit: OwnedSemaphorePermit) -> impl Future<Output = LookupResult> + Send + 'static {
        self.count.fetch_add(1, SeqCst);
        let mut results = self.results.lock().unwrap();
        let next = if results.len() > 1 { results.pop_front() } else { results.front().cloned() };
        async move {
            let _permit = permit;
            let Some((after, result)) = next else { return std::future::pending().await };
            sleep(after).await;
            result
        }
    }
}

const HANGS: Duration = Duration::from_secs(3600);

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

/// An immediate result.
fn found(last: u8) -> (Duration, LookupResult) {
    (Duration::ZERO, Ok(vec![address(last)]))
}

/// A lost datagram: no result within any timeout.
fn lost() -> (Duration, LookupResult) {
    (HANGS, Err(ResolveError::TimedOut))
}

fn failed(error: ResolveError) -> (Duration, LookupResult) {
    (Duration::ZERO, Err(error))
}

fn resolver<const N: usize>(results: [(Duration, LookupResult); N]) -> (Resolver<ScriptedLookup>, Arc<AtomicUsize>) {
    let lookup = ScriptedLookup::timed(results);
    let count = Arc::clone(&lookup.count);
    (Resolver::with_lookup(lookup), count)
}

/// The result of a lookup, and how long it took.
async fn lookup(resolver: &Resolver<ScriptedLookup>) -> (Result<Addresses, ResolveError>, Duration) {
    let started = Instant::now();
    let result = resolver.lookup("name.test", 3 * SECOND).await;
    (result, started.elapsed())
}

async fn lookup_ok(resolver: &Resolver<ScriptedLookup>) -> (IpAddr, Duration) {
    let (result, took) = lookup(resolver).await;
    (result.unwrap()[0], took)
}

#[tokio::test(start_paused = true)]
async fn a_lost_datagram_costs_a_second() {
    let (resolver, count) = resolver([lost(), found(1)]);
    assert_eq!(lookup_ok(&resolver).await, (address(1), SECOND));
    assert_eq!(count.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_lost_datagram_costs_another_second() {
    let (resolver, count) = resolver([lost(), lost(), found(1)]);
    assert_eq!(lookup_ok(&resolver).await, (address(1), 2 * SECOND));
    assert_eq!(count.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_may_still_succeed() {
    let (slow, _) = resolver([(SECOND + SECOND / 2, Ok(vec![address(1)])), lost()]);
    assert_eq!(lookup_ok(&slow).await, (address(1), SECOND + SECOND / 2));
    let (late, _) = resolver([(2 * SECOND, Ok(vec![address(1)])), failed(ResolveError::ServerFailure), lost()]);
    assert_eq!(lookup_ok(&late).await, (address(1), 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_failure_is_returned() {
    for error in [ResolveError::NoName, ResolveError::ServerFailure, ResolveError::System(-11)] {
        let (resolver, count) = resolver([failed(error)]);
        assert_eq!(lookup(&resolver).await, (Err(error), Duration::ZERO));
        assert_eq!(count.load(SeqCst), 1, "a failed lookup is not retried here");
    }
    let (silent, _) = resolver([lost()]);
    assert_eq!(lookup(&silent).await, (Err(ResolveError::TimedOut), 3 * SECOND));
    let (empty, _) = resolver([(Duration::ZERO, Ok(Vec::new()))]);
    assert_eq!(lookup(&empty).await.0, Err(ResolveError::NoName));
    for (error, word) in [
        (ResolveError::NoName, "NXDOMAIN"),
        (ResolveError::ServerFailure, "SERVFAIL"),
        (ResolveError::TimedOut, "timeout"),
    ] {
        assert!(error.to_string().starts_with(word), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn last_known_addresses_are_used_for_ten_minutes() {
    for (failure, took) in [
        (failed(ResolveError::ServerFailure), Duration::ZERO),
        (failed(ResolveError::System(-11)), Duration::ZERO),
        (lost(), LAST_GOOD_AFTER),
    ] {
        let (resolver, _) = resolver([found(1), found(2), failure]);
        lookup_ok(&resolver).await;
        assert_eq!(lookup_ok(&resolver).await, (address(2), Duration::ZERO));
        for _ in 0..9 {
            assert_eq!(lookup_ok(&resolver).await, (address(2), took));
            sleep(60 * SECOND).await;
        }
        // Clones and other runtimes share the addresses; their age counts from the last success.
        assert_eq!(lookup_ok(&resolver.for_runtime()).await, (address(2), took));
        sleep(60 * SECOND).await;
        lookup(&resolver).await.0.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn nxdomain_overrides_the_last_known_addresses() {
    let (resolver, _) = resolver([found(1), failed(ResolveError::NoName), found(2)]);
    lookup_ok(&resolver).await;
    assert_eq!(lookup(&resolver).await.0, Err(ResolveError::NoName));
    assert_eq!(lookup_ok(&resolver).await.0, address(2));
}

#[tokio::test(start_paused = true)]
async fn last_known_addresses_are_kept_per_name() {
    let (resolver, _) = resolver([found(1), failed(ResolveError::ServerFailure)]);
    lookup_ok(&resolver).await;
    assert_eq!(resolver.lookup("other.test", SECOND).await, Err(ResolveError::ServerFailure));
    assert_eq!(lookup_ok(&resolver).await.0, address(1));
}

#[tokio::test(start_paused = true)]
async fn an_address_is_not_looked_up() {
    let (resolver, count) = resolver([lost()]);
    for (host, expected) in [("192.0.2.7", "192.0.2.7"), ("[::1]", "::1"), ("::1", "::1")] {
        assert_eq!(*resolver.lookup(host, SECOND).await.unwrap(), [expected.parse::<IpAddr>().unwrap()]);
    }
    assert_eq!(count.load(SeqCst), 0);
}

async fn spawn_lookups(resolver: &Resolver<ScriptedLookup>, times: usize) -> JoinSet<Result<Addresses, ResolveError>> {
    let mut tasks = JoinSet::new();
    for _ in 0..times {
        let resolver = resolver.clone();
        tasks.spawn(async move { lookup(&resolver).await.0 });
        tokio::task::yield_now().await;
    }
    tasks
}

#[tokio::test(start_paused = true)]
async fn concurrent_lookups_are_joined_and_results_are_not_kept() {
    let (resolver, count) = resolver([(SECOND / 2, Ok(vec![address(1)])), found(2)]);
    for addresses in spawn_lookups(&resolver, 100).await.join_all().await {
        assert_eq!(*addresses.unwrap(), [address(1)]);
    }
    assert_eq!(count.load(SeqCst), 1);
    assert_eq!(lookup_ok(&resolver).await.0, address(2));
    assert_eq!(count.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_joined_lookup_survives_cancellation_of_the_first() {
    let (resolver, count) = resolver([(SECOND / 2, Ok(vec![address(1)])), lost()]);
    let mut first = spawn_lookups(&resolver, 1).await;
    let second = spawn_lookups(&resolver, 1).await;
    first.shutdown().await;
    assert!(second.join_all().await[0].is_ok());
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_lookup_is_not_joined() {
    // One attempt per second, the last one at the deadline.
    let (resolver, count) = resolver([lost(), lost(), lost(), lost(), found(1)]);
    assert_eq!(lookup(&resolver).await.0, Err(ResolveError::TimedOut));
    assert_eq!(lookup_ok(&resolver).await, (address(1), Duration::ZERO));
    assert_eq!(count.load(SeqCst), 5);
}
