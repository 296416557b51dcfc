//! The actions of the admin API.

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

/// All actions, including those of other modules.
const ACTIONS: [&str; 6] = [
    "/api/token/invalidate",
    "/api/quarantine",
    "/api/quarantine/lift",
    "/api/latch/reset",
    "/api/log-level",
    "/api/shutdown",
];

/// The name of the action at `path` for the log; `other` for an unknown path.
pub(super) fn action_name(path: &str) -> &'static str {
    ACTIONS.into_iter().find(|action| *action == path).unwrap_or("other")
}

async fn invalidate(State(state): State<AdminState>) -> Response {
    respond(state.control.invalidate().await, "the token was dropped; a new one is being fetched\n")
}

async fn quarantine(State(state): State<AdminState>) -> Response {
    respond(
        state.control.quarantine().await,
        "quarantined: no token is used or fetched until the quarantine is lifted\n",
    )
}

async fn lift_quarantine(State(state): State<AdminState>) -> Response {
    respond(state.control.lift().await, "the quarantine is lifted; a token is being fetched\n")
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
            let help = "not reset: the credentials have not been read yet, so no token request is made; see \
                       finicity-proxy status\n";
            (StatusCode::CONFLICT, help).into_response()
        }
        Ok(Decision::Allowed) => respond(true, "reset: the credentials are tried once more\n"),
        Ok(Decision::Latched) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the reset could not be written; see the log\n").into_response()
        }
        Ok(Decision::Held) => {
            let help = "not reset: held, because too many token requests with these credentials have an unknown outcome, and five \
                       failed ones lock the vendor account. If the vendor has confirmed the credentials: finicity-proxy lockout \
                       reset --override-budget (POST /api/latch/reset?override_budget=true)\n";
            (StatusCode::CONFLICT, help).into_response()
        }
        Ok(Decision::BudgetSpent) => {
            let help = "not reset: too many credentials for this id were rejected, and five rejections lock the vendor account. If \
                       the vendor has confirmed the current ones: finicity-proxy lockout reset --override-budget (POST \
                       /api/latch/reset?override_budget=true)\n";
            (StatusCode::CONFLICT, help).into_response()
        }
    }
}

/// Starts the shutdown, like SIGTERM. A second request has no effect.
async fn shutdown(State(state): State<AdminState>) -> Response {
    info!(target: AUDIT, "shutdown requested; the proxy drains and stops");
    state.stop.cancel();
    respond(true, "the proxy drains and stops\n")
}

fn respond(is_running: bool, message: &'static str) -> Response {
    if is_running {
        (StatusCode::OK, message).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the proxy is shutting down\n").into_response()
    }
}
