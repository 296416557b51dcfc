//! The initial records of a seed: one customer with two accounts, so that a first call returns data, or the records of a file.

use serde_json::{Map, Value};

use super::value::{Record as _, json};
use super::{accounts, consumers, customers, world::World};

/// The built-in customer.
pub(super) const FIRST_CUSTOMER: &str = "1005061234";

/// Identifier and type of its accounts.
const FIRST_ACCOUNTS: [(&str, &str); 2] = [("5011648377", "checking"), ("5011648378", "savings")];

pub(super) fn add_first_customer(world: &mut World) {
    let body = json!({
        "username": "sandbox-customer", "firstName": "Ada", "lastName": "Lovelace", "address": "1 Analytical Way", "city": "Salt Lake City",
        "state": "UT", "zip": "84101", "phone": "555-010-0199", "ssn": "999-60-1815", "email": "ada@example.com",
        "birthday": {"year": 1980, "month": 12, "dayOfMonth": 10},
    });
    let customer = customers::record(world, FIRST_CUSTOMER, "testing", &body);
    world.put("customers", FIRST_CUSTOMER, customer);
    let id = world.hex_id(&["consumer", FIRST_CUSTOMER]);
    let consumer = consumers::record(world, &id, FIRST_CUSTOMER, &body);
    world.put("consumers", &id, consumer);
    for (position, (id, kind)) in (1..).zip(FIRST_ACCOUNTS) {
        let mut account = accounts::record(world, id, FIRST_CUSTOMER, "4222", "1007302745", kind, position);
        account.set("historic", &true);
        world.put("accounts", id, account);
    }
}

/// Replaces all records of `world` with those of `fixture`, in the format of [`World::dump`]. Accounts need only `customerId` and `type`;
/// their other members are filled in.
///
/// # Errors
///
/// A message with the name of the first invalid collection.
pub(super) fn load(world: &mut World, fixture: &Value) -> Result<(), String> {
    let Some(collections) = fixture.as_object() else { return Err("a fixture must be a JSON object".to_owned()) };
    for (name, records) in collections {
        let is_record = |record: &Value| name == "counters" || record.is_object();
        if !records.as_object().is_some_and(|records: &Map<String, Value>| records.values().all(is_record)) {
            return Err(format!("{name}: a collection must be an object with a record for each identifier"));
        }
    }
    world.replace(collections.clone());
    accounts::complete_fixture(world);
    Ok(())
}
