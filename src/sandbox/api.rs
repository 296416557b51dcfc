//! The routes of the sandbox, and the authentication in front of them.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    auth::{Accounts, error_response},
    data,
    recorder::{Credential, RecordedRequest},
    state::SandboxState,
};

const OAUTH_PATH: &str = "/oauth/token";
const PARTNER_PATH: &str = "/aggregation/v2/partners/authentication";

pub(super) fn router(state: Arc<SandboxState>) -> Router {
    Router::new()
        .route(OAUTH_PATH, post(oauth))
        .route(PARTNER_PATH, post(partner))
        .merge(data::routes())
        .fallback(get(not_found).post(not_found).put(not_found).delete(not_found))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), authenticate))
        .with_state(state)
}

/// Records each request, then passes on the authenticated ones. Like the real host, the sandbox reveals nothing about its paths
/// to an unauthenticated client.
async fn authenticate(State(state): State<Arc<SandboxState>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let app_key = Accounts::check_app_key(&parts.headers);
    let is_token_request = [OAUTH_PATH, PARTNER_PATH].contains(&parts.uri.path());
    let token = state.accounts.check_token(&parts.headers);
    state.recorder.add(RecordedRequest::new(&parts, app_key, token));

    let reject = |code, message| error_response(StatusCode::UNAUTHORIZED, code, message);
    match (app_key, token, is_token_request) {
        (Credential::Missing, _, _) => reject("10026", "Missing (Finicity-App-Key)"),
        (Credential::Wrong | Credential::Expired, _, _) => {
            (StatusCode::UNAUTHORIZED, "Invalid (Finicity-App-Key)").into_response()
        }
        (_, Credential::Missing, true) => next.run(Request::from_parts(parts, body)).await,
        (_, _, true) => error_response(StatusCode::BAD_REQUEST, "10005", "a token call carries no token"),
        (_, Credential::Valid, _) => next.run(Request::from_parts(parts, body)).await,
        (_, Credential::Missing, _) => reject("10024", "Missing (Finicity-App-Token)"),
        (_, Credential::Expired, _) => reject("10023", "Expired (Finicity-App-Token)"),
        (_, Credential::Wrong, _) => reject("10022", "Invalid (Finicity-App-Token)"),
    }
}

async fn oauth(State(state): State<Arc<SandboxState>>, headers: HeaderMap, body: Bytes) -> Response {
    match sends_and_accepts_json(&headers) {
        true => state.accounts.issue_oauth_token(&body),
        false => error_response(StatusCode::UNSUPPORTED_MEDIA_TYPE, "10005", "a token call is JSON in and out"),
    }
}

async fn partner(State(state): State<Arc<SandboxState>>, headers: HeaderMap, body: Bytes) -> Response {
    match sends_and_accepts_json(&headers) {
        true => state.accounts.issue_partner_token(&body),
        // The real host has been observed to respond in XML to a request that does not accept JSON.
        false => {
            let xml = "<error><code>10005</code><message>send and accept application/json</message></error>";
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/xml")], xml).into_response()
        }
    }
}

fn sends_and_accepts_json(headers: &HeaderMap) -> bool {
    let is_json = |name| headers.get(name).map(HeaderValue::as_bytes) == Some(b"application/json");
    is_json(header::ACCEPT) && is_json(header::CONTENT_TYPE)
}

async fn not_found() -> Response {
    error_response(StatusCode::NOT_FOUND, "14001", "there is no such operation in the sandbox")
}
