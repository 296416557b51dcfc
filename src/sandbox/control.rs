//! The control API under `/sandbox/`, with which tests control the sandbox itself. It requires no credentials.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    connect,
    faults::Fault,
    fixtures,
    received::Received,
    reply::{Before, Failure, Reply, TEXT},
    state::SandboxState,
    validate::check_body,
    world::World,
};

/// The endpoints, as `GET /sandbox/` lists them.
const ENDPOINTS: &str = "\
GET    /sandbox/                   this list
GET    /sandbox/health             200 while the sandbox is running
GET    /sandbox/ca.pem             the CA certificate
GET    /sandbox/state              the time, the partner and the faults of a seed
POST   /sandbox/reset              resets a seed to its initial state
GET    /sandbox/seeds              the seeds
DELETE /sandbox/seeds/{seed}       removes a seed
GET    /sandbox/faults             the faults
POST   /sandbox/faults             adds a fault, or an array of faults
DELETE /sandbox/faults             removes all faults
GET    /sandbox/fixtures           all records
PUT    /sandbox/fixtures           replaces all records
POST   /sandbox/clock              {\"advance\":\"2h\"} or {\"now\":1767225600}: moves the clock
POST   /sandbox/tokens/expire      expires all tokens
PUT    /sandbox/partner            {\"locked\":true,\"tokenLifetime\":\"5m\"}
GET    /sandbox/requests           the recorded requests
DELETE /sandbox/requests           removes the recorded requests
GET    /sandbox/connect            the page of a Connect link
POST   /sandbox/connect/complete   {\"link\":\"...\",\"institutionId\":\"4222\"}: completes a flow without a browser
POST   /sandbox/sign               returns the webhook signature of the request body

Select a seed with the header X-Sandbox-Seed or with ?seed=NAME.
";

/// Handles a request under `/sandbox/`.
pub(super) fn respond(state: &SandboxState, received: &Received) -> Reply {
    let query = received.query();
    let named = query.iter().find(|(name, _)| name == "seed").map(|(_, value)| value.as_str());
    let seed = received.seed().or(named).unwrap_or("").to_owned();
    let method = &received.parts.method;
    let path = received.path().strip_prefix("/sandbox").unwrap_or("");
    match (method, path) {
        (&Method::GET | &Method::POST, "/connect") => connect::page::respond(state, received),
        (&Method::POST, "/connect/complete") => complete(state, received, &seed),
        (&Method::GET, "/") => Reply::bytes(200, TEXT, ENDPOINTS.as_bytes().to_vec()),
        (&Method::GET, "/health") => Reply::json(200, &json!({"status": "ok"})),
        (&Method::GET, "/ca.pem") => Reply::bytes(200, TEXT, state.initial.ca_pem.clone().into_bytes()),
        (&Method::GET, "/seeds") => Reply::json(200, &json!({"seeds": state.seeds()})),
        (&Method::DELETE, path) if path.starts_with("/seeds/") => match state.remove(&path["/seeds/".len()..]) {
            true => Reply { status: 204, ..Reply::default() },
            false => Failure::not_found("sandbox_seed", "Seed").plain(),
        },
        _ => {
            let done = state.with(&seed, |world| control(state, world, method, path, received));
            match done {
                Ok(Ok(reply)) => reply,
                Ok(Err(failure)) => failure.plain(),
                Err(error) => Failure::new(400, "sandbox_seed", error).plain(),
            }
        }
    }
}

fn done() -> Result<Reply, Failure> {
    Ok(Reply { status: 204, ..Reply::default() })
}

fn control(
    state: &SandboxState,
    world: &mut World,
    method: &Method,
    path: &str,
    received: &Received,
) -> Result<Reply, Failure> {
    let body = &received.body;
    match (method, path) {
        (&Method::GET, "/state") => Ok(Reply::json(
            200,
            &json!({
                "seed": world.name, "now": world.now(), "partner": world.partner.status(), "faults": world.faults.list(),
            }),
        )),
        (&Method::POST, "/reset") => {
            *world = state.initial.world(&world.name);
            done()
        }
        (&Method::GET, "/faults") => Ok(Reply::json(200, &world.faults.list())),
        (&Method::POST, "/faults") => {
            let given = body.as_array().map_or_else(|| std::slice::from_ref(body), Vec::as_slice);
            let faults: Result<Vec<Fault>, String> = given.iter().map(Fault::parse).collect();
            world.faults.add(faults.map_err(|error| Failure::new(400, "sandbox_fault", &error))?);
            done()
        }
        (&Method::DELETE, "/faults") => {
            world.faults.clear();
            done()
        }
        (&Method::GET, "/fixtures") => Ok(Reply::json(200, &world.dump())),
        (&Method::PUT, "/fixtures") => {
            fixtures::load(world, body).map_err(|error| Failure::new(400, "sandbox_fixture", &error))?;
            done()
        }
        (&Method::POST, "/clock") => clock(world, body),
        (&Method::POST, "/tokens/expire") => {
            world.partner.expire_tokens();
            done()
        }
        (&Method::PUT, "/partner") => partner(world, body),
        (&Method::GET, "/requests") => Ok(Reply::json(200, &json!({"requests": world.recorder.shown()}))),
        (&Method::DELETE, "/requests") => {
            world.recorder.take();
            done()
        }
        (&Method::POST, "/sign") => Ok(Reply::json(200, &json!({"signature": connect::sign(world, &received.bytes)}))),
        _ => Err(Failure::new(
            404,
            "unknown_control",
            &format!("no endpoint {method} /sandbox{path}; GET /sandbox/ lists the endpoints"),
        )),
    }
}

fn duration(body: &Value, name: &str) -> Result<Option<Duration>, Failure> {
    let Some(text) = body.at(name).as_str() else { return Ok(None) };
    humantime::parse_duration(text).map(Some).map_err(|_| Failure::invalid(name, "a duration such as 90m"))
}

/// Moves the clock of the seed by a duration or to a time. Tokens and links age accordingly.
fn clock(world: &mut World, body: &Value) -> Result<Reply, Failure> {
    check_body("advance:s now:i", body)?;
    if let Some(now) = body.at("now").as_i64() {
        world.move_clock((now - world.now()).saturating_mul(1000));
    }
    if let Some(time) = duration(body, "advance")? {
        world.move_clock(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    }
    Ok(Reply::json(200, &json!({"now": world.now()})))
}

fn partner(world: &mut World, body: &Value) -> Result<Reply, Failure> {
    check_body("locked:b tokenLifetime:s", body)?;
    if let Some(lifetime) = duration(body, "tokenLifetime")? {
        world.partner.set_lifetime(lifetime);
    }
    if let Some(locked) = body.at("locked").as_bool() {
        world.partner.set_locked(locked);
    }
    Ok(Reply::json(200, &world.partner.status()))
}

/// Completes the flow of a link; the response has its accounts and the result of each webhook.
fn complete(state: &SandboxState, received: &Received, seed: &str) -> Reply {
    if let Err(failure) = check_body("link*:s institutionId:s", &received.body) {
        return failure.plain();
    }
    let query = received.body.at("link").as_str().and_then(|link| link.split_once('?')).map_or("", |(_, query)| query);
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let value = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let signature = value("signature").unwrap_or("");
    let completed = state.with(value("seed").unwrap_or(seed), |world| -> Result<connect::Completed, Failure> {
        let link = connect::usable(world, signature).map_err(|reason| Failure::new(404, "sandbox_link", reason))?;
        let chosen = received.body.at("institutionId").as_str().unwrap_or("4222");
        let bank =
            connect::bank_of(world, &link, Some(chosen)).ok_or_else(|| Failure::invalid("institutionId", "a bank"))?;
        Ok(connect::complete(world, signature, &link, bank))
    });
    match completed {
        Ok(Ok(completed)) => {
            let body = Some(json!({"accounts": completed.accounts}));
            Reply { before: Before::Events { webhooks: completed.webhooks, body }, ..Reply::default() }
        }
        Ok(Err(failure)) => failure.plain(),
        Err(error) => Failure::new(400, "sandbox_seed", error).plain(),
    }
}
