//! The ops listener: probes and metrics. It shows no secrets, has no actions, and forwards nothing.
//!
//! An external fault must not make Kubernetes restart a pod or remove it from service. So only a dead event loop or a hung refresher
//! fails `/livez`, and once a token has been obtained, only a drain fails `/readyz`. During a later token outage, requests get a clear
//! 503, and the metrics show it.

use std::{
    fmt::{Display, Write as _},
    pin::Pin,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use humantime::format_rfc3339_seconds;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

use crate::{
    telemetry::{Metrics, TokenSnapshot},
    token::{self, LastError, Phase, Refusal, TokenReader},
};

/// The media type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Checks whether the event loops respond.
pub type LivenessCheck = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The state of the handlers.
#[derive(Clone)]
pub struct OpsState {
    /// The token, and the status of the refresher.
    pub token: TokenReader,
    /// The source of the credentials, worded to follow "from".
    pub credentials_description: String,
    /// The metrics to show.
    pub metrics: Arc<Metrics>,
    /// Cancelled as soon as the process drains.
    pub draining: CancellationToken,
    /// Whether startup succeeds only once a token has been obtained (`startup.require_token`).
    pub require_token: bool,
    /// Whether startup fails while the credentials are refused (`startup.fail_on_rejection`).
    pub fail_on_rejection: bool,
    /// The refusal that blocks startup: the result of [`Refusal::of_start`] over all statuses so far.
    pub startup_refusal: watch::Receiver<Option<Refusal>>,
    /// Checks whether the event loops respond.
    pub liveness: LivenessCheck,
}

impl OpsState {
    /// Whether startup has succeeded. That is once the credentials have been read and the first token request has completed, successfully
    /// or not. With `require_token`, only once a token has been obtained. With `fail_on_rejection`, not while the credentials are refused.
    ///
    /// # Errors
    ///
    /// The reason why startup has not succeeded yet.
    pub fn startup(&self) -> Result<(), String> {
        let status = self.token.status();
        // `startup_refusal` may lag behind the status.
        let refusal = Refusal::of_start(*self.startup_refusal.borrow(), &status);
        let (has_succeeded, reason) = match refusal {
            Some(refusal) if self.fail_on_rejection || self.require_token => {
                return Err(format!("{}; {}", refusal.reason(), refusal.remedy()));
            }
            _ if self.require_token && status.attempted => {
                (status.obtained, "no token has been obtained yet, and startup.require_token is set")
            }
            _ if status.phase == Phase::AwaitingCredentials => {
                let reason = self.token.unresolved_error();
                let reason = reason.as_deref().unwrap_or("the first read has not completed yet");
                return Err(format!("the credentials have not been read yet: {reason}"));
            }
            _ => (status.attempted, "the first token request has not completed yet"),
        };
        if has_succeeded { Ok(()) } else { Err(reason.to_owned()) }
    }
}

/// `/startupz`, `/livez`, `/readyz` (with `?verbose`) and `/metrics`.
pub fn router(state: OpsState) -> Router {
    Router::new()
        .route("/startupz", get(startupz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "this port serves /startupz, /livez, /readyz and /metrics\n") })
        .layer(
            ServiceBuilder::new()
                .layer(CatchPanicLayer::new())
                .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))),
        )
        .with_state(state)
}

/// Passes when startup has [succeeded](OpsState::startup). All listeners are bound before this one serves requests.
async fn startupz(State(state): State<OpsState>) -> Response {
    let startup = state.startup();
    probe_response(startup.is_ok(), startup.err().unwrap_or_default())
}

async fn livez(State(state): State<OpsState>) -> Response {
    let alive = is_live(&state).await;
    probe_response(alive.is_ok(), alive.err().unwrap_or_default())
}

/// Whether the process is alive; otherwise, the part that is not.
async fn is_live(state: &OpsState) -> Result<(), &'static str> {
    if !state.token.is_refresher_alive(token::HEARTBEAT_LIMIT).await {
        return Err("the token refresher hangs");
    }
    if (state.liveness)().await { Ok(()) } else { Err("an event loop does not respond") }
}

async fn readyz(State(state): State<OpsState>, RawQuery(query): RawQuery) -> Response {
    let (obtained, draining) = (state.token.status().obtained, state.draining.is_cancelled());
    let reason = if draining { "draining" } else { "no token has been obtained yet" };
    let ready = obtained && !draining;
    if query.is_none_or(|query| query != "verbose") {
        return probe_response(ready, reason);
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, verbose_readiness(&state, ready, draining)).into_response()
}

fn verbose_readiness(state: &OpsState, ready: bool, draining: bool) -> String {
    let token = &state.token;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name}: {value}");
    };
    line("ready", ready.to_string());
    line("draining", draining.to_string());
    line("credentials", format!("from {}", state.credentials_description));
    line("token obtained", token.status().obtained.to_string());
    line("token state", token.state().as_str().to_owned());
    line("token version", token.version().to_string());
    line("token usable for", format!("{} s", token.remaining().as_secs()));
    let next = match (token.state(), token.until_next_attempt()) {
        (_, wait) if token.status().phase == Phase::AwaitingCredentials => match wait {
            Some(wait) => format!("after the credentials have been read; next attempt in {} s", wait.as_secs()),
            None => "after the credentials have been read, which is in progress".to_owned(),
        },
        (token::State::Held, wait) => held_until(wait),
        (_, Some(wait)) => format!("in {} s", wait.as_secs()),
        (token::State::Quarantined, None) => "never: quarantined; lift it with POST /api/quarantine/lift".to_owned(),
        (_, None) => match Refusal::of(&token.status()) {
            Some(refusal) => format!("never: {}; {}", refusal.reason(), refusal.remedy()),
            None => "in progress".to_owned(),
        },
    };
    line("next token request", next);
    line(
        "last token error",
        token.status().last_error.map_or("none".to_owned(), |error| describe_error(token, &error)),
    );
    let lockout = token.status().lockout;
    line("credentials latched", lockout.latched.to_string());
    line("lock-out budget spent", lockout.budget_spent.to_string());
    line("rejections counted", lockout.rejections.to_string());
    line("token requests with an unknown outcome", lockout.unresolved.to_string());
    line("token requests held", lockout.held.to_string());
    if lockout.unrecorded {
        line(
            "attempt record",
            "cannot be written, so no token request is made; see auth.state_dir and the log".to_owned(),
        );
    }
    line("new credentials", lockout.candidate.map_or("none", token::CandidateState::as_str).to_owned());
    text
}

/// The last failure of a token request, with its time.
fn describe_error(token: &TokenReader, error: &LastError) -> String {
    let at = format_rfc3339_seconds(UNIX_EPOCH + error.unix_time);
    let since = if error.resolved { "; a token has been obtained since" } else { "" };
    format!("{at} ({} s ago{since}): {}", token.error_age(error).as_secs(), error.message)
}

/// When the next token request is made in state `held`, and what an operator can do.
fn held_until(wait: Option<Duration>) -> String {
    let operator = "verify the credentials, then run `finicity-proxy lockout reset --override-budget`";
    match wait {
        Some(wait) => format!("held, one more in {} s; or {operator}", wait.as_secs()),
        None => format!("never: held; {operator}"),
    }
}

async fn metrics(State(state): State<OpsState>) -> Response {
    let token = &state.token;
    let (status, draining) = (token.status(), state.draining.is_cancelled());
    state.metrics.set_token(&TokenSnapshot {
        remaining: token.remaining(),
        age: token.age(),
        next_request: token.until_next_attempt().unwrap_or_default(),
        version: token.version(),
        states: &token::State::LABELS,
        state: token.state().as_str(),
        latched: status.lockout.latched,
        budget_spent: status.lockout.budget_spent,
        rejections: status.lockout.rejections,
        unresolved: status.lockout.unresolved,
        held: status.lockout.held,
        unrecorded: status.lockout.unrecorded,
        candidates: &token::CandidateState::LABELS,
        candidate: status.lockout.candidate.map(token::CandidateState::as_str),
    });
    state.metrics.set_probes(is_live(&state).await.is_ok(), status.obtained && !draining, draining);
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], state.metrics.render()).into_response()
}

fn probe_response(passes: bool, reason: impl Display) -> Response {
    if passes {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ok: {reason}\n")).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{body::Body, http::Request};
    use http::header::AUTHORIZATION;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::token::{
        Clock, LockoutStatus, TokenWriter, channel,
        classify::FailureClass,
        scheme::{AuthHeaders, FINICITY_APP_KEY},
    };

    fn ops_state(liveness: bool) -> (OpsState, TokenWriter) {
        let (writer, token) = channel(Clock::Boot, Duration::from_secs(2));
        let liveness: LivenessCheck = Arc::new(move || Box::pin(std::future::ready(liveness)));
        let (metrics, draining) = (Arc::new(Metrics::new()), CancellationToken::new());
        let startup_refusal = watch::channel(None).1;
        let credentials_description = "the environment".to_owned();
        let state = OpsState {
            token,
            credentials_description,
            metrics,
            draining,
            require_token: false,
            fail_on_rejection: false,
            startup_refusal,
            liveness,
        };
        (state, writer)
    }

    fn publish(writer: &mut TokenWriter) {
        let value = HeaderValue::from_static("canary");
        let headers = [(FINICITY_APP_KEY, value.clone()), (AUTHORIZATION, value)];
        let now = writer.clock().now();
        let hour = Duration::from_secs(3600);
        writer.publish(AuthHeaders { headers, expires_in: None, untyped: false }, now + hour);
        writer.set_status(Phase::Idle, Some(now + hour / 2), LockoutStatus::default());
    }

    async fn get(state: &OpsState, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(state.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn q11_ready_means_token_obtained_and_not_draining() {
        let (state, mut writer) = ops_state(true);
        assert_eq!(get(&state, "/readyz").await, (503, "not ok: no token has been obtained yet\n".to_owned()));
        assert_eq!(get(&state, "/startupz").await.0, 503);
        writer.set_status(Phase::Failed(FailureClass::Transient), None, LockoutStatus::default());
        assert_eq!((get(&state, "/readyz").await.0, get(&state, "/startupz").await.0), (503, 200));
        publish(&mut writer);
        assert_eq!(get(&state, "/readyz").await.0, 200);
        writer.set_status(Phase::Rejected, None, LockoutStatus::default());
        assert_eq!(get(&state, "/readyz").await.0, 200);
        state.draining.cancel();
        assert_eq!(get(&state, "/readyz").await, (503, "not ok: draining\n".to_owned()));
    }

    #[tokio::test]
    async fn q01_startup_needs_a_token_if_one_is_required() {
        let (state, mut writer) = ops_state(true);
        let state = OpsState { require_token: true, ..state };
        assert_eq!(get(&state, "/startupz").await.1, "not ok: the first token request has not completed yet\n");
        writer.set_status(Phase::Failed(FailureClass::Transient), None, LockoutStatus::default());
        let (status, text) = get(&state, "/startupz").await;
        assert!(status == 503 && text.contains("startup.require_token"), "{text}");
        publish(&mut writer);
        assert_eq!(get(&state, "/startupz").await.0, 200);
        writer.set_status(Phase::Rejected, None, LockoutStatus::default());
        assert_eq!(get(&state, "/startupz").await.0, 200, "startup stays successful");
    }

    #[tokio::test]
    async fn startup_needs_the_credentials() {
        let (state, mut writer) = ops_state(true);
        writer.set_status(Phase::AwaitingCredentials, None, LockoutStatus::default());
        let text = get(&state, "/startupz").await;
        assert_eq!(
            text,
            (503, "not ok: the credentials have not been read yet: the first read has not completed yet\n".to_owned())
        );
        assert!(
            get(&state, "/readyz?verbose")
                .await
                .1
                .contains("next token request: after the credentials have been read, which is in progress\n")
        );
        writer.set_last_error("the store is sealed; unseal it");
        let due = writer.clock().now() + Duration::from_secs(30);
        writer.set_status(Phase::AwaitingCredentials, Some(due), LockoutStatus::default());
        let text = get(&state, "/startupz").await;
        assert_eq!(
            text,
            (503, "not ok: the credentials have not been read yet: the store is sealed; unseal it\n".to_owned())
        );
        assert!(
            get(&state, "/readyz?verbose")
                .await
                .1
                .contains("next token request: after the credentials have been read; next attempt in ")
        );
        assert_eq!(get(&state, "/livez").await.0, 200);
    }

    const LATCHED: LockoutStatus = LockoutStatus {
        latched: true,
        budget_spent: false,
        rejections: 1,
        unresolved: 0,
        held: false,
        unrecorded: false,
        candidate: None,
    };

    #[tokio::test]
    async fn a_startup_failed_by_a_rejection_reports_why() {
        let (state, mut writer) = ops_state(true);
        let (startup_refusal, receiver) = watch::channel(None);
        let state = OpsState { fail_on_rejection: true, startup_refusal: receiver, ..state };
        assert_eq!(get(&state, "/startupz").await.1, "not ok: the first token request has not completed yet\n");
        writer.set_status(Phase::Failed(FailureClass::Transient), None, LockoutStatus::default());
        assert_eq!(get(&state, "/startupz").await.0, 200, "an outage is no rejection");
        writer.set_status(Phase::Rejected, None, LATCHED);
        let (status, text) = get(&state, "/startupz").await;
        assert!(status == 503 && text.starts_with("not ok: the credentials were rejected"), "{text}");
        assert!(text.contains("correct the Secret") && text.contains("finicity-proxy lockout reset"), "{text}");
        // New credentials are tried while the current ones are latched.
        writer.set_status(
            Phase::Idle,
            None,
            LockoutStatus { candidate: Some(token::CandidateState::Waiting), ..LATCHED },
        );
        assert_eq!(get(&state, "/startupz").await.0, 503);
        // After an operator's reset, the previous refusal stays in force until the outcome is known.
        startup_refusal.send_replace(Some(Refusal::Rejected));
        writer.set_status(Phase::Idle, None, LockoutStatus { latched: false, ..LATCHED });
        assert_eq!(get(&state, "/startupz").await.0, 503);
        publish(&mut writer);
        assert_eq!(get(&state, "/startupz").await.0, 200);
        writer.set_status(Phase::Rejected, None, LATCHED);
        assert_eq!(get(&state, "/startupz").await.0, 200, "startup stays successful");
    }

    #[tokio::test]
    async fn a_rejection_does_not_fail_startup_by_default() {
        let (state, mut writer) = ops_state(true);
        writer.set_status(Phase::Rejected, None, LATCHED);
        assert_eq!(get(&state, "/startupz").await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn verbose_readiness_shows_the_reason() {
        let (state, mut writer) = ops_state(true);
        writer.set_status(Phase::Rejected, None, LockoutStatus::default());
        let (status, text) = get(&state, "/readyz?verbose").await;
        assert_eq!(status, 503);
        assert!(text.contains("\ncredentials: from the environment\n"), "{text}");
        assert!(text.contains("token state: rejected\n") && text.contains("next token request: never: "), "{text}");
        assert!(text.contains("`finicity-proxy lockout reset`"), "{text}");
        publish(&mut writer);
        let (status, text) = get(&state, "/readyz?verbose").await;
        assert!(
            status == 200 && text.contains("token state: fresh\n") && text.contains("token version: 1\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn q10_liveness_follows_the_event_loops() {
        assert_eq!(get(&ops_state(true).0, "/livez").await.0, 200);
        assert_eq!(get(&ops_state(false).0, "/livez").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_show_the_token_state_but_not_the_token() {
        let (state, mut writer) = ops_state(true);
        publish(&mut writer);
        let (status, text) = get(&state, "/metrics").await;
        assert_eq!(status, 200);
        for line in ["finicity_proxy_token_version 1", r#"finicity_proxy_token_state{state="fresh"} 1"#] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("canary"));
    }

    #[tokio::test]
    async fn other_paths_are_not_found() {
        assert_eq!(get(&ops_state(true).0, "/aggregation/v1/customers").await.0, 404);
    }
}
