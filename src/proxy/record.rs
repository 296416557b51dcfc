//! What is known about one request: written on its way, read when it ends.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::{
    body_limits::error::BodyLimitError,
    error::{Error, Executed},
    request_id,
};
use crate::{policy::Denial, vendor::catalogue::Operation};

/// Facts about a request, for the access log and the metrics. The layer that learns a value writes it.
#[derive(Debug)]
pub struct Record {
    id: HeaderValue,
    method: Method,
    started: Instant,
    operation: OnceLock<Operation>,
    token_version: AtomicU64,
    error: OnceLock<(&'static str, Option<String>)>,
    upstream_first_byte: OnceLock<Duration>,
    request_bytes: AtomicU64,
    /// When the request body last made progress, as microseconds since the start.
    request_progress: AtomicU64,
    request_complete: AtomicBool,
    waiting_for_caller: AtomicBool,
    replayed: AtomicBool,
    request_body_error: OnceLock<BodyLimitError>,
    finished: AtomicBool,
    retried: AtomicBool,
    /// How many attempts the upstream may have executed. Only the request's own future writes it, so load and store need not be one operation.
    attempts_in_doubt: AtomicU8,
    sent_credentials: AtomicBool,
    known_prefix: OnceLock<&'static str>,
    queue_wait: OnceLock<Duration>,
    token_wait: OnceLock<Duration>,
    /// 0 before there is a response.
    upstream_status: AtomicU16,
    vendor_code: OnceLock<String>,
    policy_denial: OnceLock<Denial>,
    /// 0 before there is a connection, 1 for a new one, 2 for a reused one.
    connection_reused: AtomicU8,
    /// 0 before there is a connection.
    connection: AtomicU64,
}

impl Record {
    /// The record of a request that has just arrived. `proposed_id` is the caller's `X-Request-Id`.
    pub fn new(method: Method, proposed_id: Option<&HeaderValue>) -> Self {
        Self {
            id: request_id::choose(proposed_id),
            method,
            started: Instant::now(),
            operation: OnceLock::new(),
            token_version: AtomicU64::new(0),
            error: OnceLock::new(),
            upstream_first_byte: OnceLock::new(),
            request_bytes: AtomicU64::new(0),
            request_progress: AtomicU64::new(0),
            request_complete: AtomicBool::new(false),
            waiting_for_caller: AtomicBool::new(false),
            replayed: AtomicBool::new(false),
            request_body_error: OnceLock::new(),
            finished: AtomicBool::new(false),
            retried: AtomicBool::new(false),
            attempts_in_doubt: AtomicU8::new(0),
            sent_credentials: AtomicBool::new(false),
            known_prefix: OnceLock::new(),
            queue_wait: OnceLock::new(),
            token_wait: OnceLock::new(),
            upstream_status: AtomicU16::new(0),
            vendor_code: OnceLock::new(),
            policy_denial: OnceLock::new(),
            connection_reused: AtomicU8::new(0),
            connection: AtomicU64::new(0),
        }
    }

    /// The request id: the caller's if it is valid, or else a generated one.
    pub fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// The method as the caller sent it.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// When the request head had arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The operation in the catalogue; [`Operation::OTHER`] before it is set.
    pub fn operation(&self) -> Operation {
        self.operation.get().copied().unwrap_or(Operation::OTHER)
    }

    /// Sets the operation.
    pub fn set_operation(&self, operation: Operation) {
        let _ = self.operation.set(operation);
    }

    /// The known prefix of a path that is not in the catalogue; see [`Catalogue::known_prefix`](crate::vendor::catalogue::Catalogue::known_prefix).
    pub fn known_prefix(&self) -> Option<&'static str> {
        self.known_prefix.get().copied()
    }

    /// Sets the known prefix.
    pub fn set_known_prefix(&self, prefix: Option<&'static str>) {
        if let Some(prefix) = prefix {
            let _ = self.known_prefix.set(prefix);
        }
    }

    /// Why the operator's policy denies the request, whether that is enforced or only reported.
    pub fn policy_denial(&self) -> Option<Denial> {
        self.policy_denial.get().copied()
    }

    /// Sets the reason of the denial.
    pub fn set_policy_denial(&self, denial: Denial) {
        let _ = self.policy_denial.set(denial);
    }

    /// How long the request waited in the queue for a permit; `None` if it did not wait.
    pub fn queue_wait(&self) -> Option<Duration> {
        self.queue_wait.get().copied()
    }

    /// Sets the time in the queue.
    pub fn set_queue_wait(&self, time: Duration) {
        let _ = self.queue_wait.set(time);
    }

    /// How long the request waited for a token; `None` if it did not wait.
    pub fn token_wait(&self) -> Option<Duration> {
        self.token_wait.get().copied()
    }

    /// Sets the time waited for a token.
    pub fn set_token_wait(&self, time: Duration) {
        let _ = self.token_wait.set(time);
    }

    /// The status of the upstream's first response. The client gets another status if the request was resent after it, or if the proxy
    /// responded with an error of its own.
    pub fn upstream_status(&self) -> Option<u16> {
        Some(self.upstream_status.load(Relaxed)).filter(|status| *status > 0)
    }

    /// Sets the status of an upstream response; only the first call has an effect.
    pub fn set_upstream_status(&self, status: StatusCode) {
        let _ = self.upstream_status.compare_exchange(0, status.as_u16(), Relaxed, Relaxed);
    }

    /// The vendor's error code, if its response was an error with one: a number, or a word of a known list.
    pub fn vendor_code(&self) -> Option<&str> {
        self.vendor_code.get().map(String::as_str)
    }

    /// Sets the vendor's error code; only the first call has an effect.
    pub fn set_vendor_code(&self, code: String) {
        let _ = self.vendor_code.set(code);
    }

    /// Whether the last connection that the request was sent on was reused; `None` before it was sent.
    pub fn connection_reused(&self) -> Option<bool> {
        Some(self.connection_reused.load(Relaxed)).filter(|reused| *reused > 0).map(|reused| reused == 2)
    }

    /// The number, in its worker's pool, of the last connection that the request was sent on; `None` before it was sent.
    pub(super) fn connection(&self) -> Option<u64> {
        Some(self.connection.load(Relaxed)).filter(|number| *number > 0)
    }

    /// Records that the request is sent on connection `number`, and whether that connection is reused.
    pub fn set_connection(&self, number: u64, reused: bool) {
        self.connection.store(number, Relaxed);
        self.connection_reused.store(1 + u8::from(reused), Relaxed);
    }

    /// The version of the token that was last sent with the request, if any.
    pub fn token_version(&self) -> Option<u64> {
        Some(self.token_version.load(Relaxed)).filter(|version| *version > 0)
    }

    /// Sets the version of the token.
    pub fn set_token_version(&self, version: u64) {
        self.token_version.store(version, Relaxed);
    }

    /// Whether the request was resent because its token was refused.
    pub fn is_replayed(&self) -> bool {
        self.replayed.load(Relaxed)
    }

    /// Sets [`is_replayed`](Self::is_replayed).
    pub fn set_replayed(&self) {
        self.replayed.store(true, Relaxed);
    }

    /// Whether the request was resent because its connection failed.
    pub fn is_retried(&self) -> bool {
        self.retried.load(Relaxed)
    }

    /// Sets [`is_retried`](Self::is_retried).
    pub fn set_retried(&self) {
        self.retried.store(true, Relaxed);
    }

    /// Whether the upstream may have received the request, and so executed and billed it.
    pub fn has_reached_upstream(&self) -> bool {
        self.attempts_in_doubt.load(Relaxed) > 0
    }

    /// The same as [`has_reached_upstream`](Self::has_reached_upstream), as an error response reports it.
    pub fn executed(&self) -> Executed {
        if self.has_reached_upstream() { Executed::Unknown } else { Executed::No }
    }

    /// Records the start of an attempt to send the request: from now on the upstream may execute it.
    pub fn begin_attempt(&self) {
        self.attempts_in_doubt.store(self.attempts_in_doubt.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Records that the upstream did not execute the last attempt. Earlier attempts stay in doubt.
    pub fn withdraw_attempt(&self) {
        self.attempts_in_doubt.store(self.attempts_in_doubt.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Whether the caller sent credentials of its own, which were removed.
    pub fn has_sent_credentials(&self) -> bool {
        self.sent_credentials.load(Relaxed)
    }

    /// Records that the caller sent credentials of its own.
    pub fn set_sent_credentials(&self) {
        self.sent_credentials.store(true, Relaxed);
    }

    /// The code and cause of the proxy-generated error, if there is one.
    pub fn error(&self) -> Option<(&'static str, Option<&str>)> {
        self.error.get().map(|(code, cause)| (*code, cause.as_deref()))
    }

    /// Records a proxy-generated error.
    pub fn set_error(&self, error: &Error) {
        let _ = self.error.set((error.code().as_str(), error.cause()));
    }

    /// How long the first attempt that got a response took to the head of that response.
    pub fn upstream_first_byte(&self) -> Option<Duration> {
        self.upstream_first_byte.get().copied()
    }

    /// Sets the time to the response head; only the first call has an effect.
    pub fn set_upstream_first_byte(&self, took: Duration) {
        let _ = self.upstream_first_byte.set(took);
    }

    /// The bytes of the request body that were forwarded so far, resent bytes included.
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes.load(Relaxed)
    }

    /// Adds `bytes` forwarded bytes of the request body, which is progress.
    pub fn add_request_bytes(&self, bytes: u64) {
        self.request_bytes.fetch_add(bytes, Relaxed);
        self.set_request_progress();
    }

    /// Records progress of the request body, which postpones the deadlines of the request.
    pub fn set_request_progress(&self) {
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.request_progress.store(now, Relaxed);
    }

    /// When the request body last made progress; the start of the request if it never did.
    pub fn last_request_progress(&self) -> Instant {
        self.started + Duration::from_micros(self.request_progress.load(Relaxed))
    }

    /// Whether the proxy is waiting for the caller to send more of the request body.
    pub fn is_waiting_for_caller(&self) -> bool {
        self.waiting_for_caller.load(Relaxed)
    }

    /// Sets [`is_waiting_for_caller`](Self::is_waiting_for_caller).
    pub fn set_waiting_for_caller(&self, waiting: bool) {
        self.waiting_for_caller.store(waiting, Relaxed);
    }

    /// Why the request body failed, if it failed.
    pub(super) fn request_body_error(&self) -> Option<BodyLimitError> {
        self.request_body_error.get().copied()
    }

    /// Sets why the request body failed; only the first call has an effect.
    pub(super) fn set_request_body_error(&self, error: BodyLimitError) {
        let _ = self.request_body_error.set(error);
    }

    /// Whether the request has ended, so no part of its body is needed any more.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Relaxed)
    }

    /// Records that the request has ended.
    pub(super) fn set_finished(&self) {
        self.finished.store(true, Relaxed);
    }

    /// Whether the whole request body has been forwarded.
    pub fn is_request_complete(&self) -> bool {
        self.request_complete.load(Relaxed)
    }

    /// Records that the whole request body has been forwarded.
    pub fn set_request_complete(&self) {
        self.request_complete.store(true, Relaxed);
    }
}
