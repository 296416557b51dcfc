//! The validity of a token, and when to renew it.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum time between two renewals, so that the interval does not approach zero towards the end of a lease.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The lease of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// After two thirds of the lease, which leaves time for retries.
    pub(super) renew_at: Instant,
    expires_at: Instant,
    /// Whether the server can renew it.
    pub(super) renewable: bool,
}

impl Lease {
    /// A lease of `lease_s` seconds, requested at `sent`. `None` for 0 seconds, which means that the token does not expire.
    pub(super) fn new(sent: Instant, lease_s: u64, renewable: bool) -> Option<Self> {
        let length = Duration::from_secs(lease_s);
        let expires_at = sent.checked_add(length).filter(|_| lease_s > 0)?;
        Some(Self { renew_at: sent + (length * 2 / 3).max(MIN_RENEWAL_INTERVAL), expires_at, renewable })
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.renew_at
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= self.expires_at
    }

    /// When to retry after a renewal failed at `now`: after a third of the remaining time. `None` if none remains.
    pub(super) fn retry_at(&self, now: Instant) -> Option<Instant> {
        let left = self.expires_at.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some(now + (left / 3).max(MIN_RENEWAL_INTERVAL))
    }

    /// Whether a renewal at `now` for `lease_s` seconds extends it. Near a token's maximum lifetime, the server grants only the remaining
    /// time, and renewing that repeatedly is useless.
    pub(super) fn is_extended_by(&self, now: Instant, lease_s: u64) -> bool {
        // An end that overflows `Instant` is an extension too.
        let end = now.checked_add(Duration::from_secs(lease_s));
        end.is_none_or(|end| end > self.expires_at + MIN_RENEWAL_INTERVAL) || lease_s == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_after_two_thirds_of_it() {
        let start = Instant::now();
        let lease = Lease::new(start, 3600, true).unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!lease.is_due(at(2399)) && lease.is_due(at(2400)));
        assert!(!lease.is_expired(at(3599)) && lease.is_expired(at(3600)));
        assert_eq!(lease.retry_at(at(2400)), Some(at(2800)));
        assert_eq!(lease.retry_at(at(3599)), Some(at(3600)));
        assert_eq!(lease.retry_at(at(3600)), None);
        // The server may grant the full lease, a part of it, or only the remaining time.
        for (lease_s, is_extended) in [(3600, true), (1300, true), (1201, false), (1200, false), (0, true)] {
            assert_eq!(lease.is_extended_by(at(2400), lease_s), is_extended, "{lease_s}");
        }
        assert!(Lease::new(start, 0, true).is_none() && Lease::new(start, u64::MAX, true).is_none());
        assert_eq!(Lease::new(start, 1, true).unwrap().renew_at, at(1));
    }
}
