//! Subscriptions to events (`/notification-subscriptions`, the legacy API).

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::{Call, merge, pick},
    dates::date_time,
    reply::{Failure, Outcome, Reply, Webhook},
    route::Route,
    world::World,
};

const SUBSCRIPTION: &str = "url:s(1,2048) events*:[{name*:s(1,255) url:s(1,2048) condition:{subscribeFor*:s(1,50) includes:[s] excludes:[s]}}]";
const EVENT: &str = "name*:s(1,255) url:s(1,2048) condition:{subscribeFor*:s(1,50) includes:[s] excludes:[s]}";
const STATUS: &str = "status*:e(active|inactive|pending|removed)";

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/notification-subscriptions/webhooks", add).body(SUBSCRIPTION),
    Route::new("GET", "/notification-subscriptions/webhooks", list).query("offset:i(1,) limit:i(1,100)"),
    Route::new("GET", "/notification-subscriptions/webhooks/events", available),
    Route::new("GET", "/notification-subscriptions/webhooks/{subscription_id}", one),
    Route::new("PUT", "/notification-subscriptions/webhooks/{subscription_id}", change).body(SUBSCRIPTION),
    Route::new("DELETE", "/notification-subscriptions/webhooks/{subscription_id}", remove),
    Route::new("PUT", "/notification-subscriptions/webhooks/{subscription_id}/status", set_status).body(STATUS),
    Route::new("GET", "/notification-subscriptions/webhooks/{subscription_id}/test-subscriptions", test),
    Route::new("PUT", "/notification-subscriptions/webhooks/{subscription_id}/events/{webhook_event_id}", change_event)
        .body(EVENT),
    Route::new(
        "DELETE",
        "/notification-subscriptions/webhooks/{subscription_id}/events/{webhook_event_id}",
        remove_event,
    ),
    Route::new(
        "PUT",
        "/notification-subscriptions/webhooks/{subscription_id}/events/{webhook_event_id}/status",
        set_event_status,
    )
    .body(STATUS),
    Route::new(
        "GET",
        "/notification-subscriptions/webhooks/{subscription_id}/events/{webhook_event_id}/test-subscriptions",
        test,
    ),
];

/// The collection of the records.
const COLLECTION: &str = "webhooks";

fn not_found(what: &str) -> Failure {
    Failure::not_found("1404", what)
}

/// The events in the body, each with an identifier and a status.
fn events(world: &World, call: &Call, subscription: &str) -> Vec<Value> {
    let given = call.body.at("events").as_array().cloned().unwrap_or_default();
    let events = given.into_iter().map(|mut event| {
        let name = event.text("name").to_owned();
        event.set("webhookEventId", &world.uuid(&["event", subscription, &name]));
        event.set("status", &"active");
        event
    });
    events.collect()
}

fn add(world: &mut World, call: &Call) -> Outcome {
    let nth = world.next(COLLECTION);
    let id = world.uuid(&["webhook", &nth]);
    let now = date_time(world.now());
    let mut record = json!({
        "subscriptionId": id, "events": events(world, call, &id), "status": "active", "createdDate": now, "lastUpdatedDate": now,
    });
    merge(&mut record, &pick(call.body, &["url"]));
    world.put(COLLECTION, &id, record.copy());
    Ok(Reply::json(201, &record))
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let number =
        |name, default: usize| call.number(name).and_then(|number| usize::try_from(number).ok()).unwrap_or(default);
    let (offset, limit) = (number("offset", 1), number("limit", 25));
    let total = world.all(COLLECTION).count();
    let rows: Vec<Value> = world.all(COLLECTION).skip(offset - 1).take(limit).map(Value::copy).collect();
    if rows.is_empty() {
        return Err(not_found("Subscription"));
    }
    Reply::ok(&json!({"count": rows.len(), "offset": offset, "limit": limit, "total": total, "subscriptions": rows}))
}

fn available(_: &mut World, _: &Call) -> Outcome {
    let names = ["started", "adding", "added", "discovered", "done", "credentialsUpdated", "accountsDeleted"];
    let events = names.map(|name| {
        json!({
            "name": name, "status": "active", "description": format!("A Connect flow sends {name}."),
            "conditionalSubscription": {"applicable": false, "fields": "none", "mandatory": false},
        })
    });
    Reply::ok(&json!({"events": events}))
}

fn of_path<'a>(world: &'a mut World, call: &Call) -> Result<&'a mut Value, Failure> {
    world.get_mut(COLLECTION, call.param("subscriptionId")).ok_or_else(|| not_found("Subscription"))
}

fn event_of_path<'a>(world: &'a mut World, call: &Call) -> Result<&'a mut Value, Failure> {
    let subscription = of_path(world, call)?;
    let mut events = subscription.at_mut("events").as_array_mut().into_iter().flatten();
    events.find(|event| event.at("webhookEventId") == call.param("webhookEventId")).ok_or_else(|| not_found("Event"))
}

fn one(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(of_path(world, call)?)
}

fn change(world: &mut World, call: &Call) -> Outcome {
    let now = date_time(world.now());
    let events = events(world, call, call.param("subscriptionId"));
    let subscription = of_path(world, call)?;
    subscription.set("events", &events);
    subscription.set("lastUpdatedDate", &now);
    merge(subscription, &pick(call.body, &["url"]));
    Reply::ok(subscription)
}

fn remove(world: &mut World, call: &Call) -> Outcome {
    of_path(world, call)?;
    world.remove(COLLECTION, call.param("subscriptionId"));
    Reply::empty(204)
}

fn set_status(world: &mut World, call: &Call) -> Outcome {
    of_path(world, call)?.set("status", call.body.at("status"));
    Reply::ok(&pick(call.body, &["status"]))
}

fn set_event_status(world: &mut World, call: &Call) -> Outcome {
    event_of_path(world, call)?.set("status", call.body.at("status"));
    Reply::ok(&pick(call.body, &["status"]))
}

fn change_event(world: &mut World, call: &Call) -> Outcome {
    let event = event_of_path(world, call)?;
    merge(event, &pick(call.body, &["name", "url", "condition"]));
    Reply::ok(&pick(event, &["name", "url", "condition"]))
}

fn remove_event(world: &mut World, call: &Call) -> Outcome {
    event_of_path(world, call)?;
    let id = call.param("webhookEventId");
    if let Some(events) = of_path(world, call)?["events"].as_array_mut() {
        events.retain(|event| event.at("webhookEventId") != id);
    }
    Reply::empty(204)
}

/// Sends a test event to the URL of the event, or else of the subscription.
fn test(world: &mut World, call: &Call) -> Outcome {
    let event = if call.param("webhookEventId").is_empty() { None } else { Some(event_of_path(world, call)?.copy()) };
    let subscription = of_path(world, call)?;
    let event = event.unwrap_or_else(|| subscription.at("events")[0].copy());
    let mut reply = Reply { status: 200, ..Reply::default() };
    if let Some(url) = event.at("url").as_str().or_else(|| subscription.at("url").as_str()) {
        let body = json!({"eventType": event.at("name"), "subscriptionId": subscription.at("subscriptionId"), "payload": {"test": true}});
        reply.webhooks.push(Webhook {
            url: url.to_owned(),
            body,
            headers: Vec::new(),
            secret: Some(call.partner_secret.clone()),
        });
    }
    Ok(reply)
}
