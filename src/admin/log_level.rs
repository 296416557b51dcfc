//! Shows and changes the log levels.

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::AdminState;
use crate::{
    message::transport::Peer,
    telemetry::{Levels, LogLevel, level::MAX_DURATION},
};

const USAGE: &str = "send levels as in log.level, such as debug or info,finicity_proxy::token=debug, or JSON with a duration of at most \
                   a day after which the configured levels apply again: {\"level\":\"debug\",\"for\":\"10m\"}\n";

pub(super) fn routes() -> Router<AdminState> {
    Router::new().route("/api/log-level", get(get_level).post(set_level))
}

/// The response of `GET` and `POST /api/log-level`.
#[derive(Debug, Deserialize, Serialize)]
pub struct LevelStatus {
    /// The levels in effect.
    pub level: String,
    /// The configured levels.
    pub configured: String,
    /// Seconds until the configured levels apply again; `None` if no change expires.
    pub reverts_in_s: Option<u64>,
}

/// The JSON body of `POST /api/log-level`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SetLevel {
    /// The new levels, as in `log.level`.
    pub level: String,
    /// The duration after which the configured levels apply again, such as `10m`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

async fn get_level(State(state): State<AdminState>) -> Json<LevelStatus> {
    Json(level_status(&state.log_level))
}

fn level_status(level: &LogLevel) -> LevelStatus {
    let setting = level.setting();
    LevelStatus {
        level: setting.effective.to_string(),
        configured: setting.configured.to_string(),
        reverts_in_s: setting.expires_at.map(|at| at.saturating_duration_since(Instant::now()).as_secs()),
    }
}

async fn set_level(State(state): State<AdminState>, peer: Option<Extension<Peer>>, body: Bytes) -> Response {
    let Some((levels, duration)) = parse_request(&body) else {
        return (StatusCode::BAD_REQUEST, USAGE).into_response();
    };
    let actor = peer.map_or_else(|| "unknown".to_owned(), |Extension(peer)| peer.to_string());
    state.log_level.set(levels, duration, &actor);
    Json(level_status(&state.log_level)).into_response()
}

/// Parses `body`: the levels, and for how long they apply. `None` if it is invalid.
fn parse_request(body: &[u8]) -> Option<(Levels, Option<Duration>)> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if !text.starts_with('{') {
        return Some((text.parse().ok()?, None));
    }
    let SetLevel { level, duration } = serde_json::from_str(text).ok()?;
    let within_limits = |duration: &Duration| (Duration::from_secs(1)..=MAX_DURATION).contains(duration);
    let duration = match duration {
        Some(duration) => Some(humantime::parse_duration(&duration).ok().filter(within_limits)?),
        None => None,
    };
    Some((level.parse().ok()?, duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_levels_or_json_with_a_duration() {
        let parsed = |body: &str| {
            parse_request(body.as_bytes()).map(|(levels, duration)| (levels.to_string(), duration.map(|d| d.as_secs())))
        };
        let debug = |duration_s| Some(("debug".to_owned(), duration_s));
        for body in ["debug", " debug\n", r#"{"level":"debug"}"#] {
            assert_eq!(parsed(body), debug(None), "{body}");
        }
        assert_eq!(parsed(r#"{"level":"debug","for":"10m"}"#), debug(Some(600)));
        assert_eq!(parsed("info, hyper=trace"), Some(("info,hyper=trace".to_owned(), None)));
        for body in [
            "",
            "loud",
            "{",
            "{}",
            r#""debug""#,
            r#"{"level":"loud"}"#,
            r#"{"level":"debug","for":"0s"}"#,
            r#"{"level":"debug","for":"25h"}"#,
            r#"{"level":"debug","for":600}"#,
            r#"{"level":"debug","until":"10m"}"#,
        ] {
            assert_eq!(parsed(body), None, "{body}");
        }
        assert!(parse_request(b"\xff").is_none());
    }
}
