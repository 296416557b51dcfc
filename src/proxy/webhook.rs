//! The vendor's webhooks: verified, then forwarded to the service.
//!
//! The listener is a server of its own, on the control plane: an event is small and rare, and what it costs is bounded by a rate, by the
//! bytes that are held, and by time. A genuine event goes to the service byte for byte. The vendor gets 2xx only after the service
//! answered 2xx, and sends it again otherwise; so no event is lost, and one is forwarded twice only where the process ends between the
//! two, or the service answered too late (at least once).
//!
//! Deliberately absent: a queue. What is not delivered is the vendor's to send again.

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

/// The time for the body of an event to arrive. It is sent at once with the head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of events that are held at once, over all connections.
const MAX_HELD_BYTES: usize = 8 * 1024 * 1024;

/// The type of a ping, which the vendor sends when a link is generated. Without a 2xx there is no link.
const PING: &str = "ping";

/// Where webhooks go, and what they may be like.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Where genuine events go (`webhook.forward_to`).
    pub forward_to: Option<ForwardTo>,
    /// The field that holds the signature (`webhook.signature_header`).
    pub signature_header: HeaderName,
    /// The largest body (`webhook.body_bytes`).
    pub body_bytes: usize,
    /// The time for the service's answer (`webhook.timeout`).
    pub timeout: Duration,
    /// The most requests a second (`webhook.rate`).
    pub rate: usize,
}

/// The keys in use. Each verification reads those of its moment.
pub type SharedSigningKeys = Arc<arc_swap::ArcSwap<SigningKeys>>;

/// What the listener needs.
#[derive(Debug)]
pub struct WebhookReceiver {
    forward_to: ForwardTo,
    config: WebhookConfig,
    keys: SharedSigningKeys,
    window: ReplayWindow,
    metrics: Arc<Metrics>,
    rate: RateLimit,
    held_bytes: Arc<Semaphore>,
    /// Events on their way to the service. Each goes on when its sender leaves.
    deliveries: TaskTracker,
    refusal_log: LogLimiter,
    no_key_log: LogLimiter,
}

/// Why an event was not acknowledged, and with which status.
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

    /// A request that is no webhook.
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
    /// What is held of the limit of bytes.
    _held: Option<OwnedSemaphorePermit>,
}

impl WebhookReceiver {
    /// Forwards to `forward_to` what is genuine by `keys` and not in `window`.
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
            refusal_log: LogLimiter::default(),
            no_key_log: LogLimiter::default(),
        })
    }

    /// Waits until no event is on its way to the service. No new one may come.
    pub async fn delivered(&self) {
        self.deliveries.close();
        self.deliveries.wait().await;
    }

    /// Takes an event in: 2xx for a ping, a replay, and what the service acknowledged.
    async fn receive(
        self: Arc<Self>,
        peer: Option<Peer>,
        head: Parts,
        body: Body,
    ) -> Result<WebhookOutcome, Rejection> {
        if head.method != Method::POST {
            return Err(Rejection::invalid(StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent by POST"));
        }
        if self.keys.load().verifier(Instant::now()).is_none() {
            if let Some(times) = self.no_key_log.count() {
                warn!(times, "a webhook was not verified, since there is no key; the vendor sends it again");
            }
            let reason = "there is no key to verify webhooks by yet";
            return Err(Rejection::new(WebhookOutcome::NoKey, StatusCode::SERVICE_UNAVAILABLE, reason));
        }
        if !self.rate.allows(Instant::now()) {
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(Rejection::new(WebhookOutcome::Limited, status, "more requests than webhook.rate"));
        }
        let arrival = timeout(BODY_TIMEOUT, self.read(head, body)).await;
        let event =
            arrival.map_err(|_| Rejection::invalid(StatusCode::REQUEST_TIMEOUT, "the body stopped arriving"))??;
        if !self.is_genuine(&event) {
            self.log_refusal(peer);
            let reason = "the signature is missing, malformed or wrong";
            return Err(Rejection::new(WebhookOutcome::Refused, StatusCode::UNAUTHORIZED, reason));
        }
        if is_ping(&event.body) {
            return Ok(WebhookOutcome::Ping);
        }
        match self.window.admit(&event.body) {
            Admitted::Replay => Ok(WebhookOutcome::Replayed),
            Admitted::InProgress => {
                let reason = "this event is being forwarded";
                Err(Rejection::new(WebhookOutcome::InProgress, StatusCode::SERVICE_UNAVAILABLE, reason))
            }
            Admitted::New(pending) => {
                let receiver = Arc::clone(&self);
                // The service may have acknowledged what its sender did not wait for, so the delivery goes on without it.
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

    /// Reads the body, as far as the limits allow.
    async fn read(&self, head: Parts, mut body: Body) -> Result<Event, Rejection> {
        let (mut bytes, mut held) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Rejection::invalid(StatusCode::BAD_REQUEST, "the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > self.config.body_bytes - bytes.len() {
                let reason = "the body is larger than webhook.body_bytes";
                return Err(Rejection::invalid(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let Ok(more) = Arc::clone(&self.held_bytes).try_acquire_many_owned(count) else {
                let (status, reason) = (StatusCode::SERVICE_UNAVAILABLE, "too many events at once");
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

    /// Sends `event` to the service, and logs what came of it.
    async fn deliver(&self, event: Event) -> Result<WebhookOutcome, Rejection> {
        let started = Instant::now();
        let Event { headers, body, _held } = event;
        let sent = timeout(self.config.timeout, send(&self.forward_to, headers, body)).await;
        let status = sent.unwrap_or(Err(ServiceError::TimedOut));
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match status {
            Ok(status) if status.is_success() => {
                info!(http.response.status_code = status.as_u16(), duration_ms, "a webhook was forwarded");
                Ok(WebhookOutcome::Forwarded)
            }
            Ok(status) => {
                let code = status.as_u16();
                warn!(
                    http.response.status_code = code,
                    duration_ms, "the service did not take a webhook; the vendor sends it again"
                );
                let reason = "the service did not answer with 2xx";
                Err(Rejection::new(WebhookOutcome::ServiceRefused, StatusCode::BAD_GATEWAY, reason))
            }
            Err(error) => {
                let cause = error_chain::one_line(&error);
                warn!(cause, duration_ms, "a webhook could not be forwarded; the vendor sends it again");
                let is_late = matches!(error, ServiceError::TimedOut);
                let status = if is_late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
                Err(Rejection::new(WebhookOutcome::ServiceFailed, status, "the service gave no answer"))
            }
        }
    }

    fn log_refusal(&self, peer: Option<Peer>) {
        if let Some(times) = self.refusal_log.count() {
            let actor = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            warn!(target: AUDIT, actor, times, "a webhook was refused: its signature is missing, malformed or wrong");
        }
    }
}

/// Answers every request to the listener.
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

    // A list of the right length would be taken for an object, too.
    body.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<EventHead<'_>>(body).is_ok_and(|head| head.event_type == PING)
}

#[cfg(test)]
mod tests;
