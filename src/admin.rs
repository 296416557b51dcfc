//! The administrator's listener, on loopback only, and on a Unix socket where one is configured.
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

pub use log_level::{LevelChange, ShownLevel};
pub use status::{LockOut, Status, Token};

use self::authorizer::Authorizer;
use crate::{
    credentials::Scheme,
    message::guard::Transport,
    secret::Secret,
    telemetry::LogLevel,
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
    /// The same with what distinguishes it from others of its kind, as it follows the word "from".
    pub source_description: String,
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
pub fn router(parts: Parts, door: Transport) -> Router {
    let authorizer = Arc::new(Authorizer::new(door, parts.admin_token.clone()));
    Router::new()
        .route("/api/status", get(status::show))
        .merge(actions::routes())
        .merge(log_level::routes())
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "there is GET /api/status, and the actions in docs/operations.md\n")
        })
        .layer(middleware::from_fn_with_state(authorizer, authorizer::admit))
        .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(CatchPanicLayer::new())
        .with_state(parts)
}

#[cfg(test)]
mod tests;
