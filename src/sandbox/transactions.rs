//! Transactions: a history generated from the seed and the account, and transactions added by tests.

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    accounts::{self, HISTORIC_DAYS, RECENT_DAYS},
    call::Call,
    customers::username,
    dates::{DAY, civil, date, date_time},
    paging::{Page, ordered},
    reply::{Failure, Outcome, Reply},
    route::Route,
    txpush,
    world::{World, is_text},
};

const RANGE: &str =
    "fromDate*:i toDate*:i start:i(1,) limit:i(1,1000) sort:e(asc|desc) includePending:b showDailyBalance:b";

const ENRICH: &str = "transactions*:[{externalCustomerId*:s(1,100) externalAccountId*:s(1,100) accountType*:s(1,511) \
    externalTransactionId*:s(1,100) postedTimestamp:s(3,32) transactionTimestamp*:s(3,32) description*:s(1,1024) memo:s(,511) amount*:n \
    transactionFee:n type:s(,32) directionIndicator:s(,32) cardAcceptorId:s(,15) inputIsRecurringTransaction:b \
    inputMerchantInformation:o}](1,1000)";

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/aggregation/v3/customers/{customerId}/transactions", list).query(RANGE),
    Route::new("GET", "/aggregation/v3/customers/{customerId}/accounts/{accountId}/transactions", list).query(RANGE),
    Route::new("GET", "/aggregation/v4/customers/{customerId}/accounts/{accountId}/transactions", list).query(RANGE),
    Route::new("GET", "/aggregation/v2/customers/{customerId}/transactions/{transactionId}", one),
    Route::new("GET", "/aggregation/customers/{customerId}/transactions/{uniqueTransactionId}", one),
    Route::new("POST", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/transactions", inject)
        .body("amount*:n description*:s status:e(active|pending) postedDate:i transactionDate*:i"),
    Route::new(
        "POST",
        "/aggregation/v1/customers/{customerId}/accounts/{accountId}/transactions/historic",
        load_history,
    ),
    Route::new("POST", "/aggregation/customers/{customerId}/recurring-transactions", recurring).body("accountIds:[s]"),
    Route::new("POST", "/aggregation/customers/{customerId}/transactions/refreshes", refresh)
        .body("institutionLoginId:s accountIds:[s] mode:s fromDate:t toDate:t"),
    Route::new("GET", "/aggregation/customers/{customerId}/transactions/refreshes/{refreshId}", refresh_status),
    Route::new("POST", "/data-enrichment/transactions", enrich).body(ENRICH),
];

/// Time of day at which generated transactions are posted, in seconds.
const NOON: i64 = 43_200;

/// Payees of debits: name, description, category, maximum amount in dollars.
const DEBITS: [(&str, &str, &str, u64); 8] = [
    ("Bright Coffee", "BRIGHT COFFEE 0042 SALT LAKE CITY UT", "Coffee Shops", 12),
    ("Corner Market", "CORNER MARKET #7", "Groceries", 140),
    ("City Power", "CITY POWER AUTOPAY", "Utilities", 180),
    ("Metro Transit", "METRO TRANSIT TICKET", "Public Transportation", 9),
    ("Page Turner Books", "PAGE TURNER BOOKS", "Books", 60),
    ("Streamwell", "STREAMWELL MONTHLY", "Streaming Service", 16),
    ("Fuel Stop", "FUEL STOP 118", "Gas & Fuel", 75),
    ("Noodle House", "NOODLE HOUSE DINNER", "Restaurants", 55),
];

/// A generated transaction, before it becomes JSON.
#[derive(Clone, Copy)]
struct Entry<'a> {
    account: &'a Value,
    /// Days since the epoch.
    day: i64,
    /// Its number among those of its day.
    nth: u64,
    hash: u64,
}

/// The generated transactions of `account` posted from `from` to `to` (epoch seconds, inclusive), oldest first.
fn history<'a>(world: &World, account: &'a Value, from: i64, to: i64) -> Vec<Entry<'a>> {
    let days = if account.flag("historic") { HISTORIC_DAYS } else { RECENT_DAYS };
    let today = world.now() / DAY;
    let first = from.saturating_sub(NOON).saturating_add(DAY - 1).div_euclid(DAY).max(today - days);
    let last = to.saturating_sub(NOON).div_euclid(DAY).min(today);
    let id = account.text("id");
    let seed = world.hash(&["transactions", id]);
    let mut entries = Vec::new();
    for day in first..=last {
        // Pseudo-random and cheap, because the whole range is generated for each request.
        let hash = (seed ^ day.unsigned_abs())
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let of_day = if account.at("type") == "checking" { 1 + hash % 3 } else { hash % 2 };
        entries.extend((0..of_day).map(|nth| Entry {
            account,
            day,
            nth,
            hash: (hash >> 7).rotate_left(u32::try_from(nth).unwrap_or(0) * 11),
        }));
    }
    entries
}

impl Entry<'_> {
    fn id(&self) -> u64 {
        let account = parse_id(self.account.text("id"));
        (account % 1_000_000) * 1_000_000 + self.day.unsigned_abs() * 4 + self.nth
    }

    fn is_payday(&self) -> bool {
        self.nth == 0 && self.account.at("type") == "checking" && matches!(civil(self.day * DAY).2, 1 | 15)
    }

    fn amount(&self) -> f64 {
        let cents = |maximum: u64| {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let amount = (100 + self.hash % (maximum * 100)) as f64 / 100.0;
            amount
        };
        if self.is_payday() { 2100.0 + cents(10) } else { -cents(DEBITS[self.payee()].3) }
    }

    fn payee(&self) -> usize {
        (self.hash >> 20) as usize % DEBITS.len()
    }

    fn record(&self, today: i64) -> Value {
        let (name, description, category) = match self.is_payday() {
            true => ("Difference Engine Works", "DIFFERENCE ENGINE WORKS PAYROLL", "Paycheck"),
            false => (DEBITS[self.payee()].0, DEBITS[self.payee()].1, DEBITS[self.payee()].2),
        };
        let id = self.id();
        let posted = self.day * DAY + NOON;
        json!({
            "id": id, "amount": self.amount(), "uniqueTransactionId": format!("u{id}"),
            "accountId": parse_id(self.account.text("id")),
            "customerId": parse_id(self.account.text("customerId")),
            "status": if self.day >= today { "pending" } else { "active" }, "description": description, "memo": category,
            "type": if self.is_payday() { "directDeposit" } else { "debit" }, "transactionDate": posted, "postedDate": posted,
            "createdDate": posted,
            "categorization": {
                "normalizedPayeeName": name, "category": category, "city": "Salt Lake City", "state": "UT", "postalCode": "84101",
                "country": "USA", "bestRepresentation": description,
            },
        })
    }
}

/// The added transactions of `account` posted from `from` to `to`.
fn injected(world: &World, account: &str, from: i64, to: i64) -> Vec<Value> {
    let within = |row: &&Value| row.at("postedDate").as_i64().is_some_and(|at| (from..=to).contains(&at));
    world.having("injected", "accountId", account).into_iter().filter(within).map(Value::copy).collect()
}

/// The account in the path of `call`, or all accounts of its customer.
fn accounts_of(world: &World, call: &Call) -> Vec<Value> {
    match call.param("accountId") {
        "" => world.having("accounts", "customerId", call.customer_id()).into_iter().map(Value::copy).collect(),
        _ => vec![accounts::of_path(world, call)],
    }
}

/// All transactions of `accounts` posted from `from` to `to`, oldest first, with their posted dates. Only those on the requested page become
/// JSON.
fn rows(world: &World, accounts: &[Value], from: i64, to: i64, pending: bool) -> Vec<(i64, Row)> {
    let today = world.now() / DAY;
    let mut rows: Vec<(i64, Row)> = Vec::new();
    for (index, account) in accounts.iter().enumerate() {
        let generated = history(world, account, from, to).into_iter().filter(|entry| pending || entry.day < today);
        rows.extend(
            generated.map(|entry| (entry.day * DAY + NOON, Row::Generated(index, entry.day, entry.nth, entry.hash))),
        );
        let added = injected(world, account.text("id"), from, to);
        let added = added.into_iter().filter(|row| pending || row.at("status") == "active");
        rows.extend(added.map(|row| (row.at("postedDate").as_i64().unwrap_or(0), Row::Injected(Box::new(row)))));
    }
    ordered(rows, |(at, _)| (Some(*at), None))
}

/// A transaction, generated or added.
enum Row {
    /// Index of the account, then the other fields of [`Entry`].
    Generated(usize, i64, u64, u64),
    Injected(Box<Value>),
}

impl Row {
    fn written(self, accounts: &[Value], today: i64) -> Value {
        match self {
            Self::Generated(account, day, nth, hash) => {
                Entry { account: &accounts[account], day, nth, hash }.record(today)
            }
            Self::Injected(row) => *row,
        }
    }
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let (from, to) = (call.number("fromDate").unwrap_or(0), call.number("toDate").unwrap_or(0));
    if from > to {
        return Err(Failure::invalid("fromDate", "not after toDate"));
    }
    let accounts = accounts_of(world, call);
    let mut rows = rows(world, &accounts, from, to, call.query("includePending") == Some("true"));
    let sort = call.query("sort").unwrap_or("desc");
    if sort == "desc" {
        rows.reverse();
    }
    let found = rows.len();
    let (shown, more) = Page::of(call, 25).cut(rows);
    let today = world.now() / DAY;
    let shown: Vec<Value> = shown.into_iter().map(|(_, row)| row.written(&accounts, today)).collect();
    let mut body = json!({
        "found": found, "displaying": shown.len(), "moreAvailable": more.to_string(), "fromDate": from.to_string(), "toDate": to.to_string(),
        "sort": sort, "transactions": shown,
    });
    if call.query("showDailyBalance") == Some("true") {
        let ending = accounts.first().and_then(|account| account.at("balance").as_f64()).unwrap_or(0.0);
        body.set("dailyBalances", &json!([{"date": today * DAY, "beginning": ending, "ending": ending}]));
    }
    Reply::ok(&body)
}

fn one(world: &mut World, call: &Call) -> Outcome {
    let (id, unique) = (call.param("transactionId"), call.param("uniqueTransactionId"));
    let accounts = accounts_of(world, call);
    let today = world.now() / DAY;
    let all = rows(world, &accounts, 0, i64::MAX / 2, true).into_iter().map(|(_, row)| row.written(&accounts, today));
    let mut all = all.filter(|row| is_text(row.at("id"), id) || row.at("uniqueTransactionId") == unique);
    all.next().map_or_else(|| Err(Failure::not_found("14001", "Transaction")), |row| Reply::ok(&row))
}

/// The latest `limit` generated transactions of `account`, in the format of reports.
pub(super) fn for_report(world: &World, account: &Value, limit: usize) -> Vec<Value> {
    let today = world.now() / DAY;
    let entries = history(world, account, 0, world.now());
    let rows = entries.iter().rev().filter(|entry| entry.day < today).take(limit).map(|entry| {
        let row = entry.record(today);
        json!({
            "id": row.at("id"), "amount": row.at("amount"), "postedDate": row.at("postedDate"), "description": row.at("description"),
            "memo": row.at("memo"), "normalizedPayee": row.at("categorization").at("normalizedPayeeName"),
            "institutionTransactionId": format!("i{}", row.at("id")), "category": row.at("categorization").at("category"), "type": row.at("type"),
        })
    });
    rows.collect()
}

fn inject(world: &mut World, call: &Call) -> Outcome {
    let account = call.param("accountId").to_owned();
    if world.get("customers", call.customer_id()).is_some_and(|customer| customer.at("type") != "testing") {
        return Err(Failure::invalid("customerId", "a testing customer"));
    }
    let (now, nth) = (world.now(), world.next("injected"));
    let id = world.new_id("injected", &["injected", &account, &nth]);
    let number = parse_id(&id);
    let posted =
        call.body.at("postedDate").as_i64().or_else(|| call.body.at("transactionDate").as_i64()).unwrap_or(now);
    let record = json!({
        "id": number, "amount": call.body.at("amount"), "uniqueTransactionId": format!("u{id}"), "accountId": parse_id(&account),
        "customerId": parse_id(call.customer_id()), "status": call.body.at("status").as_str().unwrap_or("active"),
        "description": call.body.at("description"), "memo": "", "type": "debit", "transactionDate": call.body.at("transactionDate"),
        "postedDate": posted, "createdDate": now,
        "categorization": {"normalizedPayeeName": call.body.at("description"), "category": "Uncategorized", "country": "USA"},
    });
    let webhooks = txpush::events(world, &account, &record);
    world.put("injected", &id, record);
    let mut reply = Reply::json(201, &json!({"id": number, "createdDate": now}));
    reply.webhooks = webhooks;
    Ok(reply)
}

fn load_history(world: &mut World, call: &Call) -> Outcome {
    if username(world, call).starts_with("mfa") {
        return Reply::empty(203);
    }
    let oldest = world.now() - HISTORIC_DAYS * DAY;
    if let Some(account) = world.get_mut("accounts", call.param("accountId")) {
        account.set("historic", &true);
        account.set("oldestTransactionDate", &oldest);
    }
    Reply::empty(204)
}

fn recurring(world: &mut World, call: &Call) -> Outcome {
    let wanted: Vec<&str> =
        call.body.at("accountIds").as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let accounts: Vec<Value> = accounts_of(world, call);
    let mut streams = Vec::new();
    for account in accounts
        .iter()
        .filter(|account| wanted.is_empty() || account.at("id").as_str().is_some_and(|id| wanted.contains(&id)))
    {
        let entries = history(world, account, 0, world.now());
        let paydays: Vec<String> =
            entries.iter().filter(|entry| entry.is_payday()).map(|entry| entry.id().to_string()).collect();
        let debits: Vec<String> = entries
            .iter()
            .filter(|entry| entry.payee() == 5 && !entry.is_payday())
            .map(|entry| entry.id().to_string())
            .collect();
        let next = json!(date(world.now() + 7 * DAY));
        let stream = |payee: &str, category: &str, cadence: u64, amount: f64, ids: &[String]| match ids {
            [] => json!([]),
            _ => json!([{
                "normalizedPayeeName": payee, "transactionCategories": [category], "transactionIds": ids, "cadence": cadence,
                "status": "ACTIVE", "expectedNextTransactionDate": next, "expectedNextTransactionAmount": amount,
                "minimumHistoricalAmount": amount, "maximumHistoricalAmount": amount, "meanHistoricalAmount": amount,
                "medianHistoricalAmount": amount, "countOfTransactions": ids.len(),
            }]),
        };
        streams.push(json!({
            "accountId": account.at("id"),
            "recurringOutflows": stream("Streamwell", "Streaming Service", 30, -15.99, &debits),
            "recurringInflows": stream("Difference Engine Works", "Paycheck", 15, 2105.0, &paydays),
        }));
    }
    let all = |name: &str| -> Vec<Value> {
        streams.iter().flat_map(|stream| stream.at(name).as_array().cloned().unwrap_or_default()).collect()
    };
    Reply::ok(&json!({
        "customerRecurringTransactions": {"recurringOutflows": all("recurringOutflows"), "recurringInflows": all("recurringInflows")},
        "accountRecurringTransactions": streams,
    }))
}

fn refresh(world: &mut World, call: &Call) -> Outcome {
    let nth = world.next("refreshes");
    let id = world.uuid(&["refresh", call.customer_id(), &nth]);
    let accounts: Vec<Value> = accounts_of(world, call).iter().map(|account| account.at("id").copy()).collect();
    if accounts.is_empty() {
        return Err(Failure::not_found("38003", "Account"));
    }
    let now = world.now();
    let ids = call.body.at("accountIds").as_array().cloned().unwrap_or(accounts);
    let mode = call.body.at("mode").as_str().unwrap_or("standard");
    world.put("refreshes", &id, json!({"customerId": call.customer_id(), "accountIds": ids, "mode": mode, "polls": 0}));
    Ok(Reply::json(
        202,
        &json!({
            "refreshId": id, "customerId": call.customer_id(), "accountIds": ids, "mode": mode, "fromDate": date_time(now - RECENT_DAYS * DAY),
            "toDate": date_time(now), "status": "NEW", "createdAt": date_time(now),
        }),
    ))
}

fn refresh_status(world: &mut World, call: &Call) -> Outcome {
    let now = date_time(world.now());
    let id = call.param("refreshId");
    let of_customer = |refresh: &&mut Value| refresh.at("customerId") == call.customer_id();
    let Some(refresh) = world.get_mut("refreshes", id).filter(of_customer) else {
        return Err(Failure::not_found("14001", "Refresh"));
    };
    let is_done = refresh.at("polls") != 0;
    refresh.set("polls", &(refresh.at("polls").as_u64().unwrap_or(0) + 1));
    let refresh = refresh.copy();
    let ids = refresh.at("accountIds").as_array().cloned().unwrap_or_default();
    let accounts = ids.iter().filter_map(|id| world.get("accounts", id.as_str()?)).map(|account| {
        json!({
            "accountId": account.at("id"), "institutionLoginId": account.at("institutionLoginId").to_string(),
            "institutionId": account.at("institutionId"), "aggregationStatusCode": 0, "aggregationSuccessDate": now,
        })
    });
    let accounts: Vec<Value> = accounts.collect();
    let done = if is_done { accounts.len() } else { 0 };
    Reply::ok(&json!({
        "refreshId": id, "customerId": call.customer_id(), "accounts": accounts, "mode": refresh.at("mode"),
        "status": if is_done { "COMPLETED" } else { "IN_PROGRESS" }, "totalCount": accounts.len(), "successCount": done, "failedCount": 0,
    }))
}

fn enrich(world: &mut World, call: &Call) -> Outcome {
    let given = call.body.at("transactions").as_array().cloned().unwrap_or_default();
    let enriched = given.into_iter().map(|mut row| {
        let found = call.example(world, "enrichment");
        super::call::merge(&mut row, &found);
        row
    });
    Reply::ok(&json!({"transactions": enriched.collect::<Vec<_>>()}))
}
