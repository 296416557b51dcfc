//! The sandbox's routes, and the checks that stand before all of them.

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
    auth::{Accounts, error},
    data,
    recorder::{Credential, Seen},
    state::Shared,
};

const OAUTH_PATH: &str = "/oauth/token";
const PARTNER_PATH: &str = "/aggregation/v2/partners/authentication";

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(OAUTH_PATH, post(oauth))
        .route(PARTNER_PATH, post(partner))
        .merge(data::routes())
        .fallback(get(not_found).post(not_found).put(not_found).delete(not_found))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), authenticate))
        .with_state(shared)
}

/// Notes what arrived, then lets through what is authenticated. Like the real host, the sandbox tells an unauthenticated
/// caller nothing about its paths.
async fn authenticate(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let app_key = Accounts::app_key(&parts.headers);
    let is_token_call = [OAUTH_PATH, PARTNER_PATH].contains(&parts.uri.path());
    let token = shared.accounts.token(&parts.headers);
    shared.seen.add(Seen::new(&parts, app_key, token));

    let refuse = |code, message| error(StatusCode::UNAUTHORIZED, code, message);
    match (app_key, token, is_token_call) {
        (Credential::Missing, _, _) => refuse("10026", "Missing (Finicity-App-Key)"),
        (Credential::Wrong | Credential::Expired, _, _) => {
            (StatusCode::UNAUTHORIZED, "Invalid (Finicity-App-Key)").into_response()
        }
        (_, Credential::Missing, true) => next.run(Request::from_parts(parts, body)).await,
        (_, _, true) => error(StatusCode::BAD_REQUEST, "10005", "a token call carries no token"),
        (_, Credential::Right, _) => next.run(Request::from_parts(parts, body)).await,
        (_, Credential::Missing, _) => refuse("10024", "Missing (Finicity-App-Token)"),
        (_, Credential::Expired, _) => refuse("10023", "Expired (Finicity-App-Token)"),
        (_, Credential::Wrong, _) => refuse("10022", "Invalid (Finicity-App-Token)"),
    }
}

async fn oauth(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    match json_both_ways(&headers) {
        true => shared.accounts.oauth(&body),
        false => error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "10005", "a token call is JSON in and out"),
    }
}

async fn partner(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    match json_both_ways(&headers) {
        true => shared.accounts.partner(&body),
        // Without a wish for JSON the real host has been seen to answer in XML.
        false => {
            let xml = "<error><code>10005</code><message>send and accept application/json</message></error>";
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/xml")], xml).into_response()
        }
    }
}

fn json_both_ways(headers: &HeaderMap) -> bool {
    let is_json = |name| headers.get(name).map(HeaderValue::as_bytes) == Some(b"application/json");
    is_json(header::ACCEPT) && is_json(header::CONTENT_TYPE)
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "14001", "there is no such operation in the sandbox")
}
