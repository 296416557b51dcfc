//! An end-to-end test in a real browser: a customer is created, a Connect link is requested without `partnerId`, its page is completed in
//! Chromium, the proxy verifies the signed webhooks and forwards them to the service, and accounts, transactions and a statement are read
//! through the proxy.
//!
//! `journey.mjs` drives Chromium with `playwright-core`. If either is missing, a notice is printed; with `JOURNEY=required`, which
//! `.ci/full` sets, the test fails.

use std::{env, process::Command};

use serde_json::{Value, json};

use crate::support::sandbox::{JsonClient as _, Receiver, SANDBOX_ID, Sandbox, notice};

/// Completes the page at `link`, and returns the text of the last page. `None` if there is no browser.
fn finish_in_browser(link: &str) -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sandbox/journey.mjs");
    let output = Command::new("node").arg(script).arg(link).output();
    let missing = match &output {
        Err(_) => true,
        Ok(output) => output.status.code() == Some(77),
    };
    if missing {
        notice("journey: node, playwright-core or Chromium is missing, so the page was not opened in a browser");
        assert_ne!(env::var_os("JOURNEY").as_deref(), Some("required".as_ref()), "{output:?}");
        return None;
    }
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_customer_connects_a_bank_in_a_browser() {
    let sandbox = Sandbox::start(&[]);
    let receiver = Receiver::start(200);
    let variables = [("FINICITY__WEBHOOK__LISTEN", "127.0.0.1:0"), ("FINICITY__WEBHOOK__FORWARD_TO", &receiver.url())];
    let proxy = sandbox.proxy(SANDBOX_ID, &variables);
    let webhook = format!("http://{}/webhooks", proxy.webhook.unwrap());
    let mut service = proxy.connect();
    let created = service.ok(
        201,
        "POST",
        "/aggregation/v2/customers/testing",
        &json!({"username": "journey", "firstName": "Grace"}),
    );
    let customer = created["id"].as_str().unwrap();
    let link = json!({"customerId": customer, "webhook": webhook});
    let link = service.ok(200, "POST", "/connect/v2/generate", &link)["link"].as_str().unwrap().to_owned();
    let Some(page) = finish_in_browser(&link) else { return };
    assert!(page.contains("The accounts are connected"), "{page}");

    // The ping gets a local reply of the proxy.
    let deliveries = receiver.wait_for(5);
    let done = deliveries.last().unwrap();
    assert_eq!((&done.json()["eventType"], &done.json()["customerId"]), (&json!("done"), &json!(customer)));
    assert_eq!(done.header("x-finicity-proxy-verified"), Some("true"));

    let accounts = service.ok(200, "GET", &format!("/aggregation/v1/customers/{customer}/accounts"), &Value::Null);
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 2);
    let account = accounts["accounts"][0]["id"].as_str().unwrap();
    let history =
        format!("/aggregation/v4/customers/{customer}/accounts/{account}/transactions?fromDate=0&toDate=4000000000");
    assert!(service.ok(200, "GET", &history, &Value::Null)["found"].as_u64().unwrap() > 100);
    let statement = service.get(&format!("/aggregation/v1/customers/{customer}/accounts/{account}/statement"));
    assert!(statement.status == 200 && statement.body.starts_with(b"%PDF-1.4"));
}
