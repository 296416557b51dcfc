//! The state of the sandbox.

use std::time::Duration;

use super::{auth::Accounts, recorder::Recorder, store::CustomerStore};

/// The state that all handlers share.
#[derive(Debug)]
pub(super) struct SandboxState {
    pub(super) accounts: Accounts,
    pub(super) recorder: Recorder,
    pub(super) customers: CustomerStore,
}

impl SandboxState {
    pub(super) fn new(token_lifetime: Duration) -> Self {
        Self { accounts: Accounts::new(token_lifetime), recorder: Recorder::default(), customers: CustomerStore::new() }
    }
}
