//! The admin API, on loopback only, and on a Unix socket where one is configured.
//!
//! Reading is free for programs that use a loopback name and are no web page. Actions need more: the socket, whose mode lets
//! only the proxy's own user in, or the admin token. Every action is logged for audit: here who asked and what came of it, and
//! what it changes where that is changed.
//!
//! Deliberately absent: anything secret.

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

pub use log_level::{LevelStatus, SetLevel};
pub use status::{LockOut, Status, Token};

use self::authorizer::Authorizer;
use crate::{
    message::transport::Transport,
    secret::Secret,
    telemetry::LogLevel,
    token::{TokenControl, TokenReader},
};

/// What the admin API shows and acts on.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The token, and what the refresher says of it.
    pub token: TokenReader,
    /// Carries out the actions.
    pub control: TokenControl,
    /// To be cancelled, to have the process drain.
    pub stop: CancellationToken,
    /// Cancelled as soon as the process drains.
    pub draining: CancellationToken,
    /// Where requests are forwarded to.
    pub upstream: String,
    /// Where the credentials come from.
    pub credentials_source: &'static str,
    /// The same with what distinguishes it from others of its kind, as it follows the word "from".
    pub credentials_description: String,
    /// Where the lock-out state is kept: `directory`, `overlay` or `memory`.
    pub lockout_storage: &'static str,
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
pub fn router(state: AdminState, transport: Transport) -> Router {
    let authorizer = Arc::new(Authorizer::new(transport, state.admin_token.clone()));
    Router::new()
        .route("/api/status", get(status::get_status))
        .merge(actions::routes())
        .merge(log_level::routes())
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "there is GET /api/status, and the actions in docs/operations.md\n")
        })
        .layer(middleware::from_fn_with_state(authorizer, authorizer::authorize))
        .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(CatchPanicLayer::new())
        .with_state(state)
}

#[cfg(test)]
mod tests;
