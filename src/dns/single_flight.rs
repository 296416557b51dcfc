//! Joins concurrent lookups of a name, with further attempts while there is no result.
//!
//! The system resolver takes a thread for each lookup, and a thread takes memory. In a burst of requests, each opens a connection, but one
//! lookup serves them all. An attempt cannot be cancelled, so the number of attempts is limited.
//!
//! Deliberately absent: caching. A request after the result starts a new lookup.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{Shared, WeakShared},
    stream::FuturesUnordered,
};
use tokio::{
    select,
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::{Addresses, Lookup, ResolveError};

/// The maximum number of attempts in flight on a runtime: with glibc's timeout of 5 s and its 2 tries, about one attempt per second.
const MAX_ATTEMPTS: usize = 10;

type LookupResult = Result<Addresses, ResolveError>;
type BoxedLookup = Pin<Box<dyn Future<Output = LookupResult> + Send>>;

/// Joins concurrent lookups of a name.
#[derive(Clone, Debug)]
pub(super) struct SingleFlight<L> {
    lookup: L,
    in_flight: Arc<Mutex<Option<InFlight>>>,
    /// Limits attempts.
    permits: Arc<Semaphore>,
}

/// The lookup that was started last. It ends when its last waiter is dropped.
#[derive(Debug)]
struct InFlight {
    name: String,
    result: WeakShared<BoxedLookup>,
}

impl<L: Lookup> SingleFlight<L> {
    /// Joins lookups that use `lookup`.
    pub(super) fn new(lookup: L) -> Self {
        Self { lookup, in_flight: Arc::default(), permits: Arc::new(Semaphore::new(MAX_ATTEMPTS)) }
    }

    /// The same, without the lookups in flight.
    pub(super) fn separate(&self) -> Self {
        Self::new(self.lookup.clone())
    }

    /// Joins the lookup of `name` in flight, or starts a new one. A new attempt starts every `retry_after`.
    pub(super) fn lookup(&self, name: &str, retry_after: Duration) -> Shared<BoxedLookup> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let joined = in_flight.as_ref().filter(|in_flight| in_flight.name == name);
        if let Some(result) =
            joined.and_then(|in_flight| in_flight.result.upgrade()).filter(|result| result.peek().is_none())
        {
            return result;
        }
        let (lookup, permits, owned) = (self.lookup.clone(), Arc::clone(&self.permits), name.to_owned());
        let result = attempts(lookup, owned, permits, retry_after).boxed().shared();
        *in_flight = result.downgrade().map(|result| InFlight { name: name.to_owned(), result });
        result
    }
}

/// Starts a lookup of `name` every `retry_after` until one succeeds, or fails while no other is in flight. NXDOMAIN is a result too.
async fn attempts<L: Lookup>(lookup: L, name: String, permits: Arc<Semaphore>, retry_after: Duration) -> LookupResult {
    let mut in_flight = FuturesUnordered::new();
    let mut next_attempt = Instant::now();
    loop {
        select! {
            biased;
            Some(result) = in_flight.next() => match result {
                Ok(addresses) if Vec::is_empty(&addresses) => return Err(ResolveError::NoName),
                Ok(addresses) => return Ok(addresses.into()),
                Err(error) if error == ResolveError::NoName || in_flight.is_empty() => return Err(error),
                Err(_) => {}
            },
            () = sleep_until(next_attempt) => {
                next_attempt += retry_after;
                // Without a free permit, the earlier attempts continue.
                if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                    in_flight.push(lookup.lookup(&name, permit));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::{
        sync::{OwnedSemaphorePermit, mpsc},
        time::timeout,
    };

    use super::*;

    /// A lookup that continues when its future is dropped, as that of the system does, until its permit is dropped.
    #[derive(Clone)]
    struct Unstoppable(mpsc::UnboundedSender<OwnedSemaphorePermit>);

    impl Lookup for Unstoppable {
        fn lookup(
            &self,
            _: &str,
            permit: OwnedSemaphorePermit,
        ) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'static {
            self.0.send(permit).unwrap();
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_cannot_be_cancelled_are_limited() {
        const SECOND: Duration = Duration::from_secs(1);
        let (sender, mut begun) = mpsc::unbounded_channel();
        let single_flight = SingleFlight::new(Unstoppable(sender));
        for _ in 0..10 {
            timeout(3 * SECOND - SECOND / 2, single_flight.lookup("name.test", SECOND)).await.unwrap_err();
        }
        assert_eq!(begun.len(), MAX_ATTEMPTS);
        // One attempt ends, so another may start.
        drop(begun.recv().await);
        timeout(3 * SECOND, single_flight.lookup("name.test", SECOND)).await.unwrap_err();
        assert_eq!(begun.len(), MAX_ATTEMPTS);
    }
}
