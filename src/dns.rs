//! Looks up the addresses of the upstream, or of the egress proxy, for the data path and for token requests.
//!
//! The system's resolver does the work, so that `/etc/hosts`, `/etc/resolv.conf`, search domains and `nsswitch.conf` count as for every other
//! program. What it lacks is added here: a lost datagram costs a second and not the five after which glibc sends it again, and the last
//! addresses of a name are used while its name server fails (RFC 8767). Both are safe, since TLS verifies who is at an address.
//!
//! Deliberately absent: using addresses without a look-up as long as look-ups succeed, and a DNS client of its own
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

/// When a look-up that has no result is begun a second time beside the first: many times what a name server in reach takes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a look-up takes before the last addresses are used instead: after the second attempt has had some time, and so that enough
/// is left to connect to one of them.
const LAST_GOOD_AFTER: Duration = Duration::from_millis(1500);

/// How long the last addresses may be used after the last look-up that succeeded. Longer, and they may have become another's; shorter,
/// and the restart of a cluster's name servers is an outage.
const LAST_GOOD_FOR: Duration = Duration::from_secs(600);

/// The addresses of a name. Never empty.
pub type Addresses = Arc<[IpAddr]>;

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A name server said so.
    #[error("NXDOMAIN: the name does not exist, or has no address")]
    NoName,
    /// There was an answer without addresses, or no name server can be reached.
    #[error("SERVFAIL: the name server failed, or cannot be reached")]
    ServerFailure,
    /// There was no answer.
    #[error("timeout: the name server does not respond")]
    TimedOut,
    /// The system's resolver did not get as far as asking; the number is its error (`EAI_…`).
    #[error("the system's resolver failed with error {0}")]
    System(i32),
}

/// Looks a name up once.
pub trait Lookup: Clone + Send + Sync + 'static {
    /// The addresses of `name`. Holds `permit` until it has ended, which may be after the future was dropped.
    fn lookup(
        &self,
        name: &str,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'static;
}

/// Looks names up. Clones share what they know and the look-ups in flight.
#[derive(Clone, Debug)]
pub struct Resolver<L = SystemLookup> {
    single_flight: SingleFlight<L>,
    last_good: Arc<LastGood>,
}

impl Resolver {
    /// By the system's resolver. Nothing is known yet.
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
    /// By `lookup`.
    pub(crate) fn with_lookup(lookup: L) -> Self {
        Self { single_flight: SingleFlight::new(lookup), last_good: Arc::default() }
    }

    /// The same for another runtime: it shares the addresses that are known, and not the look-ups in flight, whose timers belong to a
    /// runtime.
    pub fn for_runtime(&self) -> Self {
        Self { single_flight: self.single_flight.separate(), last_good: Arc::clone(&self.last_good) }
    }

    /// The addresses of `host`, a name or an address, within `limit`.
    ///
    /// # Errors
    ///
    /// When the name has none, or there is no result and none of the last minutes.
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
            // The name server is sure.
            (Err(error @ ResolveError::NoName), _) | (Err(error), None) => Err(error),
            (Err(error), Some((addresses, age))) => {
                if let Some(times) = self.last_good.limiter.count() {
                    let age_s = age.as_secs();
                    warn!(%error, age_s, times, "the name look-up failed; using the last addresses");
                }
                Ok(addresses)
            }
        }
    }
}

/// The last addresses of each name. There are as many names as are configured.
#[derive(Debug, Default)]
struct LastGood {
    entries: Mutex<Vec<(String, Addresses, Instant)>>,
    limiter: LogLimiter,
}

impl LastGood {
    /// The addresses of `name`, and their age, if they may still be used.
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
