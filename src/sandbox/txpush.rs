//! Transaction notifications (TxPush).
//!
//! Notifications are not signed, because the vendor does not document how it signs them.

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    call::{Call, pick},
    reply::{Before, Failure, Outcome, Reply, Webhook},
    route::Route,
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/txpush", subscribe)
        .body("callbackUrl*:u"),
    Route::new("DELETE", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/txpush", unsubscribe),
    Route::new("DELETE", "/aggregation/v1/customers/{customerId}/subscriptions/{subscriptionId}", remove),
];

/// Adds two subscriptions, one for the account and one for its transactions. The callback is verified first: it is requested with the query
/// parameter `txpush_verification_code` and must return its value as text.
fn subscribe(world: &mut World, call: &Call) -> Outcome {
    let account = call.param("accountId");
    let url = call.text("callbackUrl");
    world.remove_having("subscriptions", "accountId", account);
    let mut shown = Vec::new();
    for kind in ["account", "transaction"] {
        let id = world.new_id("subscriptions", &["subscription", account, kind]);
        let record = json!({
            "id": parse_id(&id), "accountId": parse_id(account), "customerId": call.customer_id(), "type": kind,
            "callbackUrl": url, "signingKey": world.hex_id(&["signing key", account, kind]),
        });
        shown.push(pick(&record, &["id", "accountId", "type", "callbackUrl", "signingKey"]));
        world.put("subscriptions", &id, record);
    }
    let code = world.hex_id(&["verification", account]);
    let separator = if url.contains('?') { '&' } else { '?' };
    let mut reply = Reply::json(201, &json!({"subscriptions": shown}));
    let url = format!("{url}{separator}txpush_verification_code={code}");
    reply.before = Before::Verification { url, code };
    Ok(reply)
}

fn unsubscribe(world: &mut World, call: &Call) -> Outcome {
    match world.remove_having("subscriptions", "accountId", call.param("accountId")) {
        0 => Err(Failure::not_found("14001", "Subscription")),
        _ => Reply::empty(204),
    }
}

fn remove(world: &mut World, call: &Call) -> Outcome {
    let id = call.param("subscriptionId");
    let is_theirs =
        world.get("subscriptions", id).is_some_and(|subscription| subscription.at("customerId") == call.customer_id());
    if !is_theirs {
        return Err(Failure::not_found("14001", "Subscription"));
    }
    world.remove("subscriptions", id);
    Reply::empty(204)
}

/// The notifications of a new `transaction` of `account`.
pub(super) fn events(world: &World, account: &str, transaction: &Value) -> Vec<Webhook> {
    let subscriptions =
        world.having("subscriptions", "accountId", account).into_iter().filter(|row| row.at("type") == "transaction");
    let events = subscriptions.map(|row| Webhook {
        url: row.text("callbackUrl").to_owned(),
        body: json!({"event": {"class": "transaction", "type": "created", "records": [transaction]}}),
        headers: Vec::new(),
        secret: None,
    });
    events.collect()
}
