//! Connect links: the page, webhooks, and flows without a browser.

use serde_json::{Value, json};

use crate::support::{
    client::Response,
    sandbox::{Caller, Delivery, JsonClient as _, Receiver, SANDBOX_ID, Sandbox, TlsClient},
};

fn generate(caller: &mut Caller, more: Value) -> String {
    let mut body = json!({"partnerId": SANDBOX_ID, "customerId": "1005061234"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    caller.ok(200, "POST", "/connect/v2/generate", &body)["link"].as_str().unwrap().to_owned()
}

/// The path and query of a link to the page of the sandbox.
fn target(sandbox: &Sandbox, link: &str) -> String {
    assert!(link.starts_with("https://localhost"), "{link}");
    assert_eq!(link.matches("signature=").count(), 1);
    let _ = sandbox;
    link["https://".len()..].split_once('/').map(|(_, rest)| format!("/{rest}")).unwrap()
}

fn post_form(client: &mut TlsClient, target: &str, form: &str) -> Response {
    let length = format!("Content-Length: {}", form.len());
    client.call("POST", target, &["Content-Type: application/x-www-form-urlencoded", &length], form.as_bytes())
}

fn events(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.json()["eventType"].as_str().unwrap().to_owned()).collect()
}

/// Compares the signature with one by the sandbox, which a unit test compares with a known value.
#[track_caller]
fn check_signature(sandbox: &Sandbox, delivery: &Delivery) {
    let length = format!("Content-Length: {}", delivery.body.len());
    let signed = sandbox.connect().call("POST", "/sandbox/sign", &[&length], &delivery.body);
    let signature: Value = serde_json::from_slice(&signed.body).unwrap();
    assert_eq!(delivery.header("x-finicity-signature"), signature["signature"].as_str());
}

#[test]
fn the_page_completes_a_flow_and_sends_signed_webhooks() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let receiver = Receiver::start(204);
    let link = generate(
        &mut caller,
        json!({
            "webhook": receiver.url(), "webhookData": {"order": "17"}, "webhookHeaders": {"X-Mine": "yes"}, "consumerId": "c1",
            "redirectUri": "https://app.example.com/back?x=1", "singleUseUrl": true,
        }),
    );
    let ping = receiver.wait_for(1);
    assert_eq!(ping[0].json(), json!({"eventType": "ping", "payload": {}}));
    let target = target(&sandbox, &link);
    let mut browser = sandbox.connect();
    let page = browser.get(&target);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("Sandbox Bank OAuth") && !page.text().contains("<script"), "{}", page.text());
    assert!(post_form(&mut browser, &target, "action=done&consent=yes").text().contains("choose a bank"));
    assert!(post_form(&mut browser, &target, "action=done&institution=102105").text().contains("agree"));
    let done = post_form(&mut browser, &target, "action=done&institution=102105&consent=yes");
    assert_eq!(
        (done.status, done.header("location")),
        (303, Some("https://app.example.com/back?x=1&code=200&reason=complete"))
    );
    let deliveries = receiver.wait_for(6);
    assert_eq!(events(&deliveries), ["ping", "started", "adding", "discovered", "added", "done"]);
    for delivery in &deliveries {
        check_signature(&sandbox, delivery);
        assert_eq!(delivery.header("x-mine"), Some("yes"));
    }
    let added = deliveries[4].json();
    assert_eq!(
        (&added["customerId"], &added["consumerId"], &added["webhookData"]["order"]),
        (&json!("1005061234"), &json!("c1"), &json!("17"))
    );
    assert_eq!(added["payload"]["accounts"].as_array().unwrap().len(), 3);
    let ids: std::collections::BTreeSet<_> =
        deliveries[1..].iter().map(|event| event.json()["eventId"].to_string()).collect();
    assert_eq!(ids.len(), 5);
    assert!(browser.get(&target).text().contains("already been used"));
    let consents = caller.ok(200, "GET", "/data-sharing-consents?customer_id=1005061234", &Value::Null);
    assert_eq!(consents["found"], 1);
}

#[test]
fn a_cancelled_flow_adds_nothing() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let link = generate(&mut caller, json!({}));
    let target = target(&sandbox, &link);
    let mut browser = sandbox.connect();
    assert!(post_form(&mut browser, &target, "action=cancel").text().contains("Cancelled"));
    let list = caller.ok(200, "GET", "/aggregation/v1/customers/1005061234/accounts", &Value::Null);
    assert_eq!(list["accounts"].as_array().unwrap().len(), 2);
    // A link cannot be changed, and it expires.
    assert_eq!(browser.get(&target.replace("signature=", "signature=0")).status, 403);
    caller.ok(200, "POST", "/sandbox/clock", &json!({"advance": "2h"}));
    assert_eq!(browser.get(&target).status, 403);
}

#[test]
fn a_webhook_that_rejects_the_ping_fails_the_link() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let receiver = Receiver::start(500);
    let body = json!({"partnerId": SANDBOX_ID, "customerId": "1005061234", "webhook": receiver.url()});
    let error = caller.ok(400, "POST", "/connect/v2/generate", &body);
    assert!(error["message"].as_str().unwrap().contains("(webhook)"), "{error}");
}

#[test]
fn one_call_completes_a_flow_without_a_browser() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let receiver = Receiver::start(200);
    let link = generate(&mut caller, json!({"webhook": receiver.url()}));
    let done = caller.ok(200, "POST", "/sandbox/connect/complete", &json!({"link": link, "institutionId": "200106"}));
    assert_eq!(done["accounts"].as_array().unwrap().len(), 2);
    assert_eq!(done["webhooks"].as_array().unwrap().len(), 5);
    assert_eq!(done["webhooks"][4], json!({"eventType": "done", "status": 200}));
    assert_eq!(events(&receiver.wait_for(6))[5], "done");
    let fix = json!({
        "partnerId": SANDBOX_ID, "customerId": "1005061234", "webhook": receiver.url(),
        "institutionLoginId": done["accounts"][0]["institutionLoginId"].to_string(),
    });
    let link = caller.ok(200, "POST", "/connect/v2/generate/fix", &fix)["link"].clone();
    caller.ok(200, "POST", "/sandbox/connect/complete", &json!({"link": link}));
    assert_eq!(events(&receiver.wait_for(10))[7..], ["started", "credentialsUpdated", "done"]);
}
