//! Request handling: faults, authentication, validation, the handler, recording, and webhooks.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    auth,
    body::{Pace, SandboxBody},
    call::{Call, camel_case},
    control,
    faults::Effect,
    received::Received,
    recorder::{Credential, RecordedRequest},
    reply::{Before, Failure, JSON, Reply, Shape},
    route::Route,
    routes,
    state::SandboxState,
    validate,
    value::Record as _,
    world::World,
};
use crate::vendor::catalogue::{Catalogue, Operation};

/// Maximum size of a request body.
const MAX_BODY: usize = 16 << 20;

const OAUTH_PATH: &str = "/oauth/token";
const PARTNER_PATH: &str = "/aggregation/v2/partners/authentication";

/// The connection must be reset instead of sending a response.
#[derive(Debug, thiserror::Error)]
#[error("scripted connection reset")]
pub(super) struct Reset;

/// The response to `request`.
///
/// # Errors
///
/// [`Reset`] when a fault resets the connection.
pub(super) async fn respond(
    state: Arc<SandboxState>,
    request: Request<Incoming>,
) -> Result<Response<SandboxBody>, Reset> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(response(Failure::new(413, "14020", "the request body exceeds 16 MiB").plain(), &Effect::default()));
    };
    let bytes = body.to_bytes();
    let received = Received { parts, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), bytes };
    let (mut reply, effect) = match received.path().starts_with("/sandbox/") {
        true => (control::respond(&state, &received), Effect::default()),
        false => respond_to_call(&state, &received),
    };
    match std::mem::take(&mut reply.before) {
        Before::Nothing => {}
        Before::Ping(ping) => {
            if let Err(error) = state.delivery.send(&ping).await {
                let message = format!("Invalid parameter (webhook): the ping was not accepted: {error}");
                reply = Failure::new(400, "14020", &message).plain();
            }
        }
        Before::Verification { url, code } => {
            if state.delivery.fetch(&url).await.is_none_or(|text| text.trim() != code) {
                let message = "Invalid parameter (callbackUrl): the verification code was not returned";
                reply = Failure::new(400, "14020", message).plain();
            }
        }
        Before::Events { webhooks, body } => {
            let events = state.delivery.send_all(&webhooks).await;
            if let Some(mut body) = body {
                body.set("webhooks", &events);
                reply = Reply::json(200, &body);
            }
        }
    }
    state.delivery.enqueue(std::mem::take(&mut reply.webhooks));
    if !effect.latency.is_zero() {
        sleep(effect.latency).await;
    }
    if effect.reset { Err(Reset) } else { Ok(response(reply, &effect)) }
}

/// The response to an API call, and the effect of the fault that applies to it.
fn respond_to_call(state: &SandboxState, received: &Received) -> (Reply, Effect) {
    let path = received.path();
    let operation = Catalogue::us().find(&received.parts.method, path);
    let token = auth::token_of(&received.parts.headers);
    let is_token_request = received.parts.method == http::Method::POST && [OAUTH_PATH, PARTNER_PATH].contains(&path);
    let issuer = match token {
        Ok(Some(token)) => state.issuer_of(token),
        _ if path == PARTNER_PATH || is_token_request => Some(auth::seed_of(&received.body).to_owned()),
        _ => None,
    };
    let issuer = issuer.unwrap_or_default();
    let partner = state.with(&issuer, |world| {
        let token = match token {
            Ok(None) => Credential::Missing,
            Ok(Some(token)) => world.partner.check_token(token, world.now_ms()),
            Err(()) => Credential::Wrong,
        };
        (token, world.partner.id().to_owned(), world.partner.secret().to_owned())
    });
    let seed = if is_token_request { &issuer } else { received.seed().unwrap_or(&issuer) };
    let outcome = partner.and_then(|(token, id, secret)| {
        state.with(seed, |world| {
            let mut call = Call {
                operation,
                params: parameters(operation, path),
                query: received.query(),
                headers: &received.parts.headers,
                body: &received.body,
                origin: received.origin(),
                partner_id: id,
                partner_secret: secret,
            };
            handle(world, received, &mut call, token)
        })
    });
    outcome.unwrap_or_else(|error| (Failure::new(400, "sandbox_seed", error).plain(), Effect::default()))
}

fn handle(world: &mut World, received: &Received, call: &mut Call, token: Credential) -> (Reply, Effect) {
    let app_key = auth::check_app_key(call.headers);
    let (method, path) = (received.parts.method.as_str(), received.path());
    let label = match call.operation.is_other() {
        true => format!("{method} {path}"),
        false => format!("{} {}", call.operation.method(), call.operation.template()),
    };
    let salt = world.hash(&["fault"]).to_string();
    let draws = |draw: &str| world_hash(&salt, draw);
    let effect = world.faults.apply(&label, path, draws);
    let reply = match effect.reply(|status| Shape::of(call.operation.template(), status)) {
        Some(reply) => reply,
        None => authenticated(world, received, call, app_key, token),
    };
    world.recorder.add(RecordedRequest::new(&received.parts, app_key, token), reply.status);
    (reply, effect)
}

/// A deterministic pseudo-random number, compared with a fault's probability.
fn world_hash(salt: &str, draw: &str) -> u64 {
    let joined = format!("{salt}/{draw}");
    joined.bytes().fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        >> 20
}

/// Runs the operation if the request is authenticated. Like the real host, the sandbox reveals nothing about its paths otherwise.
fn authenticated(
    world: &mut World,
    received: &Received,
    call: &mut Call,
    app_key: Credential,
    token: Credential,
) -> Reply {
    let template = call.operation.template();
    let reject = |code: &str, message: &str| Failure::new(401, code, message).reply(template);
    let is_post = received.parts.method == http::Method::POST;
    let path = received.path();
    let needs_no_token = path == PARTNER_PATH || (is_post && path == OAUTH_PATH);
    match (app_key, token) {
        (Credential::Missing, _) => reject("10026", "Missing (Finicity-App-Key)"),
        (Credential::Wrong | Credential::Expired, _) => {
            let failure = Failure::new(401, "10027", "Invalid (Finicity-App-Key)");
            if call.has_text_errors() { Shape::Text.reply(&failure) } else { failure.reply(call.operation.template()) }
        }
        (_, Credential::Missing) if needs_no_token => match (is_post, path) {
            (true, OAUTH_PATH) => auth::oauth(world, call.headers, call.body),
            (true, _) => auth::partner(world, call.headers, call.body),
            (false, _) if received.parts.method == http::Method::PUT => {
                auth::rotate(world, call.body).unwrap_or_else(|failure| failure.reply(call.operation.template()))
            }
            (false, _) => unknown(received),
        },
        (_, _) if needs_no_token => {
            Failure::new(400, "10005", "a token request must not carry a token").reply(template)
        }
        (_, Credential::Missing) => reject("10024", "Missing (Finicity-App-Token)"),
        (_, Credential::Expired) => reject("10023", "Expired (Finicity-App-Token)"),
        (_, Credential::Wrong) => reject("10022", "Invalid (Finicity-App-Token)"),
        (_, Credential::Valid) => match routes::find(call.operation) {
            Some(route) => run(world, received, call, route),
            None => unknown(received),
        },
    }
}

/// Validates `call`, checks that the resources in its path exist, and calls its handler.
fn run(world: &mut World, received: &Received, call: &Call, route: &Route) -> Reply {
    let checked = validate::check_query(route.query, &call.query).and_then(|()| match route.body {
        Some(_) if call.body.is_null() && !received.bytes.is_empty() => Err(Failure::invalid("body", "JSON")),
        Some(spec) => validate::check_body(spec, call.body),
        None => Ok(()),
    });
    let outcome = checked.and_then(|()| exists(world, call)).and_then(|()| (route.handler)(world, call));
    outcome.unwrap_or_else(|mut failure| {
        if failure.status == 404
            && call.operation.template() == "/aggregation/v3/customers/{customerId}/accounts/{accountId}/owner"
        {
            // The only operation on a customer that documents no 404.
            failure.status = 400;
        }
        failure.reply(call.operation.template())
    })
}

/// Checks that the customer, account, login and consumer in the path exist.
fn exists(world: &World, call: &Call) -> Result<(), Failure> {
    let param = |name: &str| Some(call.param(name)).filter(|value| !value.is_empty());
    let customer = param("customerId");
    if customer.is_some_and(|id| world.get("customers", id).is_none()) {
        return Err(Failure::not_found("14001", "Customer"));
    }
    let of_customer = |account: &Value| customer.is_none_or(|id| account.at("customerId") == id);
    if param("accountId").is_some_and(|id| !world.get("accounts", id).is_some_and(of_customer)) {
        return Err(Failure::not_found("38003", "Account"));
    }
    let login = param("institutionLoginId");
    if login.is_some_and(|id| !world.having("accounts", "institutionLoginId", id).into_iter().any(of_customer)) {
        return Err(Failure::not_found("38003", "Institution login"));
    }
    if param("consumerId").is_some_and(|id| world.get("consumers", id).is_none()) {
        return Err(Failure::not_found("14001", "Consumer"));
    }
    Ok(())
}

/// The path parameters: names from the template, in camel case, with their values in `path`.
fn parameters(operation: Operation, path: &str) -> Vec<(String, String)> {
    let template = operation.template().split('/');
    let named = template.zip(path.split('/')).filter_map(|(name, value)| {
        let name = name.strip_prefix('{')?.strip_suffix('}')?;
        Some((camel_case(name), value.to_owned()))
    });
    named.collect()
}

fn unknown(received: &Received) -> Reply {
    let message = format!(
        "unknown operation {} {}; docs/sandbox.md lists the operations",
        received.parts.method,
        received.path()
    );
    Failure::new(404, "unknown_operation", &message).plain()
}

fn response(reply: Reply, effect: &Effect) -> Response<SandboxBody> {
    let Reply { status, content_type, body, location, .. } = reply;
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(if content_type.is_empty() { JSON } else { content_type }),
        );
    }
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(seconds) = effect.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if content_type == super::reply::HTML {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
        );
    }
    let mut response = Response::new(SandboxBody::new(body, effect.pace.unwrap_or(Pace::Whole)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}
