//! Tokens, lock-out, expiry, rotation, and their error responses.

use serde_json::{Value, json};

use crate::support::{
    client::Response,
    sandbox::{Caller, JsonClient as _, SANDBOX_APP_KEY, SANDBOX_ID, SANDBOX_SECRET, Sandbox, TlsClient},
};

const PARTNER: &str = "/aggregation/v2/partners/authentication";

fn key() -> String {
    format!("Finicity-App-Key: {SANDBOX_APP_KEY}")
}

fn token_request(client: &mut TlsClient, secret: &str) -> Response {
    client.json("POST", PARTNER, &[&key()], &json!({"partnerId": SANDBOX_ID, "partnerSecret": secret}))
}

#[track_caller]
fn check(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.text().contains(code), "{}", response.text());
}

#[test]
fn five_wrong_secrets_lock_the_partner_until_it_is_reset() {
    let sandbox = Sandbox::start(&[]);
    let mut client = sandbox.connect();
    for _ in 0..5 {
        check(&token_request(&mut client, "wrong"), 401, "10001");
    }
    check(&token_request(&mut client, SANDBOX_SECRET), 500, "24302");
    let oauth = json!({"client_id": SANDBOX_ID, "client_secret": SANDBOX_SECRET, "grant_type": "client_credentials"});
    check(&client.json("POST", "/oauth/token", &[&key()], &oauth), 500, "24302");
    assert_eq!(client.ok(200, "GET", "/sandbox/state", &Value::Null)["partner"]["locked"], true);
    client.ok(200, "PUT", "/sandbox/partner", &json!({"locked": false}));
    check(&token_request(&mut client, SANDBOX_SECRET), 200, "token");
}

#[test]
fn several_tokens_are_valid_at_once_and_expire_by_the_clock() {
    let sandbox = Sandbox::start(&["--token-lifetime", "1h"]);
    let mut first = Caller::new(&sandbox, SANDBOX_ID);
    first.ok(200, "POST", "/sandbox/clock", &json!({"advance": "40m"}));
    let mut second = Caller::new(&sandbox, SANDBOX_ID);
    assert_ne!(first.token, second.token);
    first.ok(200, "GET", "/aggregation/v1/customers", &Value::Null);
    second.ok(200, "GET", "/aggregation/v1/customers", &Value::Null);
    first.ok(200, "POST", "/sandbox/clock", &json!({"advance": "40m"}));
    check(&first.json("GET", "/aggregation/v1/customers", &[], &Value::Null), 401, "10023");
    second.ok(200, "GET", "/aggregation/v1/customers", &Value::Null);
    second.ok(204, "POST", "/sandbox/tokens/expire", &Value::Null);
    check(&second.json("GET", "/aggregation/v1/customers", &[], &Value::Null), 401, "10023");
}

#[test]
fn a_secret_is_rotated_with_and_without_a_grace_period() {
    let sandbox = Sandbox::start(&[]);
    let mut client = sandbox.connect();
    let rotate = |client: &mut TlsClient, old: &str, new: &str, immediate: bool| {
        let body =
            json!({"partnerId": SANDBOX_ID, "partnerSecret": old, "newPartnerSecret": new, "immediate": immediate});
        client.json("PUT", PARTNER, &[&key()], &body)
    };
    check(&rotate(&mut client, SANDBOX_SECRET, "tooshort1!", false), 400, "24437");
    check(&rotate(&mut client, SANDBOX_SECRET, "no-digit-in-this", false), 400, "24437");
    assert_eq!(rotate(&mut client, SANDBOX_SECRET, "second-Secret-2!", false).status, 204);
    // Both are accepted for 30 days, then only the new one.
    check(&token_request(&mut client, SANDBOX_SECRET), 200, "token");
    check(&token_request(&mut client, "second-Secret-2!"), 200, "token");
    client.ok(200, "POST", "/sandbox/clock", &json!({"advance": "31days"}));
    check(&token_request(&mut client, SANDBOX_SECRET), 401, "10001");
    assert_eq!(rotate(&mut client, "second-Secret-2!", "third-Secret-3!", true).status, 204);
    check(&token_request(&mut client, "second-Secret-2!"), 401, "10001");
    check(&token_request(&mut client, "third-Secret-3!"), 200, "token");
}

#[test]
fn a_token_request_may_accept_further_media_types() {
    let sandbox = Sandbox::start(&[]);
    let mut client = sandbox.connect();
    let body = json!({"partnerId": SANDBOX_ID, "partnerSecret": SANDBOX_SECRET});
    for (accept, status) in [("application/json, text/plain, */*", 200), ("text/plain", 400)] {
        let response = client.json("POST", PARTNER, &[&key(), &format!("Accept: {accept}")], &body);
        assert_eq!(response.status, status, "{accept}: {}", response.text());
    }
}

#[test]
fn every_wrong_credential_has_its_own_code() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let token = format!("Finicity-App-Token: {}", caller.token);
    let path = "/aggregation/v1/customers";
    let client = &mut caller.client;
    check(&client.json("GET", path, &[&token], &Value::Null), 401, "10026");
    let wrong = client.json("GET", path, &["Finicity-App-Key: wrong", &token], &Value::Null);
    check(&wrong, 401, "Invalid (Finicity-App-Key)");
    assert_eq!(wrong.header("content-type"), Some("text/plain"));
    check(&client.json("GET", path, &[&key(), &key(), &token], &Value::Null), 401, "Invalid (Finicity-App-Key)");
    check(&client.json("GET", path, &[&key()], &Value::Null), 401, "10024");
    check(&client.json("GET", path, &[&key(), "Finicity-App-Token: x"], &Value::Null), 401, "10022");
    let both = format!("Authorization: Bearer {}", caller.token);
    check(&caller.client.json("GET", path, &[&key(), &token, &both], &Value::Null), 401, "10022");
    let unknown = json!({"partnerId": "unknown", "partnerSecret": "x"});
    check(&caller.client.json("POST", PARTNER, &[&key()], &unknown), 404, "12401");
    check(&caller.client.json("POST", PARTNER, &[&key()], &json!({})), 400, "partnerId");
    // Clients that do not ask for JSON get XML.
    let xml =
        caller.client.call("POST", PARTNER, &[&key(), "Content-Length: 2", "Content-Type: application/json"], b"{}");
    assert_eq!((xml.status, xml.header("content-type")), (400, Some("application/xml")));
}
