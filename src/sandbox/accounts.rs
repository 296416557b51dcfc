//! Accounts. They are created by a Connect flow or a fixture.

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    call::{Call, merge, pick},
    customers::username,
    dates::DAY,
    institutions::{self, Bank},
    paging::ordered,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::{World, is_text},
};

const REFRESH: &str = "fromDate:i toDate:i";

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts", list).query("status:s account_type:s"),
    Route::new("POST", "/aggregation/v1/customers/{customerId}/accounts", refresh),
    Route::new("POST", "/aggregation/v2/customers/{customerId}/accounts", refresh_quietly),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/simple", list),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}", one),
    Route::new("GET", "/aggregation/v2/customers/{customerId}/accounts/{accountId}", one),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/simple", one),
    Route::new("DELETE", "/aggregation/v1/customers/{customerId}/accounts/{accountId}", remove),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/institutions/{institutionId}/accounts", list),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/institutions/{institutionId}/accounts/simple", list),
    Route::new("POST", "/aggregation/v1/customers/{customerId}/institutions/{institutionId}/accounts/addall", add_all),
    Route::new("POST", "/aggregation/v1/customers/{customerId}/institutions/{institutionId}/accounts", add_all),
    Route::new("POST", "/aggregation/v1/customers/{customerId}/institutions/{institutionId}/accounts/mfa", add_all),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/institutionLogins/{institutionLoginId}/accounts", list),
    Route::new(
        "POST",
        "/aggregation/v1/customers/{customerId}/institutionLogins/{institutionLoginId}/accounts",
        refresh,
    )
    .query(REFRESH),
    Route::new(
        "POST",
        "/aggregation/v2/customers/{customerId}/institutionLogins/{institutionLoginId}/accounts",
        refresh_quietly,
    ),
    Route::new(
        "GET",
        "/aggregation/v1/customers/{customerId}/institutionLogins/{institutionLoginId}/accounts/simple",
        list,
    ),
    Route::new("DELETE", "/aggregation/v1/customers/{customerId}/institutionLogins/{institutionLoginId}", remove_login),
    Route::new("PUT", "/aggregation/v2/customers/{customerId}/institutionLogins/{institutionLoginId}/migration", list),
    Route::new(
        "PUT",
        "/aggregation/v1/customers/{customerId}/institutionLogins/{institutionLoginId}/institutions/{newInstitutionId}",
        list,
    ),
    Route::new("GET", "/customers/institution-logins/{institution_login_id}/authorization-details", authorization),
];

/// The members of an account in the responses of the `/simple` operations.
const SIMPLE: [&str; 18] = [
    "id",
    "accountNumberDisplay",
    "name",
    "type",
    "aggregationStatusCode",
    "status",
    "customerId",
    "institutionId",
    "aggregationSuccessDate",
    "aggregationAttemptDate",
    "createdDate",
    "currency",
    "institutionLoginId",
    "authorizationStartDate",
    "authorizationEndDate",
    "authorizationExpires",
    "displayPosition",
    "linkedAccountDate",
];

/// Days of an account's transactions before its history is loaded, and after.
pub(super) const RECENT_DAYS: i64 = 180;
pub(super) const HISTORIC_DAYS: i64 = 730;

/// A new account of the type `kind`.
pub(super) fn record(
    world: &World,
    id: &str,
    customer: &str,
    bank: &str,
    login: &str,
    kind: &str,
    position: u32,
) -> Value {
    let now = world.now();
    let last_four = format!("{:04}", world.hash(&["number", id]) % 10_000);
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let balance = (world.hash(&["balance", id]) % 900_000) as f64 / 100.0 + 500.0;
    let owes = ["creditCard", "lineOfCredit", "mortgage", "loan", "studentLoan"].contains(&kind);
    let balance = if owes { -balance } else { balance };
    let mut account = json!({
        "id": id, "number": format!("xxxx{last_four}"), "accountNumberDisplay": last_four, "realAccountNumberLast4": last_four,
        "name": name_of(kind), "accountNickname": name_of(kind), "balance": balance, "type": kind, "aggregationStatusCode": 0, "status": "active",
        "customerId": customer, "institutionId": bank, "balanceDate": now, "aggregationSuccessDate": now, "aggregationAttemptDate": now,
        "createdDate": now, "lastUpdatedDate": now, "marketSegment": "personal", "currency": "USD", "lastTransactionDate": now,
        "oldestTransactionDate": now - RECENT_DAYS * DAY, "institutionLoginId": parse_id(login),
        "authorizationStartDate": now, "authorizationEndDate": now + 365 * DAY, "authorizationExpires": true,
        "displayPosition": position, "linkedAccountDate": now, "detail": detail(kind, balance, now),
    });
    if kind.contains("invest") || ["ira", "401k"].contains(&kind) {
        account.set("position", &positions(now));
    }
    account
}

fn name_of(kind: &str) -> &'static str {
    match kind {
        "checking" => "Everyday Checking",
        "savings" => "Rainy Day Savings",
        "creditCard" => "Travel Card",
        "mortgage" => "Home Mortgage",
        "studentLoan" => "Student Loan",
        "loan" => "Auto Loan",
        "lineOfCredit" => "Home Equity Line",
        "moneyMarket" => "Money Market",
        "cd" => "Certificate of Deposit",
        "ira" => "Retirement IRA",
        "401k" => "401(k) Plan",
        _ => "Brokerage",
    }
}

fn detail(kind: &str, balance: f64, now: i64) -> Value {
    match kind {
        "creditCard" | "lineOfCredit" => json!({
            "dateAsOf": now, "creditAvailableAmount": 7500, "creditMaxAmount": 15000, "currentBalance": balance, "paymentMinAmount": 35,
            "paymentDueDate": now + 14 * DAY, "lastPaymentAmount": 250.5, "lastPaymentDate": now - 16 * DAY, "interestRate": "21.9",
        }),
        "mortgage" | "loan" | "studentLoan" => json!({
            "dateAsOf": now, "principalBalance": balance, "originalMaturityDate": now + 3650 * DAY, "nextPayment": 1250.75,
            "nextPaymentDate": now + 10 * DAY, "interestRate": "4.25", "loanPaymentFreq": "monthly", "paymentsMade": 24,
            "paymentsRemaining": 120, "lender": "Granite Mortgage",
        }),
        _ => json!({
            "dateAsOf": now, "availableBalanceAmount": balance, "openDate": now - 1500 * DAY, "periodStartDate": now - 30 * DAY,
            "periodEndDate": now, "periodInterestRate": 0.5, "periodDepositAmount": 4200, "periodInterestAmount": 1.25,
            "interestYtdAmount": 9.75,
        }),
    }
}

fn positions(now: i64) -> Value {
    json!([{
        "id": 90001, "description": "Analytical Engines Inc", "symbol": "ENGN", "units": 12.5, "currentPrice": 84.2,
        "securityName": "Analytical Engines Inc", "marketValue": 1052.5, "costBasis": 900, "status": "A", "currentPriceDate": now,
        "securityType": "Stock", "invSecurityType": "STOCK",
    }])
}

/// Adds a login of `customer` at `bank` with a record for each of the bank's accounts; returns the login's identifier and the accounts.
pub(super) fn add_login(world: &mut World, customer: &str, bank: &Bank) -> (String, Vec<Value>) {
    let login = (1_000_000_000 + world.hash(&["login", customer, bank.id]) % 1_000_000_000).to_string();
    let mut added = Vec::new();
    for (position, kind) in (1..).zip(bank.accounts) {
        let key = ["account", customer, bank.id, kind];
        let existing = world
            .having("accounts", "institutionLoginId", &login)
            .into_iter()
            .find(|account| account.at("type") == *kind);
        if let Some(existing) = existing {
            added.push(show(existing));
            continue;
        }
        let id = world.new_id("accounts", &key);
        let account = record(world, &id, customer, bank.id, &login, kind, position);
        added.push(show(&account));
        world.put("accounts", &id, account);
    }
    (login, added)
}

/// Adds the missing members to the accounts of a fixture.
pub(super) fn complete_fixture(world: &mut World) {
    let given: Vec<(String, Value)> = world
        .dump()
        .at("accounts")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(id, account)| (id.clone(), account.copy()))
        .collect();
    for (position, (id, account)) in (1..).zip(given) {
        let text = |name: &str, default: &str| match account.at(name) {
            Value::Null => default.to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (customer, bank, kind) = (text("customerId", ""), text("institutionId", "4222"), text("type", "checking"));
        let login = text("institutionLoginId", "1007302745");
        let mut complete = record(world, &id, &customer, &bank, &login, &kind, position);
        merge(&mut complete, &account);
        complete.set("institutionLoginId", &parse_id(&login));
        world.put("accounts", &id, complete);
    }
}

/// An account as the API returns it.
pub(super) fn show(account: &Value) -> Value {
    let mut shown = account.copy();
    if let Some(members) = shown.as_object_mut() {
        members.remove("historic");
    }
    shown
}

/// The account named by the path.
pub(super) fn of_path(world: &World, call: &Call) -> Value {
    world.copy("accounts", call.param("accountId"))
}

/// The accounts selected by the path and the query, ordered by login and display position.
pub(super) fn selected(world: &World, call: &Call) -> Vec<Value> {
    let chosen =
        |account: &&&Value, param: &str| call.param(param).is_empty() || is_text(account.at(param), call.param(param));
    let matches = |account: &&&Value| {
        chosen(account, "institutionId")
            && chosen(account, "institutionLoginId")
            && call.query("status").is_none_or(|status| account.at("status") == status)
            && call.query("account_type").is_none_or(|kind| account.at("type") == kind)
    };
    let mut rows: Vec<&Value> = world.having("accounts", "customerId", call.customer_id());
    rows.retain(|account| matches(&account));
    let rows = ordered(rows, |row| (row.at("institutionLoginId").as_i64(), row.at("displayPosition").as_i64()));
    rows.into_iter().map(show).collect()
}

fn is_simple(call: &Call) -> bool {
    call.operation.template().ends_with("/simple")
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let rows = selected(world, call);
    let rows: Vec<Value> = if is_simple(call) { rows.iter().map(|row| pick(row, &SIMPLE)).collect() } else { rows };
    Reply::ok(&json!({"accounts": rows}))
}

fn one(world: &mut World, call: &Call) -> Outcome {
    let account = show(&of_path(world, call));
    Reply::ok(&if is_simple(call) { pick(&account, &SIMPLE) } else { account })
}

/// The aggregation status code for this customer's refreshes, from a username such as `aggregation-103`; 0 for other usernames.
fn status_code(world: &World, call: &Call) -> i64 {
    username(world, call)
        .strip_prefix("aggregation-")
        .and_then(|code| code.split('-').next()?.parse().ok())
        .unwrap_or(0)
}

fn refresh_selected(world: &mut World, call: &Call) {
    let (now, code) = (world.now(), status_code(world, call));
    for account in selected(world, call) {
        let Some(account) = world.get_mut("accounts", account.text("id")) else { continue };
        account.set("aggregationAttemptDate", &now);
        account.set("aggregationStatusCode", &code);
        if code == 0 {
            for date in ["aggregationSuccessDate", "balanceDate", "lastUpdatedDate", "lastTransactionDate"] {
                account.set(date, &now);
            }
        }
    }
}

fn refresh(world: &mut World, call: &Call) -> Outcome {
    refresh_selected(world, call);
    list(world, call)
}

fn refresh_quietly(world: &mut World, call: &Call) -> Outcome {
    refresh_selected(world, call);
    Reply::empty(204)
}

fn remove(world: &mut World, call: &Call) -> Outcome {
    world.remove("accounts", call.param("accountId"));
    Reply::empty(204)
}

fn remove_login(world: &mut World, call: &Call) -> Outcome {
    for account in selected(world, call) {
        world.remove("accounts", account.text("id"));
    }
    Reply::empty(204)
}

/// Adds the accounts of a bank without Connect: the legacy operations, with bank credentials in the body.
fn add_all(world: &mut World, call: &Call) -> Outcome {
    let bank =
        institutions::find(call.param("institutionId")).ok_or_else(|| Failure::not_found("14001", "Institution"))?;
    let customer = call.customer_id().to_owned();
    let (_, accounts) = add_login(world, &customer, bank);
    Reply::ok(&json!({"accounts": accounts}))
}

fn authorization(world: &mut World, call: &Call) -> Outcome {
    let login = call.param("institutionLoginId");
    let start = world
        .having("accounts", "institutionLoginId", login)
        .first()
        .and_then(|account| account.at("authorizationStartDate").as_i64());
    let start = start.unwrap_or_else(|| world.now());
    Reply::ok(&json!({
        "institutionLoginId": parse_id(login),
        "authorizationStartDate": super::dates::date_time(start),
        "authorizationEndDate": super::dates::date_time(start + 365 * DAY),
    }))
}
