//! The system's resolver: `getaddrinfo`.

use std::{net::IpAddr, time::Duration};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Lookup, ResolveError};

/// glibc says of a SERVFAIL and of silence alike that the failure is temporary, but waits at least this long for an answer
/// (`options timeout:1` in resolv.conf).
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks names up with `getaddrinfo`, on a thread of the runtime's.
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
        // It fails when the runtime ends.
        async move { lookup.await.unwrap_or(Err(ResolveError::TimedOut)) }
    }
}

fn addresses(name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    // One of each address, and not one for each type of socket.
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let started = Instant::now();
    match getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => Ok(found.filter_map(|found| Some(found.ok()?.sockaddr.ip())).collect()),
        Err(error) => Err(classify(&error, started.elapsed())),
    }
}

/// What `error` means, which came after `elapsed`.
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
    async fn the_hosts_file_counts_and_addresses_are_not_repeated() {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let addresses = SystemLookup.lookup("localhost", permit).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        assert!(addresses.len() <= 2 && !addresses.is_empty(), "{addresses:?}");
    }

    #[test]
    fn an_error_says_what_the_name_server_did() {
        // EAI_NONAME, EAI_NODATA, EAI_AGAIN, EAI_FAIL, EAI_MEMORY of Linux.
        let (at_once, late) = (Duration::ZERO, MIN_TIMEOUT);
        for (code, elapsed, expected) in [
            (-2, at_once, ResolveError::NoName),
            (-2, late, ResolveError::NoName),
            (-5, at_once, ResolveError::NoName),
            (-3, at_once, ResolveError::ServerFailure),
            (-3, late, ResolveError::TimedOut),
            (-4, late, ResolveError::ServerFailure),
            (-10, at_once, ResolveError::System(-10)),
        ] {
            assert_eq!(classify(&LookupError::new(code), elapsed), expected, "{code} {elapsed:?}");
        }
    }
}
