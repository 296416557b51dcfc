//! Account data other than transactions: owner, account numbers, balances, and all three combined (paysuite).

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    accounts::{of_path, selected},
    call::{Call, merge},
    consumers,
    customers::username,
    institutions,
    reply::{Outcome, Reply},
    route::Route,
    world::World,
};

const MATCH: &str = "ownerName:s name*:{firstName*:s middleName:s lastName*:s suffix:s} \
    address:{line1:s line2:s line3:s city:s state:s country:s(2,2) postalCode:s type:s(1,50)} phone:s(,10) email:s";

const BUNDLE: &str = "include:s balance_cache_interval:i(1,1440)";

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/owner", owner),
    Route::new("GET", "/aggregation/v3/customers/{customerId}/accounts/{accountId}/owner", holders)
        .query("withInsights:b"),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/details", numbers),
    Route::new("GET", "/aggregation/v3/customers/{customerId}/accounts/{accountId}/details", payment_instruction),
    Route::new("GET", "/aggregation/v2/customers/{customerId}/accounts/{accountId}/loanDetails", loan_details),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/availableBalance", balance),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/availableBalance/live", balance)
        .query("balance_cache_interval:i(0,1440)"),
    Route::new(
        "POST",
        "/account-owner-verification-matchings/customers/{customerId}/accounts/{accountId}",
        match_owner,
    )
    .query("insights:b")
    .body(MATCH),
    Route::new("GET", "/aggregation/v1/paysuite/customers/{customerId}/accounts/{accountId}", bundle).query(BUNDLE),
    Route::new(
        "GET",
        "/aggregation/v1/paysuite/customers/{customerId}/institutionLogins/{institutionLoginId}/accounts",
        bundle,
    )
    .query(BUNDLE),
];

/// First name, last name and address: from the consumer of the customer if it has one, else from the customer.
fn person(world: &World, call: &Call) -> (String, String, Value) {
    let record = consumers::of(world, call.customer_id()).or_else(|| world.get("customers", call.customer_id()));
    let text = |name: &str, default: &str| match record.and_then(|record| record.at(name).as_str()) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => default.to_owned(),
    };
    let address = json!({
        "line1": text("address", "1 Analytical Way"), "city": text("city", "Salt Lake City"), "state": text("state", "UT"),
        "postalCode": text("zip", "84101"), "country": "US", "type": "Home",
    });
    (text("firstName", "Ada"), text("lastName", "Lovelace"), address)
}

fn one_line(address: &Value) -> String {
    let part = |name: &str| address.text(name);
    format!("{}, {}, {} {}", part("line1"), part("city"), part("state"), part("postalCode"))
}

fn owner(world: &mut World, call: &Call) -> Outcome {
    if username(world, call).starts_with("mfa") {
        return Reply::empty(203);
    }
    let (first, last, address) = person(world, call);
    Reply::ok(
        &json!({"ownerName": format!("{first} {last}"), "ownerAddress": one_line(&address), "asOfDate": world.now()}),
    )
}

/// The holder of all accounts of the customer.
fn holder(world: &World, call: &Call) -> Value {
    let (first, last, mut address) = person(world, call);
    address.set("ownerAddress", &one_line(&address));
    let mut holder = call.example(world, "holder");
    let known =
        json!({"ownerName": format!("{first} {last}"), "firstName": first, "lastName": last, "addresses": [address]});
    merge(&mut holder, &known);
    holder
}

fn holders(world: &mut World, call: &Call) -> Outcome {
    let mut holder = holder(world, call);
    if call.query("withInsights") == Some("true") {
        holder.set("identityInsights", &call.example(world, "insights"));
    }
    Reply::ok(&json!({"holders": [holder]}))
}

/// 100 if both texts are equal without regard to case, else 0.
fn score(ours: &str, theirs: &str) -> u64 {
    if ours.to_lowercase() == theirs.to_lowercase() { 100 } else { 0 }
}

fn match_owner(world: &mut World, call: &Call) -> Outcome {
    let mut holder = holder(world, call);
    let name = call.body.at("name");
    let of_name = |member: &str| score(holder.text(member), name.text(member));
    let full = format!("{} {}", name.text("firstName"), name.text("lastName"));
    let scores = json!({
        "ownerName": score(holder.text("ownerName"), &full), "firstName": of_name("firstName"), "middleName": 0,
        "lastName": of_name("lastName"), "suffix": 0,
    });
    holder.set("nameScores", &scores);
    let (ours, theirs) = (&mut holder.at_mut("addresses")[0], call.body.at("address"));
    let of_address = |member: &str| score(ours.text(member), theirs.text(member));
    let scores = json!({
        "ownerAddress": of_address("line1"), "line1": of_address("line1"), "city": of_address("city"), "state": of_address("state"),
        "postalCode": of_address("postalCode"), "country": of_address("country"),
    });
    ours.set("addressScores", &scores);
    for (list, member, scores) in [("emails", "email", "emailScores"), ("phones", "phone", "phoneScores")] {
        let first = &mut holder.at_mut(list)[0];
        let score = score(first.text(member), call.body.text(member));
        first.at_mut(scores).set(member, &score);
    }
    if call.query("insights") == Some("true") {
        holder.set("identityInsights", &call.example(world, "insights"));
    }
    Reply::ok(&json!({"holders": [holder]}))
}

/// Routing number and account number of `account`.
fn bank_numbers(world: &World, account: &Value) -> (String, String) {
    let routing = institutions::find(account.text("institutionId")).map_or("110000019", |bank| bank.routing_number);
    let id = account.text("id");
    let number =
        format!("{:08}{}", world.hash(&["real number", id]) % 100_000_000, account.text("realAccountNumberLast4"));
    (routing.to_owned(), number)
}

fn numbers(world: &mut World, call: &Call) -> Outcome {
    let (routing, number) = bank_numbers(world, &of_path(world, call));
    Reply::ok(&json!({"routingNumber": routing, "realAccountNumber": number}))
}

fn instruction(world: &World, account: &Value) -> Value {
    let (routing, number) = bank_numbers(world, account);
    json!({"type": "ach", "accountNumber": number, "tanEnabled": false, "descriptors": [{"type": "routingNumber", "value": routing}]})
}

fn payment_instruction(world: &mut World, call: &Call) -> Outcome {
    let mut instruction = instruction(world, &of_path(world, call));
    merge(&mut instruction, &json!({"transferInEnabled": true, "transferOutEnabled": true}));
    Reply::ok(&json!({"paymentInstruction": [instruction]}))
}

fn loan_details(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(&call.example(world, "loanDetails"))
}

fn balance_of(account: &Value, now: &Value) -> Value {
    json!({
        "id": parse_id(account.text("id")),
        "realAccountNumberLast4": account.at("realAccountNumberLast4"), "availableBalance": account.at("balance"),
        "availableBalanceDate": now, "clearedBalance": account.at("balance"), "clearedBalanceDate": now, "aggregationStatusCode": 0,
        "currency": account.at("currency"),
    })
}

fn balance(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(&balance_of(&of_path(world, call), &json!(world.now())))
}

fn bundle(world: &mut World, call: &Call) -> Outcome {
    let accounts = if call.param("accountId").is_empty() { selected(world, call) } else { vec![of_path(world, call)] };
    let include = call.query("include").unwrap_or("balanceDetails,accountIdentity,paymentInstruction");
    let includes = |part: &str| include.contains(part);
    let as_text = |date: &Value| json!(super::dates::date_time(date.as_i64().unwrap_or(0)));
    let now = json!(super::dates::date_time(world.now()));
    let shown = accounts.iter().map(|account| {
        let mut row =
            super::call::pick(account, &["id", "realAccountNumberLast4", "institutionId", "institutionLoginId"]);
        let bank = institutions::find(account.text("institutionId")).map_or("Sandbox Bank", |bank| bank.name);
        row.set("institutionName", &bank);
        let mut details = super::call::pick(
            account,
            &[
                "id",
                "accountNumberDisplay",
                "name",
                "type",
                "aggregationStatusCode",
                "status",
                "currency",
                "displayPosition",
                "authorizationStartDate",
                "authorizationEndDate",
                "authorizationExpires",
            ],
        );
        for date in ["aggregationSuccessDate", "aggregationAttemptDate", "createdDate"] {
            details.set(date, &as_text(account.at(date)));
        }
        row.set("accountDetails", &details);
        if includes("balanceDetails") {
            let mut balance = balance_of(account, &now);
            for member in ["availableBalance", "clearedBalance"] {
                let amount = balance.at(member).as_f64().unwrap_or(0.0).max(0.0);
                balance.set(member, &amount);
            }
            row.set("balanceDetails", &balance);
        }
        if includes("accountIdentity") {
            row.set("accountIdentity", &json!({"holders": [holder(world, call)]}));
        }
        if includes("paymentInstruction") {
            row.set("paymentInstruction", &instruction(world, account));
        }
        row
    });
    let shown: Vec<Value> = shown.collect();
    let count = |part: &str| if includes(part) { shown.len() } else { 0 };
    Reply::ok(&json!({
        "customerId": call.customer_id(), "errorCount": 0, "accountCount": shown.len(),
        "accountIdentitySuccessCount": count("accountIdentity"), "balanceDetailsSuccessCount": count("balanceDetails"),
        "paymentInstructionSuccessCount": count("paymentInstruction"), "accounts": shown,
    }))
}
