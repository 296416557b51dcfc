//! The commands that other tasks send to the refresher. Only the refresher decides; it replies once it has handled the command.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::credentials::{Credentials, lockout::Decision};

/// Queue capacity. At most one command per request whose token was refused is pending; when the queue is full, `replace_refused`
/// fails and every other command waits.
const QUEUE_CAPACITY: usize = 1024;

/// A command for the refresher.
#[derive(Debug)]
pub enum Command {
    /// The upstream refused the token of this version. Replies once there is a newer one; drops the sender when there will be none.
    ReplaceRefused(u64, oneshot::Sender<()>),
    /// Drop the token and fetch a new one.
    Invalidate(oneshot::Sender<()>),
    /// Drop the token, and fetch none until [`Lift`](Self::Lift).
    Quarantine(oneshot::Sender<()>),
    /// End a quarantine.
    Lift(oneshot::Sender<()>),
    /// Allow rejected credentials one more attempt. The flag overrides a spent budget.
    ResetLatch(bool, oneshot::Sender<Result<Decision, ResetError>>),
    /// Switch to these credentials once they have obtained a token.
    Rotate(Box<Credentials>),
    /// Reading the first credentials failed, for this reason; it is retried after this time.
    FirstLoadFailed(String, Duration),
}

/// Why nothing was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetError {
    /// No credentials have been read yet, so there is no fingerprint to look up rejections by.
    NoCredentials,
    /// The refresher has stopped.
    Ended,
}

/// Sends commands to the refresher. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenControl(mpsc::Sender<Command>);

/// Creates the command queue.
pub fn command_channel() -> (TokenControl, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
    (TokenControl(sender), receiver)
}

impl TokenControl {
    /// Reports that the upstream refused the token of `version`. Returns whether a newer token is available.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not withdraw the command.
    pub async fn replace_refused(&self, version: u64) -> bool {
        let (reply, response) = oneshot::channel();
        self.0.try_send(Command::ReplaceRefused(version, reply)).is_ok() && response.await.is_ok()
    }

    /// Like [`replace_refused`](Self::replace_refused), without waiting for the outcome.
    pub fn report_refused(&self, version: u64) {
        // When the queue is full, other requests have reported it already.
        let _ = self.0.try_send(Command::ReplaceRefused(version, oneshot::channel().0));
    }

    /// Drops the token and fetches a new one. Returns whether the refresher has handled the command.
    pub async fn invalidate(&self) -> bool {
        self.request(Command::Invalidate).await.is_some()
    }

    /// Drops the token and fetches none until [`lift`](Self::lift). Returns whether the refresher has handled the command.
    pub async fn quarantine(&self) -> bool {
        self.request(Command::Quarantine).await.is_some()
    }

    /// Ends a quarantine. Returns whether the refresher has handled the command.
    pub async fn lift(&self) -> bool {
        self.request(Command::Lift).await.is_some()
    }

    /// Allows rejected credentials one more attempt. Returns the decision of the lock-out guard after the reset.
    ///
    /// # Errors
    ///
    /// Fails when there are no credentials yet, or the refresher has stopped.
    pub async fn reset_latch(&self, override_budget: bool) -> Result<Decision, ResetError> {
        self.request(|reply| Command::ResetLatch(override_budget, reply)).await.unwrap_or(Err(ResetError::Ended))
    }

    /// Sends new credentials.
    pub async fn rotate(&self, credentials: Credentials) {
        // Sending fails only during shutdown: the refresher runs as long as the process.
        let _ = self.0.send(Command::Rotate(Box::new(credentials))).await;
    }

    /// Reports that reading the first credentials failed. `reason` is one sentence for operators and clients, without secrets;
    /// reading is retried after `retry_in`.
    pub async fn report_failed_first_load(&self, reason: String, retry_in: Duration) {
        let _ = self.0.send(Command::FirstLoadFailed(reason, retry_in)).await;
    }

    async fn request<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, response) = oneshot::channel();
        self.0.send(command(reply)).await.ok()?;
        response.await.ok()
    }
}
