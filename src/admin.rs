//! The administrator's listener, on loopback only, and on a Unix socket where one is configured.
//!
//! Reading is free for programs that use a loopback name and are no web page. Actions need more: the socket, whose mode lets
//! only the proxy's own user in, or the admin token. Every action is logged for audit: here who asked and what came of it, and
//! what it changes where that is changed.
//!
//! Deliberately absent: anything secret.

mod actions;
mod log_level;
mod status;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};
use tracing::{info, warn};

pub use status::{LockOut, Status, Token};

use crate::{
    credentials::Scheme,
    guard::{Door, HostGuard, Peer, Refusal},
    secret::Secret,
    telemetry::{AUDIT, LogLevel, Seldom},
    token::{TokenControl, TokenReader},
};

/// What the administrator may look at and act on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The token, and what the refresher says of it.
    pub token: TokenReader,
    /// Where actions go.
    pub control: TokenControl,
    /// To be cancelled, to have the process drain.
    pub stop: CancellationToken,
    /// Cancelled as soon as the process drains.
    pub draining: CancellationToken,
    /// Where requests are forwarded to.
    pub upstream: String,
    /// Where the credentials come from.
    pub source: &'static str,
    /// The scheme of the credentials at the start.
    pub scheme: Scheme,
    /// Where the lock-out state is kept: `directory`, `overlay` or `memory`.
    pub lockout_state: &'static str,
    /// What actions need on the port; `None` turns them off there.
    pub admin_token: Option<Secret<String>>,
    /// The levels of the log.
    pub log_level: LogLevel,
    /// When the process started.
    pub started: Instant,
}

/// `GET /api/status`, `GET /api/log-level`, and the actions `POST /api/token/invalidate`, `/api/quarantine`, `/api/quarantine/lift`,
/// `/api/latch/reset`, `/api/log-level` and `/api/shutdown`. On the port browsers are kept out, and actions need the admin token;
/// whoever can open the socket is the
/// proxy's own user.
pub fn router(parts: Parts, door: Door) -> Router {
    let keeper = Arc::new(Keeper {
        door,
        guard: HostGuard::new(Vec::new()),
        admin_token: parts.admin_token.clone(),
        refused: Seldom::default(),
    });
    Router::new()
        .route("/api/status", get(status::show))
        .merge(actions::routes())
        .merge(log_level::routes())
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "there is GET /api/status, and the actions in docs/operations.md\n")
        })
        .layer(middleware::from_fn_with_state(keeper, admit))
        .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(CatchPanicLayer::new())
        .with_state(parts)
}

/// Who may do what.
#[derive(Debug)]
struct Keeper {
    door: Door,
    guard: HostGuard,
    admin_token: Option<Secret<String>>,
    refused: Seldom,
}

/// Lets a request through or refuses it. Actions are told either way, refused ones once a second at most.
async fn admit(State(keeper): State<Arc<Keeper>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return match keeper.refusal(&request) {
            Some(refusal) => refusal,
            None => next.run(request).await,
        };
    }
    let action = actions::name(request.uri().path());
    let who = request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    if let Some(refusal) = keeper.refusal(&request) {
        if let Some(times) = keeper.refused.count() {
            let status = refusal.status().as_u16();
            warn!(target: AUDIT, action, who, http.response.status_code = status, times, "an admin action was refused");
        }
        return refusal;
    }
    let response = next.run(request).await;
    info!(target: AUDIT, action, who, http.response.status_code = response.status().as_u16(), "an admin action was asked for");
    response
}

impl Keeper {
    /// The answer to a request that is not to be let through.
    fn refusal(&self, request: &Request) -> Option<Response> {
        if self.door == Door::Socket {
            return None;
        }
        match self.guard.check(request.headers(), self.door) {
            Ok(()) => {}
            Err(Refusal::NoHost) => {
                return Some((StatusCode::BAD_REQUEST, "exactly one valid Host header is needed\n").into_response());
            }
            Err(Refusal::OtherHost) => {
                let why = "this port answers to loopback names only\n";
                return Some((StatusCode::MISDIRECTED_REQUEST, why).into_response());
            }
            Err(Refusal::WebPage) => {
                return Some((StatusCode::FORBIDDEN, "requests from web pages are refused\n").into_response());
            }
        }
        if request.method().is_safe() {
            return None;
        }
        match &self.admin_token {
            None => {
                let how = "actions are off on this port: set FINICITY_ADMIN_TOKEN, or admin.socket and use that\n";
                Some((StatusCode::FORBIDDEN, how).into_response())
            }
            Some(token) if actions::is_authorized(request.headers(), token) => None,
            Some(_) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
                let how = "the admin token is needed: Authorization: Bearer …\n";
                Some((StatusCode::UNAUTHORIZED, challenge, how).into_response())
            }
        }
    }
}

#[cfg(test)]
mod tests;
