//! Receives the vendor's webhooks, verifies them, and forwards them to the service.
//!
//! The listener is a separate server on the control plane: events are small and rare, and their cost is bounded by a rate, by the bytes held
//! in memory, and by timeouts. A genuine event is forwarded byte for byte. The vendor gets 2xx only after the service responded with 2xx, and
//! resends the event otherwise, for three days. So an event is delivered at least once; it is forwarded twice only if the process ends
//! between the two responses, or if the service responded too late.
//!
//! Deliberately absent: a queue. The vendor resends what was not delivered.

mod rate_limit;
mod replay_window;
mod service;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use replay_window::ReplayWindow;
pub use service::{ForwardTo, ForwardToError};

use self::{
    rate_limit::RateLimit,
    replay_window::Admitted,
    service::{ServiceError, send},
};
use crate::{
    error_chain,
    message::transport::Peer,
    telemetry::{AUDIT, LogLimiter, Metrics, WebhookOutcome},
    vendor::webhook::{Signature, SigningKeys},
};

/// The time for the body of an event to arrive. The vendor sends it together with the head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum of bytes of events held in memory, over all connections.
const MAX_HELD_BYTES: usize = 8 * 1024 * 1024;

/// The type of a ping. The vendor sends one when it generates a link, and generates none without a 2xx response.
const PING: &str = "ping";

/// How webhooks are verified and forwarded.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The service that genuine events are forwarded to (`webhook.forward_to`).
    pub forward_to: Option<ForwardTo>,
    /// The header field of the signature (`webhook.signature_header`).
    pub signature_header: HeaderName,
    /// The maximum body size (`webhook.body_bytes`).
    pub body_bytes: usize,
    /// The time for the service to respond (`webhook.timeout`).
    pub timeout: Duration,
    /// The maximum of requests a second (`webhook.rate`).
    pub rate: usize,
}

/// The keys in use. Each verification loads the current ones.
pub type SharedSigningKeys = Arc<arc_swap::ArcSwap<SigningKeys>>;

/// The state of the webhook listener.
#[derive(Debug)]
pub struct WebhookReceiver {
    forward_to: ForwardTo,
    config: WebhookConfig,
    keys: SharedSigningKeys,
    window: ReplayWindow,
    metrics: Arc<Metrics>,
    rate: RateLimit,
    held_bytes: Arc<Semaphore>,
    /// Deliveries to the service. Each continues if its sender disconnects.
    deliveries: TaskTracker,
    rejection_log: LogLimiter,
    no_key_log: LogLimiter,
}

/// Why an event was not acknowledged, and the status of that response.
#[derive(Debug)]
struct Rejection {
    outcome: WebhookOutcome,
    status: StatusCode,
    reason: &'static str,
}

impl Rejection {
    const fn new(outcome: WebhookOutcome, status: StatusCode, reason: &'static str) -> Self {
        Self { outcome, status, reason }
    }

    /// A request that is not a valid webhook.
    const fn invalid(status: StatusCode, reason: &'static str) -> Self {
        Self::new(WebhookOutcome::Invalid, status, reason)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let text = format!("{}\n", self.reason);
        if matches!(self.outcome, WebhookOutcome::Limited | WebhookOutcome::InProgress | WebhookOutcome::NoKey) {
            return (self.status, [(header::RETRY_AFTER, "1")], text).into_response();
        }
        (self.status, text).into_response()
    }
}

/// An event, as it arrived.
struct Event {
    headers: HeaderMap,
    body: Bytes,
    /// The share of [`MAX_HELD_BYTES`].
    _held: Option<OwnedSemaphorePermit>,
}

impl WebhookReceiver {
    /// A receiver that forwards events to `forward_to` if they are genuine by `keys` and not in `window`.
    pub fn new(
        forward_to: ForwardTo,
        config: WebhookConfig,
        keys: SharedSigningKeys,
        window: ReplayWindow,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            forward_to,
            rate: RateLimit::new(config.rate),
            config,
            keys,
            window,
            metrics,
            held_bytes: Arc::new(Semaphore::new(MAX_HELD_BYTES)),
            deliveries: TaskTracker::new(),
            rejection_log: LogLimiter::default(),
            no_key_log: LogLimiter::default(),
        })
    }

    /// Waits until all deliveries have ended. Call it after the listener has closed, so that no new event arrives.
    pub async fn delivered(&self) {
        self.deliveries.close();
        self.deliveries.wait().await;
    }

    /// Receives an event. `Ok`, which becomes a 2xx response, for a ping, a replay, and an event that the service acknowledged.
    async fn receive(
        self: Arc<Self>,
        peer: Option<Peer>,
        head: Parts,
        body: Body,
    ) -> Result<WebhookOutcome, Rejection> {
        if head.method != Method::POST {
            return Err(Rejection::invalid(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed; send webhooks by POST",
            ));
        }
        if self.keys.load().verifier(Instant::now()).is_none() {
            if let Some(times) = self.no_key_log.count() {
                warn!(times, "webhook not verified: no key available; the vendor will resend it");
            }
            let reason = "no webhook verification key available yet";
            return Err(Rejection::new(WebhookOutcome::NoKey, StatusCode::SERVICE_UNAVAILABLE, reason));
        }
        if !self.rate.allows(Instant::now()) {
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(Rejection::new(WebhookOutcome::Limited, status, "webhook.rate exceeded"));
        }
        let arrival = timeout(BODY_TIMEOUT, self.read(head, body)).await;
        let event = arrival
            .map_err(|_| Rejection::invalid(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))??;
        if !self.is_genuine(&event) {
            self.log_rejection(peer);
            let reason = "the signature is missing, malformed or wrong";
            return Err(Rejection::new(WebhookOutcome::Refused, StatusCode::UNAUTHORIZED, reason));
        }
        if is_ping(&event.body) {
            return Ok(WebhookOutcome::Ping);
        }
        match self.window.admit(&event.body) {
            Admitted::Replay => Ok(WebhookOutcome::Replayed),
            Admitted::InProgress => {
                let reason = "this event is already being forwarded";
                Err(Rejection::new(WebhookOutcome::InProgress, StatusCode::SERVICE_UNAVAILABLE, reason))
            }
            Admitted::New(pending) => {
                let receiver = Arc::clone(&self);
                // Spawned, so that the delivery continues if the sender disconnects: the service may still acknowledge the event.
                let delivery = self
                    .deliveries
                    .spawn(async move { receiver.deliver(event).await.inspect(|_| pending.acknowledged()) });
                delivery.await.unwrap_or_else(|_| {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    Err(Rejection::new(WebhookOutcome::ServiceFailed, status, "the event could not be forwarded"))
                })
            }
        }
    }

    /// Reads the body, within the limits.
    async fn read(&self, head: Parts, mut body: Body) -> Result<Event, Rejection> {
        let (mut bytes, mut held) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Rejection::invalid(StatusCode::BAD_REQUEST, "the body is incomplete"))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > self.config.body_bytes - bytes.len() {
                let reason = "the body exceeds webhook.body_bytes";
                return Err(Rejection::invalid(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let Ok(more) = Arc::clone(&self.held_bytes).try_acquire_many_owned(count) else {
                let (status, reason) = (StatusCode::SERVICE_UNAVAILABLE, "too many events in progress");
                return Err(Rejection::new(WebhookOutcome::Limited, status, reason));
            };
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Event { headers: head.headers, body: bytes.freeze(), _held: held })
    }

    fn is_genuine(&self, event: &Event) -> bool {
        let Some(signature) = Signature::parse(&event.headers, &self.config.signature_header) else { return false };
        let Some(mut verifier) = self.keys.load().verifier(Instant::now()) else { return false };
        verifier.update(&event.body);
        verifier.is_genuine(&signature)
    }

    /// Sends `event` to the service, and logs the result.
    async fn deliver(&self, event: Event) -> Result<WebhookOutcome, Rejection> {
        let started = Instant::now();
        let Event { headers, body, _held } = event;
        let sent = timeout(self.config.timeout, send(&self.forward_to, headers, body)).await;
        let status = sent.unwrap_or(Err(ServiceError::TimedOut));
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match status {
            Ok(status) if status.is_success() => {
                info!(http.response.status_code = status.as_u16(), duration_ms, "webhook forwarded");
                Ok(WebhookOutcome::Forwarded)
            }
            Ok(status) => {
                let code = status.as_u16();
                warn!(
                    http.response.status_code = code,
                    duration_ms, "service did not accept the webhook; the vendor will resend it"
                );
                let reason = "the service did not respond with 2xx";
                Err(Rejection::new(WebhookOutcome::ServiceRefused, StatusCode::BAD_GATEWAY, reason))
            }
            Err(error) => {
                let cause = error_chain::one_line(&error);
                warn!(cause, duration_ms, "cannot forward webhook; the vendor will resend it");
                let is_late = matches!(error, ServiceError::TimedOut);
                let status = if is_late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
                Err(Rejection::new(WebhookOutcome::ServiceFailed, status, "the service did not respond"))
            }
        }
    }

    fn log_rejection(&self, peer: Option<Peer>) {
        if let Some(times) = self.rejection_log.count() {
            let actor = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            warn!(target: AUDIT, actor, times, "webhook rejected: signature missing, malformed or wrong");
        }
    }
}

/// The router of the webhook listener, which handles every path.
pub fn router(receiver: Arc<WebhookReceiver>) -> Router {
    Router::new().fallback(respond).with_state(receiver)
}

async fn respond(State(receiver): State<Arc<WebhookReceiver>>, request: Request) -> Response {
    let metrics = Arc::clone(&receiver.metrics);
    let peer = request.extensions().get::<Peer>().copied();
    let (head, body) = request.into_parts();
    match receiver.receive(peer, head, body).await {
        Ok(outcome) => {
            metrics.webhook(outcome);
            StatusCode::OK.into_response()
        }
        Err(rejection) => {
            metrics.webhook(rejection.outcome);
            rejection.into_response()
        }
    }
}

/// Whether a genuine body is a ping.
fn is_ping(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct EventHead<'a> {
        #[serde(borrow)]
        event_type: std::borrow::Cow<'a, str>,
    }

    // serde would also deserialize the struct from an array.
    body.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<EventHead<'_>>(body).is_ok_and(|head| head.event_type == PING)
}

#[cfg(test)]
mod tests;
