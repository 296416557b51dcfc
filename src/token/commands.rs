//! How everyone else asks the refresher for something. It alone decides, and answers when it has.

use tokio::sync::{mpsc, oneshot};

use crate::credentials::{Credentials, lockout::Decision};

/// How many wishes may wait. A crowd of requests with refused tokens is the most there can be; those beyond are told no.
const MAX_WAITING: usize = 1024;

/// A wish.
#[derive(Debug)]
pub enum Command {
    /// The upstream refused the token of this version: is there a newer one, or can there be?
    Heal(u64, oneshot::Sender<()>),
    /// Drop the token and mint a new one.
    Invalidate(oneshot::Sender<()>),
    /// Drop the token, and mint none until this is lifted.
    Quarantine(oneshot::Sender<()>),
    /// End a quarantine.
    Lift(oneshot::Sender<()>),
    /// Allow rejected credentials one more try; the flag overrides a spent budget.
    ResetLatch(bool, oneshot::Sender<Decision>),
    /// These credentials shall take over, once they have minted a token.
    Rotate(Box<Credentials>),
}

/// The asking end, cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenControl(mpsc::Sender<Command>);

/// Makes the two ends.
pub fn control() -> (TokenControl, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (TokenControl(sender), receiver)
}

impl TokenControl {
    /// Tells that the upstream refused the token of `version`. Returns whether a newer one is there now.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the wish back.
    pub async fn heal(&self, version: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Command::Heal(version, reply)).is_ok() && answer.await.is_ok()
    }

    /// Tells the same without waiting for what comes of it.
    pub fn report_refused(&self, version: u64) {
        // When the queue is full, others have reported it.
        let _ = self.0.try_send(Command::Heal(version, oneshot::channel().0));
    }

    /// Drops the token and has a new one minted. Returns whether the refresher has heard.
    pub async fn invalidate(&self) -> bool {
        self.ask(Command::Invalidate).await.is_some()
    }

    /// Drops the token and mints none until [`lift`](Self::lift). Returns whether the refresher has heard.
    pub async fn quarantine(&self) -> bool {
        self.ask(Command::Quarantine).await.is_some()
    }

    /// Ends a quarantine. Returns whether the refresher has heard.
    pub async fn lift(&self) -> bool {
        self.ask(Command::Lift).await.is_some()
    }

    /// Allows rejected credentials one more try. Returns what the lock-out guard says after that.
    pub async fn reset_latch(&self, override_budget: bool) -> Option<Decision> {
        self.ask(|reply| Command::ResetLatch(override_budget, reply)).await
    }

    /// Hands over new credentials.
    pub async fn rotate(&self, credentials: Credentials) {
        // The refresher ends only with the process.
        let _ = self.0.send(Command::Rotate(Box::new(credentials))).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
