//! The system resolver: `getaddrinfo`.

use std::{net::IpAddr, time::Duration};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Lookup, ResolveError};

/// glibc reports SERVFAIL and a timeout as the same temporary failure, but waits at least this long for a response (`options timeout:1` in
/// resolv.conf).
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks names up with `getaddrinfo`, on a blocking thread of the runtime.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    #[expect(clippy::disallowed_methods, reason = "getaddrinfo blocks; SingleFlight limits how many there are")]
    fn lookup(
        &self,
        name: &str,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'static {
        let name = name.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            addresses(&name)
        });
        // It fails when the runtime shuts down.
        async move { lookup.await.unwrap_or(Err(ResolveError::TimedOut)) }
    }
}

fn addresses(name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    // Each address once, and not once for each socket type.
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let started = Instant::now();
    match getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => Ok(found.filter_map(|found| Some(found.ok()?.sockaddr.ip())).collect()),
        Err(error) => Err(classify(&error, started.elapsed())),
    }
}

/// Classifies `error`, returned after `elapsed`.
fn classify(error: &LookupError, elapsed: Duration) -> ResolveError {
    match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => ResolveError::NoName,
        LookupErrorKind::Again if elapsed >= MIN_TIMEOUT => ResolveError::TimedOut,
        LookupErrorKind::Again | LookupErrorKind::Fail => ResolveError::ServerFailure,
        _ => ResolveError::System(error.error_num()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn the_hosts_file_applies_and_addresses_are_unique() {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let addresses = SystemLookup.lookup("localhost", permit).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert!(addresses.len() <= 2 && !addresses.is_empty(), "{addresses:?}");
    }

    #[test]
    fn resolver_errors_are_classified() {
        // EAI_NONAME, EAI_NODATA, EAI_AGAIN, EAI_FAIL, EAI_MEMORY of Linux.
        let (early, late) = (Duration::ZERO, MIN_TIMEOUT);
        for (code, elapsed, expected) in [
            (-2, early, ResolveError::NoName),
            (-2, late, ResolveError::NoName),
            (-5, early, ResolveError::NoName),
            (-3, early, ResolveError::ServerFailure),
            (-3, late, ResolveError::TimedOut),
            (-4, late, ResolveError::ServerFailure),
            (-10, early, ResolveError::System(-10)),
        ] {
            assert_eq!(classify(&LookupError::new(code), elapsed), expected, "{code} {elapsed:?}");
        }
    }
}
