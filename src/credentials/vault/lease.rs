//! How long a token is valid, and when it is renewed.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two renewals. A lease that ends cannot be renewed ever more often.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The lease of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// After two thirds of it, which leaves time for several polls.
    pub(super) renew_at: Instant,
    expires_at: Instant,
    /// Whether the server renews it at all.
    pub(super) renewable: bool,
}

impl Lease {
    /// One of `lease_s` seconds that was requested at `sent`; `None` for 0 seconds, which stand for a token that does not expire.
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

    /// When to try again after a renewal that failed at `now`: after a third of what is left. `None` when nothing is.
    pub(super) fn retry_at(&self, now: Instant) -> Option<Instant> {
        let left = self.expires_at.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some(now + (left / 3).max(MIN_RENEWAL_INTERVAL))
    }

    /// Whether a renewal at `now` for `lease_s` seconds prolongs it. At the maximum lifetime of a token the server renews it for what is
    /// left of that, which would be renewed over and over.
    pub(super) fn is_extended_by(&self, now: Instant, lease_s: u64) -> bool {
        // One that ends beyond all time is extended, too.
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
        // The server may give all of it again, part of it, or only what was left.
        for (lease_s, is_extended) in [(3600, true), (1300, true), (1201, false), (1200, false), (0, true)] {
            assert_eq!(lease.is_extended_by(at(2400), lease_s), is_extended, "{lease_s}");
        }
        assert!(Lease::new(start, 0, true).is_none() && Lease::new(start, u64::MAX, true).is_none());
        assert_eq!(Lease::new(start, 1, true).unwrap().renew_at, at(1));
    }
}
