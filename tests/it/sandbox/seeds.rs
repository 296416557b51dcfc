//! Seeds: parallel test suites are isolated, and results are reproducible.

use std::thread;

use serde_json::{Value, json};

use crate::support::{
    client::Client,
    sandbox::{Caller, JsonClient, SANDBOX_ID, Sandbox},
};

/// The test suite of a service: ten cases that would fail if calls of another suite reached the same records.
fn suite(client: &mut impl JsonClient) {
    // 1: only the built-in customer.
    let list =
        |client: &mut dyn FnMut(&str) -> Value, query: &str| client(&format!("/aggregation/v1/customers{query}"));
    let mut get = |target: &str| client.ok(200, "GET", target, &Value::Null);
    assert_eq!(list(&mut get, "")["found"], 1);
    // 2: the username is free.
    let created = client.ok(201, "POST", "/aggregation/v2/customers/testing", &json!({"username": "suite"}));
    let id = created["id"].as_str().unwrap().to_owned();
    // 3: then it is taken.
    client.ok(409, "POST", "/aggregation/v2/customers/testing", &json!({"username": "suite"}));
    // 4: a change is visible.
    client.ok(204, "PUT", &format!("/aggregation/v1/customers/{id}"), &json!({"firstName": "Suite"}));
    assert_eq!(client.ok(200, "GET", &format!("/aggregation/v1/customers/{id}"), &Value::Null)["firstName"], "Suite");
    // 5: accounts of one bank.
    client.ok(200, "POST", &format!("/aggregation/v1/customers/{id}/institutions/4222/accounts/addall"), &json!({}));
    let accounts = client.ok(200, "GET", &format!("/aggregation/v1/customers/{id}/accounts"), &Value::Null);
    let account = accounts["accounts"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 3);
    // 6: one added transaction.
    let path = format!("/aggregation/v1/customers/{id}/accounts/{account}/transactions");
    client.ok(201, "POST", &path, &json!({"amount": -1.0, "description": "ours", "transactionDate": 1_900_000_000}));
    let newest =
        format!("/aggregation/v4/customers/{id}/accounts/{account}/transactions?fromDate=1899999999&toDate=2000000000");
    assert_eq!(client.ok(200, "GET", &newest, &Value::Null)["found"], 1);
    // 7: the first report.
    client.ok(
        201,
        "POST",
        &format!("/decisioning/v1/customers/{id}/consumer"),
        &json!({"firstName": "S", "lastName": "T", "state": "UT"}),
    );
    client.ok(202, "POST", &format!("/decisioning/v2/customers/{id}/voa"), &json!({}));
    assert_eq!(
        client.ok(200, "GET", &format!("/decisioning/v1/customers/{id}/reports"), &Value::Null)["reports"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // 8: one business.
    let business = json!({
        "name": "B", "personallyLiable": false, "address": {"city": "X"}, "phoneNumber": {"countryCode": "1", "phoneNo": "5550100142"},
    });
    client.ok(200, "POST", &format!("/business-services/customers/{id}/businesses"), &business);
    client.ok(409, "POST", &format!("/business-services/customers/{id}/businesses"), &business);
    // 9: a fault applies only to the next call of this suite.
    client.ok(204, "POST", "/sandbox/faults", &json!({"operation": "GET /applications", "status": 400, "count": 1}));
    client.ok(400, "GET", "/applications", &Value::Null);
    client.ok(200, "GET", "/applications", &Value::Null);
    // 10: a removed customer is gone.
    client.ok(204, "DELETE", &format!("/aggregation/v1/customers/{id}"), &Value::Null);
    assert_eq!(client.ok(200, "GET", "/aggregation/v1/customers", &Value::Null)["found"], 1);
    client.ok(204, "POST", "/sandbox/reset", &Value::Null);
}

/// A client of a proxy that sends its seed in each request.
struct Seeded<'a> {
    client: Client,
    header: &'a str,
}

impl JsonClient for Seeded<'_> {
    fn json(&mut self, method: &str, target: &str, lines: &[&str], body: &Value) -> crate::support::client::Response {
        let lines: Vec<&str> = lines.iter().copied().chain([self.header]).collect();
        self.client.json(method, target, &lines, body)
    }
}

#[test]
fn parallel_suites_on_one_proxy_are_isolated_by_a_header() {
    let sandbox = Sandbox::start(&[]);
    let proxy = sandbox.proxy(SANDBOX_ID, &[]);
    thread::scope(|scope| {
        for header in ["X-Sandbox-Seed: one", "X-Sandbox-Seed: two"] {
            let proxy = &proxy;
            scope.spawn(move || (0..5).for_each(|_| suite(&mut Seeded { client: proxy.connect(), header })));
        }
    });
}

#[test]
fn parallel_suites_on_two_proxies_are_isolated_by_client_id() {
    let sandbox = Sandbox::start(&[]);
    let proxies = ["sandbox-client.one", "sandbox-client.two"].map(|id| sandbox.proxy(id, &[]));
    thread::scope(|scope| {
        for (proxy, header) in proxies.iter().zip(["X-Sandbox-Seed: one", "X-Sandbox-Seed: two"]) {
            // API calls are distinguished by their token. The control API ignores the token, so its calls send the seed in a header.
            scope.spawn(move || suite(&mut Seeded { client: proxy.connect(), header }));
        }
    });
    let mut one = proxies[0].connect();
    one.ok(201, "POST", "/aggregation/v2/customers/testing", &json!({"username": "only-one"}));
    assert_eq!(one.ok(200, "GET", "/aggregation/v1/customers", &Value::Null)["found"], 2);
    assert_eq!(proxies[1].connect().ok(200, "GET", "/aggregation/v1/customers", &Value::Null)["found"], 1);
}

#[test]
fn the_same_seed_gives_the_same_identifiers_and_history() {
    let observe = |arguments: &[&str], id: &str| {
        let sandbox = Sandbox::start(arguments);
        let mut caller = Caller::new(&sandbox, id);
        let customer =
            caller.ok(201, "POST", "/aggregation/v2/customers/testing", &json!({"username": "same"}))["id"].clone();
        let history = "/aggregation/v4/customers/1005061234/accounts/5011648377/transactions?fromDate=0&toDate=4000000000&limit=50";
        let amounts: Vec<Value> = caller.ok(200, "GET", history, &Value::Null)["transactions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| json!([row["id"], row["amount"]]))
            .collect();
        (customer, amounts)
    };
    let first = observe(&["--seed", "7"], SANDBOX_ID);
    assert_eq!(first, observe(&["--seed", "7"], SANDBOX_ID));
    assert_ne!(first.0, observe(&["--seed", "8"], SANDBOX_ID).0);
    assert_ne!(first.0, observe(&["--seed", "7"], "sandbox-client.other").0);
}

#[test]
fn a_seed_is_a_short_word_and_can_be_removed() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    caller.json("GET", "/aggregation/v1/customers", &["X-Sandbox-Seed: mine"], &Value::Null);
    assert_eq!(caller.ok(200, "GET", "/sandbox/seeds", &Value::Null), json!({"seeds": ["", "mine"]}));
    caller.ok(204, "DELETE", "/sandbox/seeds/mine", &Value::Null);
    caller.ok(404, "DELETE", "/sandbox/seeds/mine", &Value::Null);
    let refused = caller.json("GET", "/aggregation/v1/customers", &["X-Sandbox-Seed: no spaces"], &Value::Null);
    assert_eq!(refused.status, 400, "{}", refused.text());
}
