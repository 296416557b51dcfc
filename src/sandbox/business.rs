//! Businesses of customers.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::{Call, merge, pick},
    dates::date_time,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

const BUSINESS: &str = "name*:s(1,150) personallyLiable*:b \
    address*:{addressLine1:s addressLine2:s city:s state:s country:s(2,2) postalCode:s} phoneNumber*:{countryCode:s(1,3) phoneNo:s(,12)} \
    url:s(,2000) email:s type:s(,150) taxId:s(9,15)";

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/business-services/customers/{customer_id}/businesses", add).body(BUSINESS),
    Route::new("GET", "/business-services/customers/{customer_id}/businesses", of_customer),
    Route::new("GET", "/business-services/businesses/{business_id}", one),
    Route::new("PUT", "/business-services/businesses/{business_id}", change).body(BUSINESS),
];

const MEMBERS: [&str; 11] = [
    "businessId",
    "name",
    "personallyLiable",
    "address",
    "phoneNumber",
    "url",
    "email",
    "type",
    "taxId",
    "createdDate",
    "modifiedDate",
];

fn not_found() -> Failure {
    Failure::not_found("14001", "Business")
}

/// Adds a business. A customer has at most one, because the vendor describes lists with exactly one.
fn add(world: &mut World, call: &Call) -> Outcome {
    if !world.having("businesses", "customerId", call.customer_id()).is_empty() {
        return Err(Failure::new(409, "11000", "The customer already has a business"));
    }
    let id = world.new_id("businesses", &["business", call.customer_id()]);
    let now = date_time(world.now());
    let mut record =
        json!({"businessId": id, "customerId": call.customer_id(), "createdDate": now, "modifiedDate": now});
    merge(&mut record, &pick(call.body, &MEMBERS));
    let shown = pick(&record, &MEMBERS);
    world.put("businesses", &id, record);
    Reply::ok(&shown)
}

fn of_customer(world: &mut World, call: &Call) -> Outcome {
    let rows: Vec<Value> = world
        .having("businesses", "customerId", call.customer_id())
        .into_iter()
        .map(|row| pick(row, &MEMBERS))
        .collect();
    if rows.is_empty() { Err(not_found()) } else { Reply::ok(&Value::from(rows)) }
}

fn one(world: &mut World, call: &Call) -> Outcome {
    let business = world.get("businesses", call.param("businessId")).ok_or_else(not_found)?;
    Reply::ok(&json!([pick(business, &MEMBERS)]))
}

fn change(world: &mut World, call: &Call) -> Outcome {
    let now = date_time(world.now());
    let business = world.get_mut("businesses", call.param("businessId")).ok_or_else(not_found)?;
    merge(business, &pick(call.body, &MEMBERS[1..9]));
    business.set("modifiedDate", &now);
    Reply::ok(&pick(business, &MEMBERS))
}
