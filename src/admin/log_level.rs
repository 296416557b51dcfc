//! The levels of the log, to look at and to change for a while.

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

use super::Parts;
use crate::{
    message::guard::Peer,
    telemetry::{Levels, LogLevel, level::MAX_DURATION},
};

const HOW: &str = "send levels as in log.level, such as debug or info,finicity_proxy::token=debug, or JSON with a time of at most \
                   a day after which they go back: {\"level\":\"debug\",\"for\":\"10m\"}\n";

pub(super) fn routes() -> Router<Parts> {
    Router::new().route("/api/log-level", get(show).post(change))
}

/// The response of `GET` and `POST /api/log-level`.
#[derive(Debug, Deserialize, Serialize)]
pub struct ShownLevel {
    /// The levels in effect.
    pub level: String,
    /// Those of the configuration.
    pub configured: String,
    /// Seconds until these are in effect again; `None` where only a restart or a SIGHUP does that.
    pub reverts_in_s: Option<u64>,
}

/// The JSON body of `POST /api/log-level`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LevelChange {
    /// The new levels, as in `log.level`.
    pub level: String,
    /// After which time the configured levels are in effect again, such as `10m`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

async fn show(State(parts): State<Parts>) -> Json<ShownLevel> {
    Json(shown(&parts.log_level))
}

fn shown(level: &LogLevel) -> ShownLevel {
    let setting = level.setting();
    ShownLevel {
        level: setting.present.to_string(),
        configured: setting.configured.to_string(),
        reverts_in_s: setting.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs()),
    }
}

async fn change(State(parts): State<Parts>, peer: Option<Extension<Peer>>, body: Bytes) -> Response {
    let Some((levels, time)) = wish(&body) else { return (StatusCode::BAD_REQUEST, HOW).into_response() };
    let who = peer.map_or_else(|| "unknown".to_owned(), |Extension(peer)| peer.to_string());
    parts.log_level.set(levels, time, &who);
    Json(shown(&parts.log_level)).into_response()
}

/// What `body` asks for: levels, and for how long.
fn wish(body: &[u8]) -> Option<(Levels, Option<Duration>)> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if !text.starts_with('{') {
        return Some((text.parse().ok()?, None));
    }
    let LevelChange { level, time } = serde_json::from_str(text).ok()?;
    let within = |time: &Duration| (Duration::from_secs(1)..=MAX_DURATION).contains(time);
    let time = match time {
        Some(time) => Some(humantime::parse_duration(&time).ok().filter(within)?),
        None => None,
    };
    Some((level.parse().ok()?, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_levels_or_json_with_a_time() {
        let wished =
            |body: &str| wish(body.as_bytes()).map(|(levels, time)| (levels.to_string(), time.map(|t| t.as_secs())));
        let debug = |time| Some(("debug".to_owned(), time));
        for body in ["debug", " debug\n", r#"{"level":"debug"}"#] {
            assert_eq!(wished(body), debug(None), "{body}");
        }
        assert_eq!(wished(r#"{"level":"debug","for":"10m"}"#), debug(Some(600)));
        assert_eq!(wished("info, hyper=trace"), Some(("info,hyper=trace".to_owned(), None)));
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
            assert_eq!(wished(body), None, "{body}");
        }
        assert!(wish(b"\xff").is_none());
    }
}
