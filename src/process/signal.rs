//! Signals: SIGTERM and SIGINT stop the process; SIGHUP reloads credentials and CAs.
//!
//! A signal is caught from the first call for it on; its default action, which ends the process, no longer applies.

use std::{io, time::Duration};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use tracing::info;

/// Stop signals within this time after another one are repetitions. GNU `timeout` signals its child and then the process group, and a
/// supervisor and a terminal may each send one: all within milliseconds, and none of them requests a forced shutdown.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);

/// Starts catching `SIGHUP`.
///
/// # Errors
///
/// If the handler cannot be installed.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// `SIGTERM` and `SIGINT`, caught from the creation of this value.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    repeats: RepeatFilter,
}

impl StopSignals {
    /// Starts catching both signals.
    ///
    /// # Errors
    ///
    /// If a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, repeats: RepeatFilter::default() })
    }

    /// Waits for the next signal and returns its name. Signals of either kind within a second of the one last returned are logged and
    /// ignored.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a signal that arrived before the call is returned by it.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let signal = select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
            };
            if !self.repeats.is_repeat(Instant::now()) {
                return signal;
            }
            info!(signal, "signal ignored: received within a second of the previous one");
        }
    }
}

/// Decides which signals repeat the previous one.
#[derive(Debug, Default)]
struct RepeatFilter {
    /// The time of the last signal that was not a repetition.
    last: Option<Instant>,
}

impl RepeatFilter {
    /// Whether a signal at `now` is a repetition. A repetition does not extend the window.
    fn is_repeat(&mut self, now: Instant) -> bool {
        let is_repeat = self.last.is_some_and(|last| now.saturating_duration_since(last) <= REPEAT_WINDOW);
        if !is_repeat {
            self.last = Some(now);
        }
        is_repeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_of_the_first_repeat_it() {
        let (mut filter, start) = (RepeatFilter::default(), Instant::now());
        let is_repeat =
            [0, 0, 1, 999, 1000, 1001, 1002, 2001, 2002].map(|ms| filter.is_repeat(start + Duration::from_millis(ms)));
        assert_eq!(is_repeat, [false, true, true, true, true, false, true, true, false]);
    }
}
