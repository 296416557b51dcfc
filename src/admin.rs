//! The admin API, on loopback only, and on a Unix socket if one is configured.
//!
//! Reads need no credentials, but are limited to loopback host names and exclude web pages. Actions need the socket, which only the
//! proxy's own user can open, or the admin token. Each action is audited: this module logs the actor and the outcome, and the module
//! that carries it out logs the change.
//!
//! No response contains a secret.

mod actions;
mod authorizer;
mod log_level;
mod status;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware,
    routing::get,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

pub use authorizer::MAX_DELAYED;
pub use log_level::{LevelStatus, SetLevel};
pub use status::{LockOut, Status, Token};

use self::authorizer::Authorizer;
use crate::{
    message::transport::Transport,
    secret::Secret,
    telemetry::LogLevel,
    token::{TokenControl, TokenReader},
};

/// The state of the handlers.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The token, and the status of the refresher.
    pub token: TokenReader,
    /// Sends commands to the refresher.
    pub control: TokenControl,
    /// Cancelled by the shutdown action, to start the drain.
    pub stop: CancellationToken,
    /// Cancelled as soon as the process drains.
    pub draining: CancellationToken,
    /// The URL that requests are forwarded to.
    pub upstream: String,
    /// The kind of source that the credentials come from.
    pub credentials_source: &'static str,
    /// A description of that source, worded to follow "from".
    pub credentials_description: String,
    /// The storage of the lock-out state: `directory`, `overlay` or `memory`.
    pub lockout_storage: &'static str,
    /// The token that actions on the port need; `None` disables them there.
    pub admin_token: Option<Secret<String>>,
    /// The levels of the log.
    pub log_level: LogLevel,
    /// When the process started.
    pub started: Instant,
}

/// `GET /api/status`, `GET /api/log-level`, and the actions `POST /api/token/invalidate`, `/api/quarantine`, `/api/quarantine/lift`,
/// `/api/latch/reset`, `/api/log-level` and `/api/shutdown`. On the port, requests from web pages are rejected, and actions need the
/// admin token. On the socket, every request is authorized, because only the proxy's own user can open it.
pub fn router(state: AdminState, transport: Transport) -> Router {
    let authorizer = Arc::new(Authorizer::new(transport, state.admin_token.clone()));
    Router::new()
        .route("/api/status", get(status::get_status))
        .merge(actions::routes())
        .merge(log_level::routes())
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "not found: see GET /api/status, and the actions in docs/operations.md\n")
        })
        .layer(middleware::from_fn_with_state(authorizer, authorizer::authorize))
        .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(CatchPanicLayer::new())
        .with_state(state)
}

#[cfg(test)]
mod tests;
