//! The access token: how it is fetched, how long it may be used, and how requests read it.
//!
//! One [`Refresher`] task is the only writer. Requests hold a [`TokenReader`] and read one `ArcSwap` load; while a usable
//! token exists they never wait for a refresh. The decisions (when to refresh, what a token response means) are pure
//! functions in [`schedule`] and [`classify`]; the refresher is the loop that calls them.
//!
//! Requests never fetch a token themselves. A token request can lock the vendor account, so only the refresher makes it.

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

/// The heartbeat age above which the refresher is considered hung. An idle refresher beats every `MAX_SLEEP`, and one with a
/// request in flight every `HEARTBEAT_INTERVAL`; the rest allows for locks and slow writes in the state directory.
pub const HEARTBEAT_LIMIT: Duration =
    clock::MAX_SLEEP.saturating_add(refresher::HEARTBEAT_INTERVAL).saturating_add(STATE_DIRECTORY_STALL);

/// Maximum time that the refresher may block on the disk and on the locks of the state directory (up to a second each).
const STATE_DIRECTORY_STALL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
