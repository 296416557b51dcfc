//! The signals that the process heeds: two that end it, one that has it read its credentials and its authorities again.
//!
//! A signal is caught from the first call for it on, and never ends the process by itself after that.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// `SIGHUP`s, caught from now on.
///
/// # Errors
///
/// When the handler cannot be installed.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// `SIGTERM` and `SIGINT`, caught from the moment this is made.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts catching both signals.
    ///
    /// # Errors
    ///
    /// When a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal, and says which it was.
    ///
    /// # Cancel safety
    ///
    /// A signal that arrived before the call is returned by it.
    pub async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
