//! The customers, in memory.

use std::{
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// The id of the customer that exists from the start.
pub(super) const FIRST_CUSTOMER: u64 = 1_005_061_234;

/// The customers, which requests add and remove.
#[derive(Debug)]
pub(super) struct CustomerStore {
    customers: Mutex<Vec<Value>>,
}

impl CustomerStore {
    pub(super) fn new() -> Self {
        let first = customer(FIRST_CUSTOMER, "sandbox-customer", "Ada", "Lovelace");
        Self { customers: Mutex::new(vec![first]) }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        work(&mut self.customers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn find(&self, id: u64) -> Option<Value> {
        let id = Value::from(id.to_string());
        self.with(|customers| customers.iter().find(|customer| customer["id"] == id).cloned())
    }
}

#[expect(clippy::disallowed_methods, reason = "a date of the API")]
pub(super) fn customer(id: u64, username: &str, first_name: &str, last_name: &str) -> Value {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "id": id.to_string(), "username": username, "firstName": first_name, "lastName": last_name,
        "type": "testing", "createdDate": created.to_string(),
    })
}
