//! One look-up of a name for all who want it at the same time, with further attempts while there is no result.
//!
//! The system's resolver takes a thread for each look-up, and a thread takes memory. When a crowd of requests comes at once, each
//! opens a connection, but one look-up serves them all. An attempt cannot be ended, so their number is limited.
//!
//! Deliberately absent: keeping results. Whoever comes after a result starts a new look-up.

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

/// The most attempts that are under way on a runtime: with glibc's own timeout of 5 s and its 2 tries, one a second is about that.
const MAX_ATTEMPTS: usize = 10;

type LookupResult = Result<Addresses, ResolveError>;
type BoxedLookup = Pin<Box<dyn Future<Output = LookupResult> + Send>>;

/// Joins concurrent look-ups of a name.
#[derive(Clone, Debug)]
pub(super) struct SingleFlight<L> {
    lookup: L,
    in_flight: Arc<Mutex<Option<InFlight>>>,
    /// The permits of attempts.
    permits: Arc<Semaphore>,
}

/// The look-up that was begun last. It ends when nobody waits for it.
#[derive(Debug)]
struct InFlight {
    name: String,
    result: WeakShared<BoxedLookup>,
}

impl<L: Lookup> SingleFlight<L> {
    /// Joins look-ups by `lookup`.
    pub(super) fn new(lookup: L) -> Self {
        Self { lookup, in_flight: Arc::default(), permits: Arc::new(Semaphore::new(MAX_ATTEMPTS)) }
    }

    /// The same without the look-ups in flight.
    pub(super) fn separate(&self) -> Self {
        Self::new(self.lookup.clone())
    }

    /// The result of the look-up of `name` that is in flight, or of a new one that begins another attempt each `retry_after`.
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

/// Looks `name` up again each `retry_after` until an attempt succeeds, or fails while no other is under way. That there is no such name is
/// a result too.
async fn attempts<L: Lookup>(lookup: L, name: String, permits: Arc<Semaphore>, retry_after: Duration) -> LookupResult {
    let mut under_way = FuturesUnordered::new();
    let mut next_attempt = Instant::now();
    loop {
        select! {
            biased;
            Some(result) = under_way.next() => match result {
                Ok(addresses) if Vec::is_empty(&addresses) => return Err(ResolveError::NoName),
                Ok(addresses) => return Ok(addresses.into()),
                Err(error) if error == ResolveError::NoName || under_way.is_empty() => return Err(error),
                Err(_) => {}
            },
            () = sleep_until(next_attempt) => {
                next_attempt += retry_after;
                // Where all permits are taken, the attempts before this one go on asking.
                if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                    under_way.push(lookup.lookup(&name, permit));
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

    /// A look-up that goes on when its future is dropped, as one by the system does, until its permit is dropped.
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
    async fn attempts_that_cannot_be_ended_are_limited() {
        const SECOND: Duration = Duration::from_secs(1);
        let (sender, mut begun) = mpsc::unbounded_channel();
        let single_flight = SingleFlight::new(Unstoppable(sender));
        for _ in 0..10 {
            timeout(3 * SECOND - SECOND / 2, single_flight.lookup("name.test", SECOND)).await.unwrap_err();
        }
        assert_eq!(begun.len(), MAX_ATTEMPTS);
        // One ends, and another may begin.
        drop(begun.recv().await);
        timeout(3 * SECOND, single_flight.lookup("name.test", SECOND)).await.unwrap_err();
        assert_eq!(begun.len(), MAX_ATTEMPTS);
    }
}
