//! The token: how it is minted, how long it may be used, and how it reaches the requests.
//!
//! One [`Refresher`] task is the only writer. Requests hold a [`TokenReader`] and read one `ArcSwap` load; while a usable
//! token is there they never wait for a refresh. The decisions (when to refresh, what an answer means) are pure
//! functions in [`schedule`] and [`classify`]; the refresher is the loop that calls them.
//!
//! Deliberately absent: any request that mints a token by itself. A token call can lock the vendor account, so there is
//! one place that makes it.

pub mod classify;
pub mod clock;
mod commands;
mod config;
mod endpoint;
mod refresher;
mod refusal;
pub mod schedule;
pub mod scheme;
mod status;
mod store;

use std::time::Duration;

pub use clock::{BootInstant, Clock};
pub use commands::{Command, ResetError, TokenControl, command_channel};
pub use config::Config;
pub(crate) use endpoint::Route;
pub use endpoint::{EndpointError, TokenEndpoint, TokenSource, UNPROVEN_TIMEOUT};
pub use refresher::{FINAL_CALL_GRACE, PendingRefresher, Refresher};
pub use refusal::Refusal;
pub use status::{CandidateState, LastError, LockoutStatus, Phase, State, Status, Unavailable};
pub use store::{Token, TokenReader, TokenWriter, channel};

/// The age above which the refresher's heartbeat means that it hangs. It beats at least this often while it waits, and during a
/// request; the rest is for the state directory, whose locks are waited for up to a second each, on a slow disk.
pub const HEARTBEAT_LIMIT: Duration =
    clock::MAX_SLEEP.saturating_add(refresher::HEARTBEAT_INTERVAL).saturating_add(STATE_DIRECTORY_STALL);

/// How long the refresher may wait for the disk and for the locks of the state directory.
const STATE_DIRECTORY_STALL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
