//! Request authentication, token requests, and secret rotation.

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    credentials::CREDENTIALS,
    partner::SEED_SEPARATOR,
    recorder::{Credential, FINICITY_APP_TOKEN},
    reply::{Failure, Outcome, Reply, Shape},
    validate::check_body,
    world::World,
};
use crate::token::scheme::FINICITY_APP_KEY;

/// The seed in the client identifier of a token request; empty for the default seed.
pub(super) fn seed_of(body: &Value) -> &str {
    let id = body.at("partnerId").as_str().or_else(|| body.at("client_id").as_str()).unwrap_or("");
    id.strip_prefix(CREDENTIALS.client_id).and_then(|rest| rest.strip_prefix(SEED_SEPARATOR)).unwrap_or("")
}

/// Checks the App Key.
pub(super) fn check_app_key(headers: &HeaderMap) -> Credential {
    match single_value(headers, &FINICITY_APP_KEY) {
        Ok(None) => Credential::Missing,
        Ok(Some(key)) if key == CREDENTIALS.app_key => Credential::Valid,
        _ => Credential::Wrong,
    }
}

/// The token of a request, from `Authorization: Bearer` or `Finicity-App-Token`. `None` when there is no token, an error when there are
/// several or `Authorization` has another scheme.
pub(super) fn token_of(headers: &HeaderMap) -> Result<Option<&str>, ()> {
    match (single_value(headers, &header::AUTHORIZATION)?, single_value(headers, &FINICITY_APP_TOKEN)?) {
        (None, token) => Ok(token),
        (Some(bearer), None) => bearer.strip_prefix("Bearer ").map(Some).ok_or(()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The value of the header `name`; `None` when it is missing, an error when it occurs twice or is not visible ASCII.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(()),
        (value, None) => value.map(|value| value.to_str().map_err(|_| ())).transpose(),
    }
}

/// `POST /oauth/token` with a valid App Key.
pub(super) fn oauth(world: &mut World, headers: &HeaderMap, body: &Value) -> Reply {
    let reject = |status, error: &str| Shape::OAuth.reply(&Failure::new(status, error, "see docs/sandbox.md"));
    if !sends_and_accepts_json(headers) {
        return Shape::Plain.reply(&Failure::new(
            415,
            "10005",
            "a token request must send and accept application/json",
        ));
    }
    let known = ["client_id", "client_secret", "grant_type", "scope"];
    let has_unknown = body.as_object().is_none_or(|members| members.keys().any(|name| !known.contains(&name.as_str())));
    if has_unknown || check_body("client_id*:s client_secret*:s grant_type*:s scope:s", body).is_err() {
        return reject(400, "invalid_request");
    }
    if body.at("grant_type") != "client_credentials" {
        return reject(400, "unsupported_grant_type");
    }
    let now = world.now_ms();
    let text = |name: &str| body.text(name);
    match world.partner.authenticate(text("client_id"), text("client_secret"), now) {
        Ok(()) => {
            let token = world.partner.issue(now);
            let lifetime = world.partner.lifetime().as_secs();
            Reply::json(200, &json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime}))
        }
        Err(locked) if locked.code == "24302" => Shape::Plain.reply(&locked),
        Err(_) => reject(401, "invalid_client"),
    }
}

/// `POST /aggregation/v2/partners/authentication` with a valid App Key.
pub(super) fn partner(world: &mut World, headers: &HeaderMap, body: &Value) -> Reply {
    if !sends_and_accepts_json(headers) {
        // The real host responds in XML when the request does not accept JSON (observed).
        return Shape::Xml.reply(&Failure::new(400, "10005", "send and accept application/json"));
    }
    let known = body
        .as_object()
        .is_some_and(|members| members.keys().all(|name| name == "partnerId" || name == "partnerSecret"));
    let checked = check_body("partnerId*:s partnerSecret*:s", body);
    let outcome = match checked {
        Err(failure) => Err(failure),
        Ok(()) if !known => Err(Failure::new(400, "10005", "Missing or malformed parameter")),
        Ok(()) => {
            let now = world.now_ms();
            let text = |name: &str| body.text(name);
            world.partner.authenticate(text("partnerId"), text("partnerSecret"), now).map(|()| world.partner.issue(now))
        }
    };
    match outcome {
        Ok(token) => Reply::json(200, &json!({"token": token})),
        Err(failure) if failure.status == 404 => Shape::Errors.reply(&failure),
        Err(failure) => Shape::Plain.reply(&failure),
    }
}

/// `PUT /aggregation/v2/partners/authentication`: sets a new secret. The old one stays valid for 30 days unless `immediate` is true.
pub(super) fn rotate(world: &mut World, body: &Value) -> Outcome {
    check_body("partnerId*:s partnerSecret*:s newPartnerSecret*:s immediate:b", body)?;
    let now = world.now_ms();
    let text = |name: &str| body.text(name);
    world.partner.authenticate(text("partnerId"), text("partnerSecret"), now)?;
    world.partner.rotate(text("newPartnerSecret"), body.flag("immediate"), now)?;
    Reply::empty(204)
}

/// Whether `Content-Type` is `application/json` and `Accept` contains it. Clients such as axios send a list in `Accept`.
fn sends_and_accepts_json(headers: &HeaderMap) -> bool {
    let has_json = |name| {
        let types = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").split(',');
        types.map(|kind| kind.split(';').next().unwrap_or("").trim()).any(|kind| kind == "application/json")
    };
    has_json(header::ACCEPT) && has_json(header::CONTENT_TYPE)
}
