//! How far the end of the process has come, for whoever has to know it at each request: a number that is only ever looked at.
//!
//! What has to be woken for the end has a `CancellationToken` for that.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

/// Requests are answered, and their connections are kept.
const SERVING: u8 = 0;
/// Requests are answered, and their connections are closed after that.
const CLOSING: u8 = 1;
/// The time for requests is over.
const OVERDUE: u8 = 2;

/// The end of the process, which goes forward only. Its clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stage: AtomicU8,
    cut_off: AtomicUsize,
}

impl Drain {
    /// From now on, each answer is the last one of its connection.
    pub fn begin(&self) {
        self.0.stage.fetch_max(CLOSING, Ordering::Relaxed);
    }

    /// From now on, no request is waited for.
    pub fn expire(&self) {
        self.0.stage.fetch_max(OVERDUE, Ordering::Relaxed);
    }

    /// Whether the process drains.
    pub fn has_begun(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) > SERVING
    }

    /// Whether the time for that is over.
    pub fn is_overdue(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == OVERDUE
    }

    /// Counts a request that was not served to its end.
    pub fn note_cut_off(&self) {
        self.0.cut_off.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn cut_off(&self) -> usize {
        self.0.cut_off.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_goes_forward_only() {
        let (drain, stages) = (Drain::default(), |drain: &Drain| (drain.has_begun(), drain.is_overdue()));
        assert_eq!(stages(&drain), (false, false));
        drain.begin();
        assert_eq!(stages(&drain), (true, false));
        drain.clone().expire();
        drain.begin();
        assert_eq!(stages(&drain), (true, true));
    }
}
