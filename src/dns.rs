//! Looks up the addresses of the upstream and the egress proxy, for the data path and for token requests.
//!
//! The system resolver does the work, so `/etc/hosts`, `/etc/resolv.conf`, search domains and `nsswitch.conf` apply as for every other
//! program. Two things are added here: a lost datagram costs one second and not the five after which glibc retransmits, and the last known
//! addresses of a name are used while its name server fails (RFC 8767). Both are safe because TLS verifies the server.
//!
//! Deliberately absent: caching addresses while lookups succeed, and an own DNS client
//! ([ADR 0004](../docs/adr/0004-names-by-the-system-with-retries.md)).

mod single_flight;
mod system;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tracing::warn;

use self::single_flight::SingleFlight;
pub use self::system::SystemLookup;
use crate::telemetry::LogLimiter;

/// How long to wait for a result before a further attempt starts in parallel: many times what a reachable name server takes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a lookup may take before the last known addresses are used: long enough for the second attempt to get a result, and short enough
/// to leave time to connect.
const LAST_GOOD_AFTER: Duration = Duration::from_millis(1500);

/// How long the last known addresses may be used after the last successful lookup. If longer, they may have been reassigned; if shorter,
/// restarting a cluster's name servers causes an outage.
const LAST_GOOD_FOR: Duration = Duration::from_secs(600);

/// The addresses of a name. Never empty.
pub type Addresses = Arc<[IpAddr]>;

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name server reported that the name does not exist, or has no address.
    #[error("NXDOMAIN: the name does not exist, or has no address")]
    NoName,
    /// The name server reported a failure, or is unreachable.
    #[error("SERVFAIL: the name server failed, or cannot be reached")]
    ServerFailure,
    /// There was no response.
    #[error("timeout: the name server does not respond")]
    TimedOut,
    /// The system resolver failed before it sent a query; the number is its error (`EAI_…`).
    #[error("the system resolver failed with error {0}")]
    System(i32),
}

/// Does a single lookup.
pub trait Lookup: Clone + Send + Sync + 'static {
    /// Looks up `name`. Holds `permit` until the lookup has ended, which may be after the future was dropped.
    fn lookup(
        &self,
        name: &str,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'static;
}

/// A resolver. Clones share the known addresses and the lookups in flight.
#[derive(Clone, Debug)]
pub struct Resolver<L = SystemLookup> {
    single_flight: SingleFlight<L>,
    last_good: Arc<LastGood>,
}

impl Resolver {
    /// A resolver that uses the system resolver.
    pub fn new() -> Self {
        Self::with_lookup(SystemLookup)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Lookup> Resolver<L> {
    /// A resolver that uses `lookup`.
    pub(crate) fn with_lookup(lookup: L) -> Self {
        Self { single_flight: SingleFlight::new(lookup), last_good: Arc::default() }
    }

    /// A resolver for another runtime. It shares the known addresses, but not the lookups in flight, because their timers belong to a
    /// runtime.
    pub fn for_runtime(&self) -> Self {
        Self { single_flight: self.single_flight.separate(), last_good: Arc::clone(&self.last_good) }
    }

    /// Returns the addresses of `host`, a name or an IP address, within `limit`.
    ///
    /// # Errors
    ///
    /// If the name has no address, or the lookup fails and no addresses are known from the last ten minutes.
    pub async fn lookup(&self, host: &str, limit: Duration) -> Result<Addresses, ResolveError> {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok([address].into());
        }
        let last_good = self.last_good.of(host);
        let wait = if last_good.is_some() { LAST_GOOD_AFTER.min(limit * 3 / 4) } else { limit };
        let lookup = self.single_flight.lookup(host, RETRY_AFTER.min(limit / 2));
        let result = timeout(wait, lookup).await.unwrap_or(Err(ResolveError::TimedOut));
        match (result, last_good) {
            (Ok(addresses), _) => {
                self.last_good.set(host, &addresses);
                Ok(addresses)
            }
            // NXDOMAIN is definite.
            (Err(error @ ResolveError::NoName), _) | (Err(error), None) => Err(error),
            (Err(error), Some((addresses, age))) => {
                if let Some(times) = self.last_good.limiter.count() {
                    let age_s = age.as_secs();
                    warn!(%error, age_s, times, "DNS lookup failed; using the last known addresses");
                }
                Ok(addresses)
            }
        }
    }
}

/// The last known addresses of each name. The number of names is limited by the configuration.
#[derive(Debug, Default)]
struct LastGood {
    entries: Mutex<Vec<(String, Addresses, Instant)>>,
    limiter: LogLimiter,
}

impl LastGood {
    /// The addresses of `name` and their age, if they may still be used.
    fn of(&self, name: &str) -> Option<(Addresses, Duration)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, addresses, since) = entries.iter().find(|(known, ..)| known == name)?;
        let age = since.elapsed();
        (age < LAST_GOOD_FOR).then(|| (Arc::clone(addresses), age))
    }

    fn set(&self, name: &str, addresses: &Addresses) {
        let entry = (name.to_owned(), Arc::clone(addresses), Instant::now());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.iter_mut().find(|(known, ..)| known == name) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
