//! Connect: links to the sandbox's own page, which adds a bank's accounts and notifies the partner.

pub(super) mod page;

use ring::hmac;
use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    accounts,
    call::{Call, merge, pick},
    consents, delivery,
    institutions::{self, Bank},
    reply::{Before, Failure, Outcome, Reply, Webhook},
    route::Route,
    transfers,
    world::World,
};

/// Validity of a link.
const LINK_LIFETIME_MS: i64 = 2 * 3600 * 1000;

/// Adds the members that all kinds of links share.
macro_rules! link {
    ($members:literal) => {
        concat!(
            "language:s partnerId*:s redirectUri:s webhook:u webhookContentType:s webhookData:o webhookHeaders:o experience:s \
             singleUseUrl:b isHostedInMobileApp:b isWebView:b fromDate:i reportCustomFields:[{label:s value:s shown:b}] institutionSettings:o ",
            $members
        )
    };
}

const CONSUMER: &str = link!("customerId*:s consumerId:s optionalConsumerInfo:{ssn*:s dob:i}");
const LITE: &str = link!("customerId*:s institutionId*:i");
const FIX: &str = link!("customerId*:s institutionLoginId*:s");
const EMAIL: &str = link!(
    "customerId*:s consumerId*:s optionalConsumerInfo:{ssn*:s dob:i} \
     email*:{to*:s from:s supportPhone:s subject:s firstName:s institutionName:s institutionAddress:s signature:[s]}"
);
const JOINT: &str = link!("borrowers*:[{customerId*:s consumerId*:s type*:s optionalConsumerInfo:{ssn*:s dob:i}}](1,)");
const JOINT_EMAIL: &str = link!(
    "experience*:s borrowers*:[{customerId*:s consumerId*:s type*:s optionalConsumerInfo:{ssn*:s dob:i}}](1,) \
     email*:{to*:s from:s supportPhone:s subject:s firstName:s institutionName:s institutionAddress:s signature:[s]}"
);
const MICRO: &str = "partnerId:s customerId:s redirectUri:s webhook:u webhookContentType:s webhookData:o webhookHeaders:o experience:s \
    accountId:s";
const BILL_PAY: &str = link!(
    "customerId*:s singleUseUrl*:b serviceAgreement:{language*:s acceptedDate*:t} \
     accounts:[{accountNumber*:s(4,17) bankIdentifier*:s(9,9) title:s type*:s}] \
     cards*:[{title*:s number*:s(15,19) expiry*:s cvv*:s(3,4) brand:s}](1,) \
     identity*:{firstName*:s(,50) lastName*:s(,50) zipCode*:s(5,10) address*:s(,100) address2:s(,100) city*:s(,100) state*:s(,2) phone:s(,15) \
     email:s(,100)}"
);
const DEPOSIT: &str = link!(
    "customerId*:s serviceAgreement:{language*:s acceptedDate*:t} external:{id*:s context*:e(EMAIL|SMS|WEB|MOBILE)} \
     accounts*:[{accountNumber*:s(4,17) bankIdentifier*:s(9,9) title:s type*:s}]"
);

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/connect/v1/generate", generate).body(CONSUMER),
    Route::new("POST", "/connect/v2/generate", generate).body(CONSUMER),
    Route::new("POST", "/connect/v2/generate/lite", generate).body(LITE),
    Route::new("POST", "/connect/v2/generate/fix", generate).body(FIX),
    Route::new("POST", "/connect/v2/generate/jointBorrower", generate).body(JOINT),
    Route::new("POST", "/connect/v2/generate/microentry/verify", generate).body(MICRO),
    Route::new("POST", "/connect/v1/send/email", generate).body(EMAIL),
    Route::new("POST", "/connect/v2/send/email", generate).body(EMAIL),
    Route::new("POST", "/connect/v2/send/email/jointBorrower", generate).body(JOINT_EMAIL),
    Route::new("POST", "/connect/generate/transfer/bill-pay-switch", generate).body(BILL_PAY),
    Route::new("POST", "/connect/generate/transfer/deposit-switch", generate).body(DEPOSIT),
];

/// The kind of link that `call` generates.
fn kind(call: &Call) -> &'static str {
    let ends = |end| call.operation.template().ends_with(end);
    match () {
        () if ends("/lite") => "lite",
        () if ends("/fix") => "fix",
        () if ends("/verify") => "microentry",
        () if ends("/bill-pay-switch") => "bill-pay-switch",
        () if ends("/deposit-switch") => "deposit-switch",
        () => "aggregation",
    }
}

fn generate(world: &mut World, call: &Call) -> Outcome {
    let kind = kind(call);
    let partner = call.body.at("partnerId").as_str().unwrap_or(&call.partner_id);
    if partner != call.partner_id {
        return Err(Failure::invalid("partnerId", "the partner that the token was issued to"));
    }
    let borrowers = call.body.at("borrowers").as_array().cloned().unwrap_or_default();
    let customers: Vec<&str> = match borrowers.as_slice() {
        [] => call.body.at("customerId").as_str().into_iter().collect(),
        _ => borrowers.iter().filter_map(|borrower| borrower.at("customerId").as_str()).collect(),
    };
    let Some(customer) = customers.first().map(|customer| (*customer).to_owned()) else {
        return Err(Failure::missing("customerId"));
    };
    if customers.iter().any(|customer| world.get("customers", customer).is_none()) {
        return Err(Failure::invalid("customerId", "a customer"));
    }
    check_target(world, call, kind, &customer)?;
    let link = link(world, call, kind, &customer);
    let mut body = json!({"link": link});
    if call.body.at("email").is_object() {
        body.set("emailConfig", call.body.at("email"));
    }
    let mut reply = Reply::json(200, &body);
    if let Some(ping) = webhook(&link_record(call, kind, &customer, 0), json!({"eventType": "ping", "payload": {}})) {
        reply.before = Before::Ping(ping);
    }
    Ok(reply)
}

/// Checks that the bank or login in the body exists.
fn check_target(world: &World, call: &Call, kind: &str, customer: &str) -> Result<(), Failure> {
    match kind {
        "lite" if institutions::find(&call.body.at("institutionId").to_string()).is_none() => {
            Err(Failure::invalid("institutionId", "a bank"))
        }
        "fix" => {
            let login = call.text("institutionLoginId");
            let accounts = world.having("accounts", "institutionLoginId", login);
            match accounts.iter().any(|account| account.at("customerId") == customer) {
                true => Ok(()),
                false => Err(Failure::not_found("38003", "Institution login")),
            }
        }
        _ => Ok(()),
    }
}

/// The stored record of a link.
fn link_record(call: &Call, kind: &str, customer: &str, expires_ms: i64) -> Value {
    let mut record = pick(
        call.body,
        &[
            "consumerId",
            "institutionId",
            "institutionLoginId",
            "redirectUri",
            "webhook",
            "webhookData",
            "webhookHeaders",
            "singleUseUrl",
            "experience",
            "external",
        ],
    );
    let rest = json!({
        "customerId": customer, "kind": kind, "expiresMs": expires_ms, "signingSecret": call.partner_secret, "state": "new",
    });
    merge(&mut record, &rest);
    record
}

/// Creates a link. Its signature is the key of its record.
fn link(world: &mut World, call: &Call, kind: &str, customer: &str) -> String {
    let now = world.now_ms();
    let expires = now + LINK_LIFETIME_MS;
    let nth = world.next("links");
    let key = hmac::Key::new(hmac::HMAC_SHA256, call.partner_secret.as_bytes());
    let signed = format!("{}/{customer}/{kind}/{now}/{nth}", world.name);
    let signature = format!("{:x}", base16ct::HexDisplay(hmac::sign(&key, signed.as_bytes()).as_ref()));
    world.put("links", &signature, link_record(call, kind, customer, expires));
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("customerId", customer);
    query.append_pair("origin", "url").append_pair("partnerId", &call.partner_id).append_pair("signature", &signature);
    query.append_pair("timestamp", &now.to_string()).append_pair("ttl", &expires.to_string()).append_pair("type", kind);
    if !world.name.is_empty() {
        query.append_pair("seed", &world.name);
    }
    format!("{}/sandbox/connect?{}", call.origin, query.finish())
}

/// A notification of `event` for the webhook of `link`, signed with the partner's secret; `None` when the link has no webhook.
fn webhook(link: &Value, event: Value) -> Option<Webhook> {
    let headers = link.at("webhookHeaders").as_object().into_iter().flatten();
    let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Some(Webhook {
        url: link.at("webhook").as_str()?.to_owned(),
        body: event,
        headers: headers.collect(),
        secret: Some(link.text("signingSecret").to_owned()),
    })
}

/// The event `name` of the flow of `link`, for its webhook.
fn event(world: &mut World, link: &Value, name: &str, payload: &Value) -> Option<Webhook> {
    let nth = world.next("events");
    let mut body = json!({
        "customerId": link.at("customerId"), "eventType": name, "payload": payload, "webhookData": link.at("webhookData"),
        "eventId": format!("{}-{}", world.now_ms(), &world.hex_id(&["event", &nth])[..24]),
    });
    if body.at("webhookData").is_null() {
        body.set("webhookData", &json!({}));
    }
    merge(&mut body, &pick(link, &["consumerId"]));
    webhook(link, body)
}

/// The link with this signature.
///
/// # Errors
///
/// Why the link cannot be used, as the page shows it.
pub(super) fn usable(world: &World, signature: &str) -> Result<Value, &'static str> {
    let link = world
        .get("links", signature)
        .ok_or("This link is unknown. Check that it is complete and belongs to this seed.")?;
    if link.at("expiresMs").as_i64().is_some_and(|expires| expires <= world.now_ms()) {
        return Err("This link has expired: it was created more than two hours ago.");
    }
    match link.at("state").as_str() {
        Some("done") if link.flag("singleUseUrl") => Err("This single-use link has already been used."),
        _ => Ok(link.copy()),
    }
}

/// The notifications sent on the first visit of a link.
pub(super) fn visit(world: &mut World, signature: &str, link: &Value) -> Vec<Webhook> {
    if link.at("state") != "new" {
        return Vec::new();
    }
    if let Some(link) = world.get_mut("links", signature) {
        link.set("state", &"started");
    }
    event(world, link, "started", &json!({})).into_iter().collect()
}

/// The result of a completed flow: the new accounts, and the notifications to send.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) accounts: Vec<Value>,
    pub(super) webhooks: Vec<Webhook>,
}

/// Completes the flow of `link` at `bank`: adds the accounts and returns the notifications in order, including `started` if the link was
/// not visited.
pub(super) fn complete(world: &mut World, signature: &str, link: &Value, bank: &Bank) -> Completed {
    let mut webhooks = visit(world, signature, link);
    if let Some(link) = world.get_mut("links", signature) {
        link.set("state", &"done");
    }
    let customer = link.text("customerId").to_owned();
    let mut send = |world: &mut World, name: &str, payload: Value| webhooks.extend(event(world, link, name, &payload));
    let institution = json!({"institutionId": bank.id, "oauth": bank.id == "102105"});
    let accounts = match link.at("kind").as_str() {
        Some("fix") => {
            send(world, "credentialsUpdated", json!({"institutionLoginId": link.at("institutionLoginId")}));
            Vec::new()
        }
        Some(kind @ ("bill-pay-switch" | "deposit-switch")) => {
            transfers::add(world, &customer, link.at("external").at("id"), kind);
            Vec::new()
        }
        Some("microentry") => Vec::new(),
        _ => {
            send(world, "adding", institution.copy());
            let (login, accounts) = accounts::add_login(world, &customer, bank);
            consents::add(world, &customer, bank, &login, &accounts);
            send(world, "discovered", json!({"institutionId": bank.id, "accounts": accounts}));
            send(world, "added", json!({"institutionId": bank.id, "accounts": accounts}));
            accounts
        }
    };
    send(world, "done", json!({"institutionId": bank.id, "accounts": accounts.len()}));
    Completed { accounts, webhooks }
}

/// The bank of a flow: the one in the link, the one of its login, or `chosen`.
pub(super) fn bank_of(world: &World, link: &Value, chosen: Option<&str>) -> Option<&'static Bank> {
    let of_login = || {
        let login = link.at("institutionLoginId").as_str()?;
        world.having("accounts", "institutionLoginId", login).first()?["institutionId"].as_str().map(str::to_owned)
    };
    let own = link.at("institutionId").as_u64().map(|id| id.to_string()).or_else(of_login);
    let is_choice = !matches!(link.at("kind").as_str(), Some("aggregation"));
    let default = if is_choice { Some("4222") } else { None };
    institutions::find(own.as_deref().or(chosen).or(default)?)
}

/// The webhook signature of `body`, for tests of a receiver.
pub(super) fn sign(world: &World, body: &[u8]) -> String {
    delivery::signature(world.partner.secret(), body)
}
