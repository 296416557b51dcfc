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

use super::AdminState;
use crate::{credentials::lockout::Decision, telemetry::AUDIT, token::ResetError};

pub(super) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/api/token/invalidate", post(invalidate))
        .route("/api/quarantine", post(quarantine))
        .route("/api/quarantine/lift", post(lift_quarantine))
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

/// The name of the action at `path` in the log; `other` for an unknown path.
pub(super) fn action_name(path: &str) -> &'static str {
    ACTIONS.into_iter().find(|action| *action == path).unwrap_or("other")
}

async fn invalidate(State(state): State<AdminState>) -> Response {
    respond(state.control.invalidate().await, "the token was dropped; a new one is being minted\n")
}

async fn quarantine(State(state): State<AdminState>) -> Response {
    respond(state.control.quarantine().await, "no token until the quarantine is lifted\n")
}

async fn lift_quarantine(State(state): State<AdminState>) -> Response {
    respond(state.control.lift().await, "the quarantine is lifted; a token is being minted\n")
}

#[derive(Deserialize)]
struct ResetQuery {
    #[serde(default)]
    override_budget: bool,
}

async fn reset_latch(State(state): State<AdminState>, Query(reset): Query<ResetQuery>) -> Response {
    match state.control.reset_latch(reset.override_budget).await {
        Err(ResetError::Ended) => respond(false, ""),
        Err(ResetError::NoCredentials) => {
            let help = "not reset: the credentials have not been read yet, and until then no token request is made; see \
                       finicity-proxy status\n";
            (StatusCode::CONFLICT, help).into_response()
        }
        Ok(Decision::Allowed) => respond(true, "reset: the credentials are tried once more\n"),
        Ok(Decision::Latched) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the reset could not be written; see the log\n").into_response()
        }
        Ok(Decision::Held) => {
            let help = "not reset: held, since too many token requests with these credentials have an unknown outcome, and five \
                       failed ones lock the vendor account. If the vendor has confirmed the credentials: finicity-proxy lockout \
                       reset --override-budget (POST /api/latch/reset?override_budget=true)\n";
            (StatusCode::CONFLICT, help).into_response()
        }
        Ok(Decision::BudgetSpent) => {
            let help = "not reset: too many credentials of this id were rejected, and five rejections lock the vendor account. If \
                       the vendor has confirmed the present ones: finicity-proxy lockout reset --override-budget (POST \
                       /api/latch/reset?override_budget=true)\n";
            (StatusCode::CONFLICT, help).into_response()
        }
    }
}

/// Starts the shutdown, as SIGTERM does; a second request has no effect.
async fn shutdown(State(state): State<AdminState>) -> Response {
    info!(target: AUDIT, "shutdown: the proxy drains and ends");
    state.stop.cancel();
    respond(true, "the proxy drains and ends\n")
}

fn respond(is_running: bool, message: &'static str) -> Response {
    if is_running {
        (StatusCode::OK, message).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the proxy is ending\n").into_response()
    }
}
