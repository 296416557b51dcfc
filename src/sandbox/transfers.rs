//! Deposit switches and bill pay switches.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::{Call, pick},
    dates::date_time,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/transfer/customers/{customer_id}/deposit-switches", list),
    Route::new("GET", "/transfer/customers/{customer_id}/deposit-switches/{switch_id}", one),
    Route::new("GET", "/transfer/externals/{external_id}/deposit-switches", of_external),
    Route::new("GET", "/transfer/customers/{customer_id}/bill-pay-switches", list),
    Route::new("GET", "/transfer/customers/{customer_id}/bill-pay-switches/{switch_id}", one),
];

/// Maximum number of switches in a list.
const MAX_LISTED: usize = 10;

/// Adds the switch of a completed Connect flow.
pub(super) fn add(world: &mut World, customer: &str, external: &Value, kind: &str) {
    let nth = world.next("switches");
    let id = world.hex_id(&["switch", customer, kind, &nth])[..24].to_owned();
    let now = date_time(world.now());
    let record = json!({
        "id": id, "customerId": customer, "externalId": external, "kind": kind, "status": "completed", "createdDate": now,
    });
    world.put("switches", &id, record);
}

fn kind(call: &Call) -> &'static str {
    if call.operation.template().contains("bill-pay") { "bill-pay-switch" } else { "deposit-switch" }
}

fn listed(rows: Vec<&Value>, kind: &str) -> Vec<Value> {
    rows.into_iter()
        .filter(|row| row.at("kind") == kind)
        .take(MAX_LISTED)
        .map(|row| pick(row, &["id", "status", "createdDate"]))
        .collect()
}

fn customer_type(world: &World, id: &str) -> Value {
    world.get("customers", id).map_or_else(|| json!("testing"), |customer| customer.at("type").copy())
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let rows = listed(world.having("switches", "customerId", call.customer_id()), kind(call));
    Reply::ok(
        &json!({"customerId": call.customer_id(), "customerType": customer_type(world, call.customer_id()), "switches": rows}),
    )
}

fn of_external(world: &mut World, call: &Call) -> Outcome {
    let external = call.param("externalId");
    let rows = listed(world.having("switches", "externalId", external), kind(call));
    if rows.is_empty() {
        return Err(Failure::not_found("14001", "Deposit switch"));
    }
    Reply::ok(&json!({"externalId": external, "switches": rows}))
}

fn one(world: &mut World, call: &Call) -> Outcome {
    let is_it = |row: &&Value| row.at("customerId") == call.customer_id() && row.at("kind") == kind(call);
    let found = world.get("switches", call.param("switchId")).filter(is_it).map(Value::copy);
    let record = found.ok_or_else(|| Failure::not_found("14001", "Switch"))?;
    let mut shown = call.example(world, kind(call));
    shown.set("switchId", record.at("id"));
    shown.set("switchStatus", record.at("status"));
    shown.set("customerType", &customer_type(world, call.customer_id()));
    shown.set("createdDate", record.at("createdDate"));
    shown.set("updatedDate", record.at("createdDate"));
    Reply::ok(&shown)
}
