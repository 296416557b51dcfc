//! The commands that other tasks send to the refresher. The refresher alone decides, and replies when it has.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::credentials::{Credentials, lockout::Decision};

/// How many commands may wait. The most there can be is one for each request whose token was refused; further ones fail.
const QUEUE_CAPACITY: usize = 1024;

/// A command.
#[derive(Debug)]
pub enum Command {
    /// The upstream refused the token of this version: is there a newer one, or can there be?
    ReplaceRefused(u64, oneshot::Sender<()>),
    /// Drop the token and fetch a new one.
    Invalidate(oneshot::Sender<()>),
    /// Drop the token, and fetch none until this is lifted.
    Quarantine(oneshot::Sender<()>),
    /// End a quarantine.
    Lift(oneshot::Sender<()>),
    /// Allow rejected credentials one more try; the flag overrides a spent budget.
    ResetLatch(bool, oneshot::Sender<Result<Decision, ResetError>>),
    /// Use these credentials, once they have obtained a token.
    Rotate(Box<Credentials>),
    /// The first credentials could not be read, for this reason; the next attempt follows after this time.
    FirstLoadFailed(String, Duration),
}

/// Why nothing was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetError {
    /// No credentials have been read yet, so it is not known which rejections concern them.
    NoCredentials,
    /// The refresher has ended.
    Ended,
}

/// Sends commands to the refresher. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenControl(mpsc::Sender<Command>);

/// The sending and the receiving end of the command queue.
pub fn command_channel() -> (TokenControl, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
    (TokenControl(sender), receiver)
}

impl TokenControl {
    /// Reports that the upstream refused the token of `version`. Returns whether a newer one is there now.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the command back.
    pub async fn replace_refused(&self, version: u64) -> bool {
        let (reply, response) = oneshot::channel();
        self.0.try_send(Command::ReplaceRefused(version, reply)).is_ok() && response.await.is_ok()
    }

    /// Reports the same without waiting for the outcome.
    pub fn report_refused(&self, version: u64) {
        // When the queue is full, others have reported it.
        let _ = self.0.try_send(Command::ReplaceRefused(version, oneshot::channel().0));
    }

    /// Drops the token and has a new one fetched. Returns whether the refresher has handled the command.
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

    /// Allows rejected credentials one more try. Returns the decision of the lock-out guard after that.
    ///
    /// # Errors
    ///
    /// When nothing was reset.
    pub async fn reset_latch(&self, override_budget: bool) -> Result<Decision, ResetError> {
        self.request(|reply| Command::ResetLatch(override_budget, reply)).await.unwrap_or(Err(ResetError::Ended))
    }

    /// Hands over new credentials.
    pub async fn rotate(&self, credentials: Credentials) {
        // The refresher ends only with the process.
        let _ = self.0.send(Command::Rotate(Box::new(credentials))).await;
    }

    /// Reports that the first credentials could not be read. `reason` is one sentence for operators and callers, without secrets; the
    /// next attempt follows after `retry_in`.
    pub async fn report_failed_first_load(&self, reason: String, retry_in: Duration) {
        let _ = self.0.send(Command::FirstLoadFailed(reason, retry_in)).await;
    }

    async fn request<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, response) = oneshot::channel();
        self.0.send(command(reply)).await.ok()?;
        response.await.ok()
    }
}
