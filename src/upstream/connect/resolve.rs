//! Coalesces concurrent lookups of a name into one.
//!
//! The system's resolver takes a thread for each lookup, and a thread takes memory. When a crowd of requests comes at once, each
//! opens a connection, but one lookup serves them all. Lookups older than [`JOIN_WINDOW`] are no longer joined: the resolver may
//! have recovered since, and a new lookup would succeed.
//!
//! Deliberately absent: caching results. A request that comes after a result starts a new lookup.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
    vec,
};

use futures_util::{FutureExt as _, future::Shared};
use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::Instant;
use tower::Service;

use super::Resolve;

/// How long others join a lookup in flight. A healthy resolver answers in a fraction of it; and so many threads
/// a second are the most that a dead one costs.
const JOIN_WINDOW: Duration = Duration::from_secs(1);

type LookupResult = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// A resolver that joins concurrent lookups of the same name.
#[derive(Clone)]
pub(super) struct SingleFlight<R> {
    resolver: R,
    in_flight: Arc<Mutex<Option<Lookup>>>,
}

struct Lookup {
    name: Name,
    started: Instant,
    result: Shared<Pin<Box<dyn Future<Output = LookupResult> + Send>>>,
}

impl Lookup {
    fn can_join(&self, name: &Name) -> bool {
        self.name == *name && self.started.elapsed() < JOIN_WINDOW && self.result.peek().is_none()
    }
}

impl<R> SingleFlight<R> {
    /// Joins lookups of `resolver`.
    pub(super) fn new(resolver: R) -> Self {
        Self { resolver, in_flight: Arc::default() }
    }
}

impl<R: Resolve> Service<Name> for SingleFlight<R> {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match in_flight.as_ref().filter(|lookup| lookup.can_join(&name)) {
            Some(lookup) => lookup.result.clone(),
            None => {
                let lookup = self.resolver.call(name.clone());
                let result =
                    lookup.map(|addresses| addresses.map(Iterator::collect).map_err(Arc::new)).boxed().shared();
                *in_flight = Some(Lookup { name, started: Instant::now(), result: result.clone() });
                result
            }
        };
        let to_owned_result = |result: LookupResult| match result {
            Ok(addresses) => Ok(Vec::from(&*addresses).into_iter()),
            Err(error) => Err(io::Error::new(error.kind(), error)),
        };
        result.map(to_owned_result).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::{sync::broadcast, task::JoinSet, time::advance};
    use tower::{ServiceExt as _, service_fn, util::BoxCloneSyncService};

    use super::*;

    type BoxedResolver = BoxCloneSyncService<Name, vec::IntoIter<SocketAddr>, io::Error>;

    /// A resolver whose lookups end when a reply is sent, the number of lookups, and the sender of replies.
    fn resolver() -> (SingleFlight<BoxedResolver>, Arc<AtomicUsize>, broadcast::Sender<bool>) {
        let (lookups, (reply, _)) = (Arc::new(AtomicUsize::new(0)), broadcast::channel(1));
        let (counter, replies) = (Arc::clone(&lookups), reply.clone());
        let resolver = service_fn(move |_: Name| {
            counter.fetch_add(1, Relaxed);
            let mut replies = replies.subscribe();
            async move {
                let succeeds = replies.recv().await.unwrap_or(false);
                let address = SocketAddr::from(([192, 0, 2, 1], 0));
                if succeeds { Ok(vec![address].into_iter()) } else { Err(io::Error::other("no such name")) }
            }
        });
        (SingleFlight::new(BoxCloneSyncService::new(resolver)), lookups, reply)
    }

    async fn spawn_lookups(
        single_flight: &SingleFlight<BoxedResolver>,
        times: usize,
    ) -> JoinSet<io::Result<Vec<SocketAddr>>> {
        let mut tasks = JoinSet::new();
        for _ in 0..times {
            let lookup = single_flight.clone().oneshot("name.test".parse().unwrap());
            tasks.spawn(async move { lookup.await.map(Iterator::collect) });
            tokio::task::yield_now().await;
        }
        tasks
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_lookups_are_joined() {
        let (single_flight, lookups, reply) = resolver();
        let tasks = spawn_lookups(&single_flight, 100).await;
        assert_eq!(lookups.load(Relaxed), 1);
        reply.send(true).unwrap();
        for addresses in tasks.join_all().await {
            assert_eq!(addresses.unwrap(), [SocketAddr::from(([192, 0, 2, 1], 0))]);
        }
        let later = spawn_lookups(&single_flight, 1).await;
        assert_eq!(lookups.load(Relaxed), 2, "an answer is not kept");
        reply.send(false).unwrap();
        assert_eq!(later.join_all().await[0].as_ref().unwrap_err().to_string(), "no such name");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_lookup_is_joined_only_within_the_join_window() {
        let (single_flight, lookups, reply) = resolver();
        let first = spawn_lookups(&single_flight, 2).await;
        advance(JOIN_WINDOW).await;
        let second = spawn_lookups(&single_flight, 2).await;
        assert_eq!(lookups.load(Relaxed), 2);
        reply.send(true).unwrap();
        assert!(first.join_all().await.iter().chain(&second.join_all().await).all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn a_joined_lookup_survives_cancellation_of_the_first() {
        let (single_flight, lookups, reply) = resolver();
        let mut first = spawn_lookups(&single_flight, 1).await;
        let second = spawn_lookups(&single_flight, 1).await;
        first.shutdown().await;
        reply.send(true).unwrap();
        assert!(second.join_all().await[0].is_ok());
        assert_eq!(lookups.load(Relaxed), 1);
    }
}
