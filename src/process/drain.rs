//! The stage of the drain, in an atomic that each request reads.
//!
//! Tasks that the drain must wake use a `CancellationToken`.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

/// Requests are served, and connections are kept alive.
const SERVING: u8 = 0;
/// Requests are served, and connections are closed afterwards.
const DRAINING: u8 = 1;
/// The drain timeout has expired.
const EXPIRED: u8 = 2;

/// The stage of the drain, which only advances, and a count of aborted requests. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<DrainState>);

#[derive(Debug, Default)]
struct DrainState {
    stage: AtomicU8,
    aborted: AtomicUsize,
}

impl Drain {
    /// Begins the drain: each response is now the last one on its connection.
    pub fn begin(&self) {
        self.0.stage.fetch_max(DRAINING, Ordering::Relaxed);
    }

    /// Marks the drain timeout as expired: requests without a response now get a 503.
    pub fn expire(&self) {
        self.0.stage.fetch_max(EXPIRED, Ordering::Relaxed);
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) > SERVING
    }

    /// Whether the drain timeout has expired.
    pub fn is_expired(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == EXPIRED
    }

    /// Counts an aborted request.
    pub fn count_aborted(&self) {
        self.0.aborted.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of aborted requests.
    pub fn aborted(&self) -> usize {
        self.0.aborted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_only_advances() {
        let (drain, stages) = (Drain::default(), |drain: &Drain| (drain.has_begun(), drain.is_expired()));
        assert_eq!(stages(&drain), (false, false));
        drain.begin();
        assert_eq!(stages(&drain), (true, false));
        drain.clone().expire();
        drain.begin();
        assert_eq!(stages(&drain), (true, true));
    }
}
