//! The store of the current token: one writer, any number of readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue, header};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};

use crate::credentials::Scheme;

use super::{BootInstant, Clock, LastError, LockoutStatus, Phase, State, Status, Unavailable, scheme::AuthHeaders};

/// How many requests may wait for a token simultaneously. Further requests fail immediately instead of queueing until the timeout.
const MAX_WAITERS: usize = 1024;

/// The minimum and maximum of `Retry-After`. A second is the smallest wait that the field can express; it is also the value when the
/// time of the next attempt is unknown.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long and how often a liveness probe polls for the heartbeat that it requested. A live refresher needs only a moment.
const HEARTBEAT_WAIT: Duration = Duration::from_millis(500);
const HEARTBEAT_POLL: Duration = Duration::from_millis(5);

/// A token, with the header fields that requests carry.
#[derive(Debug)]
pub struct Token {
    version: u64,
    headers: [(HeaderName, HeaderValue); 2],
    issued_at: BootInstant,
    usable_until: BootInstant,
}

impl Token {
    /// The number of the token in this process: the first is 1, and later ones are higher.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The header fields that authenticate a request. The values are marked sensitive.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue); 2] {
        &self.headers
    }

    /// Whether requests carry the token as `Authorization: Bearer` (OAuth 2.0), not in the vendor's header.
    pub fn is_bearer(&self) -> bool {
        self.headers.iter().any(|(name, _)| *name == header::AUTHORIZATION)
    }

    /// The time from which the token is no longer sent.
    pub fn usable_until(&self) -> BootInstant {
        self.usable_until
    }
}

/// Creates the writer for the refresher, and the reader for everything else.
///
/// [`TokenReader::wait`] waits at most `token_wait`.
pub fn channel(clock: Clock, token_wait: Duration) -> (TokenWriter, TokenReader) {
    let current = Arc::new(ArcSwapOption::empty());
    let status = Status {
        phase: Phase::Idle,
        scheme: None,
        attempted: false,
        obtained: false,
        next_attempt: None,
        last_error: None,
        lockout: LockoutStatus::default(),
    };
    let heartbeat = Arc::new(AtomicU64::new(clock.now().since_start().as_secs()));
    let (sender, receiver) = watch::channel(status);
    let clock_check = Arc::new(Notify::new());
    let reader = TokenReader {
        current: Arc::clone(&current),
        status: receiver,
        waiters: Arc::new(Semaphore::new(MAX_WAITERS)),
        token_wait,
        clock,
        heartbeat: Arc::clone(&heartbeat),
        clock_check: Arc::clone(&clock_check),
    };
    (TokenWriter { current, status: sender, last_version: 0, clock, heartbeat, clock_check }, reader)
}

/// The only writer; not `Clone`. Dropping it sets the phase to [`Phase::Stopped`], which ends every wait.
#[derive(Debug)]
pub struct TokenWriter {
    current: Arc<ArcSwapOption<Token>>,
    status: watch::Sender<Status>,
    last_version: u64,
    clock: Clock,
    heartbeat: Arc<AtomicU64>,
    /// Notified when a reader finds that a timer of the refresher may be late.
    clock_check: Arc<Notify>,
}

impl TokenWriter {
    /// The clock of all instants in this store.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Records that the refresher is alive.
    pub fn beat(&self) {
        self.heartbeat.store(self.clock.now().since_start().as_secs(), Ordering::Relaxed);
    }

    /// Waits until a reader finds that a deadline has passed on the clock but its timer may be late: timers do not run while the
    /// machine is suspended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn clock_check_requested(&self) {
        self.clock_check.notified().await;
    }

    /// The version of the latest token, withdrawn or not; 0 before the first.
    pub fn version(&self) -> u64 {
        self.last_version
    }

    /// Records that a token request is in flight.
    pub fn set_fetching(&mut self) {
        self.status.send_modify(|status| {
            status.phase = Phase::Fetching;
            status.next_attempt = None;
        });
    }

    /// Makes the token of `auth` the current one until `usable_until`, and returns its version.
    pub fn publish(&mut self, auth: AuthHeaders, usable_until: BootInstant) -> u64 {
        self.last_version += 1;
        let token =
            Token { version: self.last_version, headers: auth.headers, issued_at: self.clock.now(), usable_until };
        // Store the token before notifying waiters: a waiter that wakes up must find it.
        self.current.store(Some(Arc::new(token)));
        self.status.send_modify(|status| {
            (status.attempted, status.obtained) = (true, true);
            if let Some(error) = &mut status.last_error {
                error.resolved = true;
            }
        });
        self.last_version
    }

    /// Removes and returns the current token. Its memory is overwritten once the last request that carries it has ended.
    pub fn withdraw(&mut self) -> Option<Arc<Token>> {
        self.current.swap(None)
    }

    /// Records the scheme of the credentials in use. Readers are notified by the next status update.
    pub fn set_scheme(&mut self, scheme: Scheme) {
        self.status.send_if_modified(|status| {
            status.scheme = Some(scheme);
            false
        });
    }

    /// Records the failure of a token request, or of reading the first credentials. Readers are notified by the next status update.
    pub fn set_last_error(&mut self, message: &str) {
        let (message, unix_time, at) = (message.into(), self.clock.unix_time(), self.clock.now());
        let error = LastError { message, unix_time, at, resolved: false };
        self.status.send_if_modified(|status| {
            status.last_error = Some(error);
            false
        });
    }

    /// Sets the status of the refresher. The current token is not changed.
    pub fn set_status(&mut self, phase: Phase, next_attempt: Option<BootInstant>, lockout: LockoutStatus) {
        self.status.send_modify(|status| {
            status.phase = phase;
            status.attempted |= !matches!(phase, Phase::AwaitingCredentials | Phase::Idle | Phase::Fetching);
            status.next_attempt = next_attempt;
            status.lockout = lockout;
        });
    }

    /// Sets the status before the credentials have been read. Unlike [`set_status`](Self::set_status), it never sets `attempted`.
    pub fn set_status_without_credentials(&mut self, phase: Phase, next_load: Option<BootInstant>) {
        self.status.send_modify(|status| {
            status.phase = phase;
            status.next_attempt = next_load;
        });
    }

    /// How long the current token may still be used; zero when there is none.
    pub fn remaining(&self) -> Duration {
        remaining(&self.current, self.clock)
    }
}

impl Drop for TokenWriter {
    fn drop(&mut self) {
        self.status.send_modify(|status| {
            status.phase = Phase::Stopped;
            status.next_attempt = None;
        });
    }
}

/// A reader of the token and of the refresher's status. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenReader {
    current: Arc<ArcSwapOption<Token>>,
    status: watch::Receiver<Status>,
    waiters: Arc<Semaphore>,
    token_wait: Duration,
    clock: Clock,
    heartbeat: Arc<AtomicU64>,
    /// Notified when a reader finds that a timer of the refresher may be late.
    clock_check: Arc<Notify>,
}

impl TokenReader {
    /// The current token, if it is usable now. Lock-free; never waits.
    pub fn usable(&self) -> Option<arc_swap::Guard<Option<Arc<Token>>>> {
        let token = self.current.load();
        token.as_ref().is_some_and(|token| self.clock.now() < token.usable_until).then_some(token)
    }

    /// Waits for a usable token, at most the `token_wait` of [`channel`]. If the next token request is overdue, or one is in flight,
    /// it also makes the refresher check the clock immediately.
    ///
    /// # Errors
    ///
    /// Fails when no token arrived in time, none can arrive, or too many requests are waiting already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases its permit to wait and loses nothing else.
    pub async fn wait(&self) -> Result<Arc<Token>, Unavailable> {
        let _permit = self.waiters.try_acquire().map_err(|_| Unavailable::TooManyWaiters)?;
        let mut status = self.status.clone();
        self.request_clock_check();
        let arrival = async {
            loop {
                let phase = status.borrow_and_update().phase;
                if let Some(token) = self.usable().and_then(|token| token.clone()) {
                    return Ok(token);
                }
                match phase {
                    Phase::Rejected => return Err(Unavailable::Rejected),
                    Phase::Held => return Err(Unavailable::Held),
                    Phase::Quarantined => return Err(Unavailable::Quarantined),
                    _ => {}
                }
                if phase == Phase::Stopped || status.changed().await.is_err() {
                    return Err(self.no_token());
                }
            }
        };
        timeout(self.token_wait, arrival).await.unwrap_or_else(|_| Err(self.no_token()))
    }

    /// Waits for a change of the status. Returns immediately if it has changed since the last call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            // The refresher has stopped; the status will not change again.
            std::future::pending::<()>().await;
        }
    }

    /// The current status of the refresher.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The last failure, if no token was obtained since then.
    pub fn unresolved_error(&self) -> Option<Arc<str>> {
        let status = self.status.borrow();
        status.last_error.as_ref().filter(|error| !error.resolved).map(|error| Arc::clone(&error.message))
    }

    /// The time since `error`.
    pub fn error_age(&self, error: &LastError) -> Duration {
        self.clock.now().since(error.at)
    }

    /// The current state of the token.
    pub fn state(&self) -> State {
        let status = self.status.borrow();
        match (status.phase, self.usable().is_some()) {
            (Phase::Stopped, _) => State::Stopped,
            (Phase::Quarantined, _) => State::Quarantined,
            (Phase::AwaitingCredentials | Phase::Idle, true) => State::Fresh,
            (Phase::Fetching, true) => State::Refreshing,
            (Phase::Failed(_) | Phase::Rejected | Phase::Held | Phase::Unrecorded, true) => State::Degraded,
            (Phase::Rejected, false) => State::Rejected,
            (Phase::Held, false) => State::Held,
            (_, false) if status.obtained => State::Expired,
            (_, false) => State::Empty,
        }
    }

    /// The version of the current token, usable or not; 0 when there is none.
    pub fn version(&self) -> u64 {
        self.current.load().as_ref().map_or(0, |token| token.version)
    }

    /// How long the current token may still be used; zero when there is none.
    pub fn remaining(&self) -> Duration {
        remaining(&self.current, self.clock)
    }

    /// The time since the current token was published; zero when there is none.
    pub fn age(&self) -> Duration {
        self.current.load().as_ref().map_or(Duration::ZERO, |token| self.clock.now().since(token.issued_at))
    }

    /// The time until the next token request, if one is scheduled.
    pub fn until_next_attempt(&self) -> Option<Duration> {
        self.status.borrow().next_attempt.map(|due| due.since(self.clock.now()))
    }

    /// The age of the refresher's last heartbeat, to the second.
    pub fn heartbeat_age(&self) -> Duration {
        let beat = Duration::from_secs(self.heartbeat.load(Ordering::Relaxed));
        self.clock.now().since_start().saturating_sub(beat)
    }

    /// Whether the refresher's last heartbeat is at most `limit` old. If it is older, the machine may have been suspended, so the
    /// refresher gets a moment to send one.
    pub async fn is_refresher_alive(&self, limit: Duration) -> bool {
        if self.heartbeat_age() <= limit {
            return true;
        }
        self.clock_check.notify_one();
        let beaten = async {
            while self.heartbeat_age() > limit {
                sleep(HEARTBEAT_POLL).await;
            }
        };
        timeout(HEARTBEAT_WAIT, beaten).await.is_ok()
    }

    /// Makes the refresher check the clock if a timer may be late: the one for the next token request, or for the time limit of the
    /// request in flight.
    fn request_clock_check(&self) {
        let (phase, next_attempt) = {
            let status = self.status.borrow();
            (status.phase, status.next_attempt)
        };
        if phase == Phase::Fetching || next_attempt.is_some_and(|due| due <= self.clock.now()) {
            self.clock_check.notify_one();
        }
    }

    fn no_token(&self) -> Unavailable {
        let retry_after = self.until_next_attempt().unwrap_or(RETRY_AFTER).clamp(RETRY_AFTER, MAX_RETRY_AFTER);
        Unavailable::NoToken { retry_after }
    }
}

/// How long the current token may still be used.
fn remaining(current: &ArcSwapOption<Token>, clock: Clock) -> Duration {
    current.load().as_ref().map_or(Duration::ZERO, |token| token.usable_until.since(clock.now()))
}

#[cfg(test)]
mod tests;
