//! Bank statements as PDF, and uploaded files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    accounts::of_path,
    call::Call,
    dates::{DAY, date},
    pdf,
    reply::{BINARY, Failure, Outcome, Reply},
    route::Route,
    transactions,
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/aggregation/v1/customers/{customerId}/accounts/{accountId}/statement", one)
        .query("index:i(1,24)"),
    Route::new("GET", "/aggregation/v3/customers/{customerId}/accounts/{accountId}/statement", several)
        .query("index:s"),
    Route::new("POST", "/aggregation/v1/customers/{customerId}/payStatements", upload).body("label*:s statement*:s"),
    Route::new("GET", "/aggregation/v1/customers/{customerId}/assets/{assetId}", asset),
];

/// Maximum number of transactions in a statement.
const ROWS: usize = 30;

/// The statement of `account` for a period of 30 days; `index` 1 is the latest period.
fn statement(world: &World, account: &Value, index: i64) -> Vec<u8> {
    let text = |name: &str| account.text(name);
    let until = world.now() - (index - 1) * 30 * DAY;
    let mut lines = vec![
        format!("Statement {index}: {}", text("name")),
        format!("Sandbox, not a bank. Account {} of customer {}", text("number"), text("customerId")),
        format!("From {} to {}", date(until - 30 * DAY), date(until)),
        format!("Balance {} {}", account.at("balance"), text("currency")),
        String::new(),
    ];
    for row in transactions::for_report(world, account, ROWS) {
        let posted = date(row.at("postedDate").as_i64().unwrap_or(0));
        lines.push(format!(
            "{posted}  {:>10.2}  {}",
            row.at("amount").as_f64().unwrap_or(0.0),
            row.text("description")
        ));
    }
    pdf::page(&lines)
}

fn one(world: &mut World, call: &Call) -> Outcome {
    let statement = statement(world, &of_path(world, call), call.number("index").unwrap_or(1));
    Ok(Reply::bytes(200, BINARY, statement))
}

fn several(world: &mut World, call: &Call) -> Outcome {
    let account = of_path(world, call);
    let mut shown = Vec::new();
    for index in call.query("index").unwrap_or("1").split(',') {
        let number = index.trim().parse::<i64>().ok().filter(|number| (1..=24).contains(number));
        let Some(number) = number else {
            return Err(Failure::invalid("index", "numbers of 1 to 24, separated by commas"));
        };
        let id = format!("{}-{}", world.uuid(&["statement", call.param("accountId"), index]), call.customer_id());
        let file = statement(world, &account, number);
        world.put("assets", &id, json!({"customerId": call.customer_id(), "content": STANDARD.encode(file)}));
        let at = world.now() - (number - 1) * 30 * DAY;
        shown.push(json!({
            "id": id, "description": format!("Statement {number}"), "asOfDate": at, "documentDate": date(at), "index": number.to_string(),
            "code": "0", "message": "success",
        }));
    }
    Reply::ok(&json!({"statements": shown}))
}

fn upload(world: &mut World, call: &Call) -> Outcome {
    let content = call.text("statement");
    if STANDARD.decode(content).is_err() {
        return Err(Failure::invalid("statement", "a file in base64"));
    }
    let nth = world.next("assets");
    let id = format!("{}-{}", world.uuid(&["asset", call.customer_id(), &nth]), call.customer_id());
    world.put(
        "assets",
        &id,
        json!({"customerId": call.customer_id(), "content": content, "label": call.text("label")}),
    );
    Reply::ok(&json!({"assetId": id}))
}

fn asset(world: &mut World, call: &Call) -> Outcome {
    let asset = world.get("assets", call.param("assetId")).filter(|asset| asset.at("customerId") == call.customer_id());
    let content = asset.and_then(|asset| STANDARD.decode(asset.at("content").as_str()?).ok());
    content.map_or_else(|| Err(Failure::not_found("14001", "Asset")), |content| Ok(Reply::bytes(200, BINARY, content)))
}
