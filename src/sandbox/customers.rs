//! Customers.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::{Call, merge, pick},
    paging::Page,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

const NEW: &str = "username*:s firstName:s lastName:s applicationId:s phone:s email:s";

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/aggregation/v1/customers", list).query(LIST),
    Route::new("GET", "/aggregation/v2/customers", list).query(LIST),
    Route::new("POST", "/aggregation/v1/customers/active", add).body(NEW),
    Route::new("POST", "/aggregation/v1/customers/testing", add).body(NEW),
    Route::new("POST", "/aggregation/v2/customers/active", add).body(NEW),
    Route::new("POST", "/aggregation/v2/customers/testing", add).body(NEW),
    Route::new("GET", "/aggregation/v1/customers/{customerId}", one),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/application", with_application),
    Route::new("PUT", "/aggregation/v1/customers/{customerId}", change).body("firstName:s lastName:s phone:s email:s"),
    Route::new("DELETE", "/aggregation/v1/customers/{customerId}", remove),
    Route::new("PUT", "/aggregation/v1/customers/{customerId}/applications/{applicationId}", assign_application),
];

const LIST: &str = "username:s type:e(testing|active) search:s start:i(1,) limit:i(1,1000)";

/// The collections with records that belong to a customer and are removed with it.
const OWNED: [&str; 9] =
    ["accounts", "businesses", "consents", "consumers", "injected", "links", "reports", "subscriptions", "switches"];

/// A new customer's record.
pub(super) fn record(world: &World, id: &str, kind: &str, body: &Value) -> Value {
    let now = world.now().to_string();
    let mut record = json!({"id": id, "type": kind, "createdDate": now, "lastModifiedDate": now});
    merge(&mut record, &pick(body, &["username", "firstName", "lastName", "phone", "email", "applicationId"]));
    record
}

/// The username of the customer in the path. Some usernames trigger special behaviour; `docs/sandbox.md` lists them.
#[inline(never)]
pub(super) fn username<'a>(world: &'a World, call: &Call) -> &'a str {
    world.get("customers", call.customer_id()).map_or("", |customer| customer.text("username"))
}

/// The members of a customer in lists; `GET …/{customerId}` returns more.
fn listed(record: &Value) -> Value {
    pick(
        record,
        &["id", "username", "firstName", "lastName", "phone", "email", "type", "createdDate", "lastModifiedDate"],
    )
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let search = call.query("search").unwrap_or("").to_lowercase();
    let matches = |customer: &&Value| {
        let text = |name: &str| customer.text(name).to_lowercase();
        let names = format!("{} {} {}", text("username"), text("firstName"), text("lastName"));
        call.query("username").is_none_or(|username| customer.at("username") == username)
            && call.query("type").is_none_or(|kind| customer.at("type") == kind)
            && names.contains(&search)
    };
    let rows = world.all("customers").filter(matches).map(listed).collect();
    Reply::ok(&Page::of(call, 25).wrap("customers", rows))
}

fn add(world: &mut World, call: &Call) -> Outcome {
    let kind = if call.operation.template().ends_with("/testing") { "testing" } else { "active" };
    let username = call.text("username");
    if !world.having("customers", "username", username).is_empty() {
        return Err(Failure::new(409, "11000", &format!("A customer with the username {username} already exists")));
    }
    let id = world.new_id("customers", &["customer", username]);
    let record = record(world, &id, kind, call.body);
    let created = world.now();
    world.put("customers", &id, record);
    Ok(Reply::json(201, &json!({"id": id, "username": username, "createdDate": created})))
}

fn of_path(world: &World, call: &Call) -> Value {
    world.copy("customers", call.customer_id())
}

fn one(world: &mut World, call: &Call) -> Outcome {
    let customer = of_path(world, call);
    let mut shown = listed(&customer);
    merge(&mut shown, &pick(&customer, &["applicationId"]));
    Reply::ok(&shown)
}

fn with_application(world: &mut World, call: &Call) -> Outcome {
    let customer = of_path(world, call);
    let mut shown = listed(&customer);
    merge(&mut shown, &pick(&customer, &["applicationId"]));
    if let Some(application) = customer.at("applicationId").as_str() {
        let known =
            world.having("applications", "applicationId", application).first().map(|known| known.at("appName").copy());
        shown.set("applicationName", &known.unwrap_or_else(|| json!("Sandbox application")));
    }
    Reply::ok(&shown)
}

fn change(world: &mut World, call: &Call) -> Outcome {
    let changes = pick(call.body, &["firstName", "lastName", "phone", "email"]);
    if changes.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Failure::missing("firstName or lastName"));
    }
    let now = world.now().to_string();
    if let Some(customer) = world.get_mut("customers", call.customer_id()) {
        merge(customer, &changes);
        customer.set("lastModifiedDate", &now);
    }
    Reply::empty(204)
}

fn remove(world: &mut World, call: &Call) -> Outcome {
    world.remove("customers", call.customer_id());
    for collection in OWNED {
        world.remove_having(collection, "customerId", call.customer_id());
    }
    Reply::empty(204)
}

fn assign_application(world: &mut World, call: &Call) -> Outcome {
    let application = call.param("applicationId").to_owned();
    if let Some(customer) = world.get_mut("customers", call.customer_id()) {
        customer.set("applicationId", &application);
    }
    Reply::empty(200)
}
