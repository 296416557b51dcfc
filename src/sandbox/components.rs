//! Connect Components: configurations and bank login forms.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::{Call, merge, pick},
    customers::username,
    institutions,
    reply::{Failure, Outcome, Reply},
    route::Route,
    validate::check_body,
    world::World,
};

const AGREEMENT: &str =
    "redirectURI*:u customerId*:s configurationId:g serviceAgreement*:{language*:s acceptedDate*:t}";
const FORM: &str = "language*:s customerId*:s configurationId:g serviceAgreement*:{language*:s acceptedDate*:t}";

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/connect-components/configurations", add)
        .body("filterAccounts:[s(1,512)] accountClassificationType:[s] aoRequired:b"),
    Route::new("GET", "/connect-components/configurations", list),
    Route::new("GET", "/connect-components/configurations/{configuration_id}", one),
    Route::new("DELETE", "/connect-components/configurations/{configuration_id}", remove),
    Route::new("POST", "/connect-components/institutions/{institution_id}/oauth-urls", oauth_url).body(AGREEMENT),
    Route::new("POST", "/connect-components/institutions/{institution_id}/login-forms", login_form).body(FORM),
    Route::new(
        "POST",
        "/connect-components/customers/{customer_id}/institution-login-ids/{institution_login_id}/reconnections",
        reconnect,
    )
    .body(""),
];

const COLLECTION: &str = "configurations";

fn add(world: &mut World, call: &Call) -> Outcome {
    let nth = world.next(COLLECTION);
    let id = world.uuid(&["configuration", &nth]);
    let mut record = json!({"id": id});
    merge(&mut record, &pick(call.body, &["filterAccounts", "accountClassificationType", "aoRequired"]));
    world.put(COLLECTION, &id, record.copy());
    Ok(Reply::json(201, &record))
}

fn list(world: &mut World, _: &Call) -> Outcome {
    Reply::ok(&world.all(COLLECTION).map(Value::copy).collect::<Value>())
}

fn not_found() -> Failure {
    Failure::not_found("1404", "Configuration")
}

fn one(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(world.get(COLLECTION, call.param("configurationId")).ok_or_else(not_found)?)
}

fn remove(world: &mut World, call: &Call) -> Outcome {
    world.remove(COLLECTION, call.param("configurationId")).ok_or_else(not_found)?;
    Reply::empty(204)
}

/// Checks that the bank in the path and the customer in the body exist.
fn check_parties(world: &World, call: &Call) -> Result<(), Failure> {
    if institutions::find(call.param("institutionId")).is_none() {
        return Err(Failure::not_found("1404", "Institution"));
    }
    match world.get("customers", call.text("customerId")) {
        Some(_) => Ok(()),
        None => Err(Failure::invalid("customerId", "a customer")),
    }
}

fn oauth_url(world: &mut World, call: &Call) -> Outcome {
    check_parties(world, call)?;
    let mut body = call.example(world, "oauthUrl");
    body.set("url", &format!("{}/sandbox/connect?customerId={}", call.origin, call.text("customerId")));
    Ok(Reply::json(201, &body))
}

fn login_form(world: &mut World, call: &Call) -> Outcome {
    check_parties(world, call)?;
    Ok(Reply::json(201, &call.example(world, "loginForm")))
}

fn reconnect(world: &mut World, call: &Call) -> Outcome {
    check_body("", call.body)?;
    if username(world, call).starts_with("mfa") {
        return Ok(Reply::json(203, &call.example(world, "mfaChallenges")));
    }
    Ok(Reply::json(201, &call.example(world, "loginForm")))
}
