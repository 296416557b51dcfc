//! What all handlers of the sandbox share.

use std::time::Duration;

use super::{auth::Accounts, recorder::Log, store::Store};

/// What all handlers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) accounts: Accounts,
    pub(super) seen: Log,
    pub(super) data: Store,
}

impl Shared {
    pub(super) fn new(token_lifetime: Duration) -> Self {
        Self { accounts: Accounts::new(token_lifetime), seen: Log::default(), data: Store::new() }
    }
}
