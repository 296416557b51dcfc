//! Who may do what on the administrator's listener.
//!
//! Guesses at the admin token are delayed: a rejection takes a second, and only one rejection is sent at a time. The right token is
//! compared at once and waits for nothing, however many guesses do.
//!
//! Deliberately absent: a lock-out of the port, which would let anyone keep the administrator out.

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

/// How long a refused request waits for its answer. A token of 16 characters is beyond guessing at any rate; this keeps a program
/// with a wrong one from filling the log and a core.
const REJECTION_DELAY: Duration = Duration::from_secs(1);

/// The maximum number of rejected requests that are delayed; those beyond it get 429 at once. Each holds a connection, of which the
/// listener has 64: the rest stay free for the right token.
const MAX_DELAYED: usize = 48;

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

    /// The response to a request that is rejected; `None` if it is authorized.
    fn rejection(&self, request: &Request) -> Option<Response> {
        if self.transport == Transport::Unix {
            return None;
        }
        match self.origin_policy.check(request.headers(), self.transport) {
            Ok(()) => {}
            Err(Rejection::InvalidHost) => {
                return Some((StatusCode::BAD_REQUEST, "exactly one valid Host header is needed\n").into_response());
            }
            Err(Rejection::ForeignHost) => {
                let message = "this port answers to loopback names only\n";
                return Some((StatusCode::MISDIRECTED_REQUEST, message).into_response());
            }
            Err(Rejection::CrossOrigin) => {
                return Some((StatusCode::FORBIDDEN, "requests from web pages are refused\n").into_response());
            }
        }
        if request.method().is_safe() {
            return None;
        }
        match &self.admin_token {
            None => {
                let message = "actions are off on this port: set FINICITY_ADMIN_TOKEN, or admin.socket and use that\n";
                Some((StatusCode::FORBIDDEN, message).into_response())
            }
            Some(token) if is_authorized(request.headers(), token) => None,
            Some(_) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
                let message = "the admin token is needed: Authorization: Bearer …\n";
                Some((StatusCode::UNAUTHORIZED, challenge, message).into_response())
            }
        }
    }

    /// Returns `rejection` after [`REJECTION_DELAY`], one at a time, or a 429 at once when too many are delayed already.
    ///
    /// # Cancel safety
    ///
    /// A request that is dropped while it is delayed lets the next one pass.
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

/// Lets a request through or refuses it. Actions are logged either way, refused ones once a second at most.
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
            warn!(target: AUDIT, action, actor, http.response.status_code = status.as_u16(), times, "an admin action was refused");
        }
        return if status == StatusCode::UNAUTHORIZED { authorizer.delay(rejection).await } else { rejection };
    }
    let response = next.run(request).await;
    info!(target: AUDIT, action, actor, http.response.status_code = response.status().as_u16(), "an admin action was asked for");
    response
}

/// Whether `headers` carry `token`, once and as a bearer token. The comparison is of hashes, so that its time tells nothing.
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
    async fn each_refusal_takes_a_second_and_one_comes_at_a_time() {
        let router = router(Transport::Tcp);
        let start = Instant::now();
        let mut guesses: FuturesUnordered<_> = (0..10).map(|_| status(&router, "wrong")).collect();
        for refused in 1..=10 {
            assert_eq!(guesses.next().await, Some(401));
            let took = start.elapsed();
            assert!(took.abs_diff(refused * REJECTION_DELAY) < Duration::from_millis(100), "{refused}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_right_token_waits_for_nothing_while_guesses_wait() {
        let router = router(Transport::Tcp);
        let start = Instant::now();
        let mut guesses: FuturesUnordered<_> = (0..2 * MAX_DELAYED).map(|_| status(&router, "wrong")).collect();
        let mut refused = 0;
        for _ in 0..MAX_DELAYED {
            assert_eq!(guesses.next().await, Some(429), "those beyond the queue are answered at once");
            refused += 1;
        }
        assert_eq!(status(&router, "the-right-admin-token").await, 200);
        assert_eq!(start.elapsed(), Duration::ZERO);
        while let Some(status) = guesses.next().await {
            assert_eq!(status, 401);
            refused += 1;
        }
        assert_eq!(refused, 2 * MAX_DELAYED);
        assert_eq!(status(&router, "the-right-admin-token").await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_guess_lets_the_next_one_pass() {
        let router = router(Transport::Tcp);
        drop(FuturesUnordered::from_iter((0..10).map(|_| Box::pin(status(&router, "wrong")))).next());
        let start = Instant::now();
        assert_eq!(status(&router, "wrong").await, 401);
        assert!(start.elapsed().abs_diff(REJECTION_DELAY) < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_slowed_on_the_socket() {
        let start = Instant::now();
        assert_eq!(status(&router(Transport::Unix), "wrong").await, 200);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
