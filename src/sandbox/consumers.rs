//! Consumers: the identity of a customer, required for reports.

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    call::{Call, merge, pick},
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

const NEW: &str = "firstName*:s lastName*:s address:s city:s state*:s zip:s phone:s ssn:s \
    birthday:{year:i month:i(1,12) dayOfMonth:i(1,31)} email:s suffix:s \
    endUser:{name*:s address*:s city*:s state*:s zip*:s phone*:s email:s url:s(2,)}";

const CHANGE: &str = "firstName:s lastName:s address:s city:s state:s zip:s phone:s ssn:s \
    birthday:{year:i month:i(1,12) dayOfMonth:i(1,31)} email:s suffix:s \
    endUser:{name*:s address*:s city*:s state*:s zip*:s phone*:s email:s url:s(2,)}";

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/decisioning/v1/customers/{customerId}/consumer", add).body(NEW),
    Route::new("GET", "/decisioning/v1/customers/{customerId}/consumer", of_customer),
    Route::new("GET", "/decisioning/v1/consumers/{consumerId}", one),
    Route::new("PUT", "/decisioning/v1/consumers/{consumerId}", change).body(CHANGE),
];

/// The members of a consumer that a request can set.
const MEMBERS: [&str; 12] = [
    "firstName",
    "lastName",
    "address",
    "city",
    "state",
    "zip",
    "phone",
    "ssn",
    "birthday",
    "email",
    "suffix",
    "endUser",
];

/// The consumer of the customer `id`.
pub(super) fn of<'a>(world: &'a World, id: &'a str) -> Option<&'a Value> {
    world.having("consumers", "customerId", id).first().copied()
}

/// A new consumer with the members of `body`. Only the last four digits of the SSN are kept, because the API returns no others.
pub(super) fn record(world: &World, id: &str, customer: &str, body: &Value) -> Value {
    let mut record = json!({
        "id": id, "customerId": parse_id(customer), "createdDate": world.now(), "address": "", "city": "", "zip": "",
        "phone": "", "email": "", "ssn": "", "birthday": {"year": 1970, "month": 1, "dayOfMonth": 1},
    });
    apply(&mut record, body);
    record
}

fn apply(record: &mut Value, body: &Value) {
    merge(record, &pick(body, &MEMBERS));
    let digits: Vec<char> = record.text("ssn").chars().filter(char::is_ascii_digit).collect();
    record.set("ssn", &digits[digits.len().saturating_sub(4)..].iter().collect::<String>());
}

fn add(world: &mut World, call: &Call) -> Outcome {
    if of(world, call.customer_id()).is_some() {
        return Err(Failure::new(409, "11000", "The customer already has a consumer"));
    }
    let id = world.hex_id(&["consumer", call.customer_id()]);
    let record = record(world, &id, call.customer_id(), call.body);
    let created = pick(&record, &["id", "createdDate", "customerId"]);
    world.put("consumers", &id, record);
    Ok(Reply::json(201, &created))
}

fn of_customer(world: &mut World, call: &Call) -> Outcome {
    of(world, call.customer_id()).map_or_else(|| Err(Failure::not_found("14001", "Consumer")), Reply::ok)
}

fn one(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(&world.copy("consumers", call.param("consumerId")))
}

fn change(world: &mut World, call: &Call) -> Outcome {
    if let Some(consumer) = world.get_mut("consumers", call.param("consumerId")) {
        apply(consumer, call.body);
    }
    Reply::empty(204)
}
