//! What an administrator can do.

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use tracing::info;

use super::Parts;
use crate::{credentials::lockout::Decision, telemetry::AUDIT};

pub(super) fn routes() -> Router<Parts> {
    Router::new()
        .route("/api/token/invalidate", post(invalidate))
        .route("/api/quarantine", post(quarantine))
        .route("/api/quarantine/lift", post(lift))
        .route("/api/latch/reset", post(reset_latch))
        .route("/api/shutdown", post(shutdown))
}

/// All actions, those of other modules here included.
const ACTIONS: [&str; 6] = [
    "/api/token/invalidate",
    "/api/quarantine",
    "/api/quarantine/lift",
    "/api/latch/reset",
    "/api/log-level",
    "/api/shutdown",
];

/// What the log calls the action at `path`; a caller may ask for any.
pub(super) fn name(path: &str) -> &'static str {
    ACTIONS.into_iter().find(|action| *action == path).unwrap_or("other")
}

async fn invalidate(State(parts): State<Parts>) -> Response {
    done(parts.control.invalidate().await, "the token was dropped; a new one is being minted\n")
}

async fn quarantine(State(parts): State<Parts>) -> Response {
    done(parts.control.quarantine().await, "no token until the quarantine is lifted\n")
}

async fn lift(State(parts): State<Parts>) -> Response {
    done(parts.control.lift().await, "the quarantine is lifted; a token is being minted\n")
}

#[derive(Deserialize)]
struct Reset {
    #[serde(default)]
    override_budget: bool,
}

async fn reset_latch(State(parts): State<Parts>, Query(reset): Query<Reset>) -> Response {
    match parts.control.reset_latch(reset.override_budget).await {
        None => done(false, ""),
        Some(Decision::Allowed) => done(true, "reset: the credentials are tried once more\n"),
        Some(Decision::Latched) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the reset could not be written; see the log\n").into_response()
        }
        Some(Decision::Held) => {
            let how = "not reset: held, since too many token requests with these credentials have an unknown outcome, and five \
                       failed ones lock the vendor account. If the vendor has confirmed the credentials: finicity-proxy lockout \
                       reset --override-budget (POST /api/latch/reset?override_budget=true)\n";
            (StatusCode::CONFLICT, how).into_response()
        }
        Some(Decision::BudgetSpent) => {
            let how = "not reset: too many credentials of this id were rejected, and five rejections lock the vendor account. If \
                       the vendor has confirmed the present ones: finicity-proxy lockout reset --override-budget (POST \
                       /api/latch/reset?override_budget=true)\n";
            (StatusCode::CONFLICT, how).into_response()
        }
    }
}

/// Begins the drain that SIGTERM begins; once more, it changes nothing.
async fn shutdown(State(parts): State<Parts>) -> Response {
    info!(target: AUDIT, "shutdown: the proxy drains and ends");
    parts.stop.cancel();
    done(true, "the proxy drains and ends\n")
}

fn done(heard: bool, what: &'static str) -> Response {
    if heard {
        (StatusCode::OK, what).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the proxy is ending\n").into_response()
    }
}
