//! Authorizes requests to the admin listeners.
//!
//! Rejections of a wrong admin token are delayed: each takes a second, and they are sent one at a time. A request with the right token is
//! never delayed, however many guesses are pending.
//!
//! There is no lock-out after failed guesses, because any local program could use it to keep the administrator out.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ring::digest::{SHA256, digest};
use tokio::{
    sync::{Mutex, Semaphore},
    time::sleep,
};
use tracing::{info, warn};

use super::actions;
use crate::{
    message::{
        guard::{BrowserAccess, OriginPolicy, Rejection},
        transport::{Peer, Transport},
    },
    secret::Secret,
    telemetry::{AUDIT, LogLimiter},
};

/// The delay of a response to a request without the admin token. A token of 16 characters cannot be guessed at any rate; the delay keeps
/// a program with a wrong token from flooding the log and using up a core.
const REJECTION_DELAY: Duration = Duration::from_secs(1);

/// The maximum number of delayed responses; further requests get 429 immediately. Each delayed response holds one of the listener's
/// connections, so the others stay free for requests with the right token; `app::operators` asserts that some are left.
pub const MAX_DELAYED: usize = 48;

/// Authorizes requests to the admin API.
#[derive(Debug)]
pub(super) struct Authorizer {
    transport: Transport,
    origin_policy: OriginPolicy,
    admin_token: Option<Secret<String>>,
    rejection_log: LogLimiter,
    delayed: Semaphore,
    delay_lock: Mutex<()>,
}

impl Authorizer {
    pub(super) fn new(transport: Transport, admin_token: Option<Secret<String>>) -> Self {
        Self {
            transport,
            origin_policy: OriginPolicy::new(Vec::new(), BrowserAccess::SameOrigin),
            admin_token,
            rejection_log: LogLimiter::default(),
            delayed: Semaphore::new(MAX_DELAYED),
            delay_lock: Mutex::new(()),
        }
    }

    /// The response that rejects `request`; `None` if it is authorized.
    fn rejection(&self, request: &Request) -> Option<Response> {
        if self.transport == Transport::Unix {
            return None;
        }
        match self.origin_policy.check(request.headers(), self.transport) {
            Ok(()) => {}
            Err(Rejection::InvalidHost) => {
                return Some((StatusCode::BAD_REQUEST, "exactly one valid Host header is required\n").into_response());
            }
            Err(Rejection::ForeignHost) => {
                let message = "this port accepts loopback host names only\n";
                return Some((StatusCode::MISDIRECTED_REQUEST, message).into_response());
            }
            Err(Rejection::CrossOrigin) => {
                return Some((StatusCode::FORBIDDEN, "requests from web pages are not allowed\n").into_response());
            }
        }
        if request.method().is_safe() {
            return None;
        }
        match &self.admin_token {
            None => {
                let message = "actions are disabled on this port: set FINICITY_ADMIN_TOKEN, or set admin.socket and use the socket\n";
                Some((StatusCode::FORBIDDEN, message).into_response())
            }
            Some(token) if is_authorized(request.headers(), token) => None,
            Some(_) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
                let message = "the admin token is required: Authorization: Bearer …\n";
                Some((StatusCode::UNAUTHORIZED, challenge, message).into_response())
            }
        }
    }

    /// Returns `rejection` after [`REJECTION_DELAY`], one at a time, or a 429 immediately if [`MAX_DELAYED`] are delayed already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future starts the delay of the next rejection.
    async fn delay(&self, rejection: Response) -> Response {
        let Ok(_delayed) = self.delayed.try_acquire() else {
            let fields = [(header::RETRY_AFTER, "60"), (header::CONNECTION, "close")];
            return (StatusCode::TOO_MANY_REQUESTS, fields, "too many requests without the admin token\n")
                .into_response();
        };
        let _delay_lock = self.delay_lock.lock().await;
        sleep(REJECTION_DELAY).await;
        rejection
    }
}

/// Passes an authorized request on, and rejects any other. Actions are logged either way, rejected ones at most once a second.
pub(super) async fn authorize(State(authorizer): State<Arc<Authorizer>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return match authorizer.rejection(&request) {
            Some(rejection) => rejection,
            None => next.run(request).await,
        };
    }
    let action = actions::action_name(request.uri().path());
    let actor = request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    if let Some(rejection) = authorizer.rejection(&request) {
        let status = rejection.status();
        if let Some(times) = authorizer.rejection_log.count() {
            warn!(target: AUDIT, action, actor, http.response.status_code = status.as_u16(), times, "admin request rejected");
        }
        return if status == StatusCode::UNAUTHORIZED { authorizer.delay(rejection).await } else { rejection };
    }
    let response = next.run(request).await;
    info!(target: AUDIT, action, actor, http.response.status_code = response.status().as_u16(), "admin request");
    response
}

/// Whether `headers` carry `token`, once and as a bearer token. Hashes are compared, so the timing reveals nothing about the token.
fn is_authorized(headers: &HeaderMap, token: &Secret<String>) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let given = value.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    given.is_some_and(|(_, given)| {
        digest(&SHA256, given).as_ref() == digest(&SHA256, token.expose().as_bytes()).as_ref()
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::post};
    use futures_util::{StreamExt as _, stream::FuturesUnordered};
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::*;

    fn router(transport: Transport) -> Router {
        let authorizer = Arc::new(Authorizer::new(transport, Some("the-right-admin-token".into())));
        Router::new().route("/", post(|| async {})).layer(middleware::from_fn_with_state(authorizer, authorize))
    }

    async fn status(router: &Router, token: &str) -> u16 {
        let request = Request::post("/").header("host", "localhost").header("authorization", format!("Bearer {token}"));
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn rejections_are_sent_one_per_second() {
        let router = router(Transport::Tcp);
        let start = Instant::now();
        let mut guesses: FuturesUnordered<_> = (0..10).map(|_| status(&router, "wrong")).collect();
        for rejected in 1..=10 {
            assert_eq!(guesses.next().await, Some(401));
            let took = start.elapsed();
            assert!(took.abs_diff(rejected * REJECTION_DELAY) < Duration::from_millis(100), "{rejected}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_token_is_never_delayed() {
        let router = router(Transport::Tcp);
        let start = Instant::now();
        let mut guesses: FuturesUnordered<_> = (0..2 * MAX_DELAYED).map(|_| status(&router, "wrong")).collect();
        let mut rejected = 0;
        for _ in 0..MAX_DELAYED {
            assert_eq!(guesses.next().await, Some(429), "requests beyond the queue get 429 immediately");
            rejected += 1;
        }
        assert_eq!(status(&router, "the-right-admin-token").await, 200);
        assert_eq!(start.elapsed(), Duration::ZERO);
        while let Some(status) = guesses.next().await {
            assert_eq!(status, 401);
            rejected += 1;
        }
        assert_eq!(rejected, 2 * MAX_DELAYED);
        assert_eq!(status(&router, "the-right-admin-token").await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_guess_does_not_block_the_next_one() {
        let router = router(Transport::Tcp);
        drop(FuturesUnordered::from_iter((0..10).map(|_| Box::pin(status(&router, "wrong")))).next());
        let start = Instant::now();
        assert_eq!(status(&router, "wrong").await, 401);
        assert!(start.elapsed().abs_diff(REJECTION_DELAY) < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_on_the_socket_are_not_delayed() {
        let start = Instant::now();
        assert_eq!(status(&router(Transport::Unix), "wrong").await, 200);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
