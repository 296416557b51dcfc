//! Micro-deposits: two small amounts that the owner of an account confirms.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    accounts,
    call::Call,
    customers::username,
    dates::date_time,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/microentry/v1/customers/{customerId}", start).body(
        "institutionLoginId:s receiver*:{routingNumber*:s(9,9) accountNumber*:s(4,17) accountType*:s name*:s memo:s} callbackUrl:u",
    ),
    Route::new("GET", "/microentry/v1/customers/{customerId}/accounts/{accountId}", status),
    Route::new("POST", "/microentry/v1/customers/{customerId}/accounts/{accountId}/amounts", verify).body("amounts*:[n]"),
];

/// The amounts that the sandbox deposits, in dollars.
const AMOUNTS: [f64; 2] = [0.11, 0.23];

/// Maximum number of wrong amounts.
const MAX_ATTEMPTS: u64 = 3;

fn start(world: &mut World, call: &Call) -> Outcome {
    if username(world, call).starts_with("throttled") {
        return Err(Failure::new(429, "429", "Too many requests"));
    }
    let receiver = call.body.at("receiver");
    let number = receiver.text("accountNumber");
    let id = world.new_id("accounts", &["microentry", call.customer_id(), number]);
    let kind = receiver.at("accountType").as_str().unwrap_or("checking").to_lowercase();
    let last_four: String = number.chars().skip(number.chars().count().saturating_sub(4)).collect();
    let mut account = accounts::record(world, &id, call.customer_id(), "4222", "1009000001", &kind, 1);
    account.set("realAccountNumberLast4", &last_four);
    account.set("accountNumberDisplay", &last_four);
    world.put("accounts", &id, account);
    let deposit = json!({
        "customerId": call.customer_id(), "status": "Completed", "attempts": 0, "routingNumber": receiver.at("routingNumber"),
        "last4": last_four, "created": world.now(),
    });
    world.put("microentries", &id, deposit);
    Reply::ok(&json!({
        "accountId": id, "status": "Pending", "depositCount": AMOUNTS.len(), "statusDescription": "Micro-deposits have been sent",
        "railType": "ach",
    }))
}

fn of_path(world: &World, call: &Call) -> Result<Value, Failure> {
    world
        .get("microentries", call.param("accountId"))
        .map(Value::copy)
        .ok_or_else(|| Failure::not_found("14001", "Micro-deposits"))
}

fn status(world: &mut World, call: &Call) -> Outcome {
    let deposit = of_path(world, call)?;
    Reply::ok(&json!({
        "status": deposit.at("status"), "statusDescription": format!("Micro-deposits: {}", deposit.text("status")),
        "creationDate": date_time(deposit.at("created").as_i64().unwrap_or(0)), "routingNumber": deposit.at("routingNumber"),
        "accountNumberLast4": deposit.at("last4"), "railType": "ach",
    }))
}

fn verify(world: &mut World, call: &Call) -> Outcome {
    let mut deposit = of_path(world, call)?;
    let given: Vec<f64> = call.body.at("amounts").as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    if deposit.at("attempts").as_u64().unwrap_or(0) >= MAX_ATTEMPTS {
        return Err(Failure::new(400, "3200003", "Too many attempts with wrong amounts"));
    }
    let is_near = |given: f64, amount: f64| (given - amount).abs() < 0.001;
    let [first, second] = AMOUNTS;
    let matches = match given[..] {
        [one, other] => {
            (is_near(one, first) && is_near(other, second)) || (is_near(one, second) && is_near(other, first))
        }
        _ => false,
    };
    if !matches {
        deposit.set("attempts", &(deposit.at("attempts").as_u64().unwrap_or(0) + 1));
        world.put("microentries", call.param("accountId"), deposit);
        return Err(Failure::new(400, "3200004", "The amounts do not match"));
    }
    deposit.set("status", &"Verified");
    world.put("microentries", call.param("accountId"), deposit);
    Reply::ok(&json!({"status": "Verified", "statusDescription": "The amounts match"}))
}
