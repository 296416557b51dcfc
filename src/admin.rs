//! The administrator's listener, on loopback only: what the proxy knows about itself, to read.
//!
//! Deliberately absent: anything secret, and anything that changes the proxy.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

use crate::{
    guard::{HostGuard, Refusal},
    token::TokenReader,
};

/// What the administrator may look at.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The token, and what the refresher says of it.
    pub token: TokenReader,
    /// Cancelled as soon as the process drains.
    pub draining: CancellationToken,
    /// Where requests are forwarded to.
    pub upstream: String,
    /// When the process started.
    pub started: Instant,
}

/// `GET /api/status`, for callers that use a loopback name and are no web page.
pub fn router(parts: Parts) -> Router {
    let guard = Arc::new(HostGuard::new(Vec::new()));
    Router::new()
        .route("/api/status", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, "this port has GET /api/status\n") })
        .layer(middleware::from_fn_with_state(guard, admit))
        .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(CatchPanicLayer::new())
        .with_state(parts)
}

async fn admit(State(guard): State<Arc<HostGuard>>, request: Request, next: Next) -> Response {
    match guard.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal::NoHost) => (StatusCode::BAD_REQUEST, "exactly one valid Host header is needed\n").into_response(),
        Err(Refusal::OtherHost) => {
            (StatusCode::MISDIRECTED_REQUEST, "this port answers to loopback names only\n").into_response()
        }
        Err(Refusal::WebPage) => (StatusCode::FORBIDDEN, "requests from web pages are refused\n").into_response(),
    }
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    uptime_s: u64,
    upstream: String,
    draining: bool,
    token: Token,
}

#[derive(Serialize)]
struct Token {
    state: &'static str,
    version: u64,
    usable_for_s: u64,
    next_attempt_in_s: Option<u64>,
}

async fn status(State(parts): State<Parts>) -> Json<Status> {
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: parts.started.elapsed().as_secs(),
        upstream: parts.upstream,
        draining: parts.draining.is_cancelled(),
        token: Token {
            state: parts.token.state().as_str(),
            version: parts.token.version(),
            usable_for_s: parts.token.remaining().as_secs(),
            next_attempt_in_s: parts.token.until_next_attempt().map(|wait| wait.as_secs()),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::token::{Clock, channel};

    async fn get(fields: &[(&str, &str)]) -> (u16, String) {
        let (_writer, token) = channel(Clock::Boot, Duration::from_secs(2));
        let parts = Parts {
            token,
            draining: CancellationToken::new(),
            upstream: "https://api.finicity.com".to_owned(),
            started: Instant::now(),
        };
        let mut request = Request::get("/api/status");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = router(parts).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_status_is_told_to_local_programs() {
        let (status, text) = get(&[("host", "localhost:3466")]).await;
        assert_eq!(status, 200);
        assert!(
            text.contains(r#""token":{"state":"empty","version":0,"usable_for_s":0,"next_attempt_in_s":null}"#),
            "{text}"
        );
    }

    #[tokio::test]
    async fn web_pages_and_other_names_are_refused() {
        assert_eq!(get(&[]).await.0, 400);
        assert_eq!(get(&[("host", "attacker.example")]).await.0, 421);
        assert_eq!(get(&[("host", "localhost"), ("origin", "https://evil.example")]).await.0, 403);
    }
}
