//! What a complete report says of a customer's accounts, employment and pay.

use serde_json::Value;

use super::super::value::json;
use super::super::{
    call::{Call, merge},
    dates::DAY,
    institutions, transactions,
    world::World,
};

/// How many transactions of each account a report has.
const TRANSACTIONS: usize = 50;

/// Adds to `report` what its type has.
pub(super) fn add(world: &World, call: &Call, report: &mut Value) {
    let kind = report["type"].as_str().unwrap_or("").to_owned();
    match kind.as_str() {
        "voePayroll" | "voiePayroll" => report["employmentHistory"] = json!([call.example(world, "employment")]),
        "paystatement" | "voieWithStatement" => add_pay_statements(world, call, report),
        "statement" => report["assetIds"] = json!([world.uuid(&["statement", report["id"].as_str().unwrap_or("")])]),
        "voieWithInterview" => {
            add_pay_statements(world, call, report);
            report["institutions"] = banks(world, report, &kind);
        }
        _ => {
            let now = world.now();
            let span = json!({"startDate": now - 180 * DAY, "endDate": now, "days": 180, "seasoned": true});
            merge(report, &span);
            report["institutions"] = banks(world, report, &kind);
        }
    }
}

fn add_pay_statements(world: &World, call: &Call, report: &mut Value) {
    let constraints = &report["constraints"];
    let given = [&constraints["paystatementReport"]["assetIds"], &constraints["voieWithStatementData"]["assetIds"]];
    let assets = given.into_iter().find_map(Value::as_array).cloned().unwrap_or_default();
    let statements: Vec<Value> = assets
        .iter()
        .map(|asset| {
            let mut statement = call.example(world, "payStatement");
            statement["assetId"] = asset.clone();
            statement
        })
        .collect();
    report["numberOfBillableAssets"] = json!(assets.len());
    report["assetIds"] = json!(assets);
    report["payStatements"] = json!(statements);
}

/// The customer's banks with those of its accounts that the request names, or all.
fn banks(world: &World, report: &Value, kind: &str) -> Value {
    let customer = report["customerId"].to_string();
    let wanted: Vec<String> = match &report["constraints"]["accountIds"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(ids) => ids.split([' ', ',']).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let accounts = world.having("accounts", "customerId", &customer).into_iter();
    let accounts: Vec<&Value> =
        accounts.filter(|account| wanted.is_empty() || wanted.iter().any(|id| account["id"] == *id)).collect();
    let banks = institutions::BANKS.iter().filter_map(|bank| {
        let shown: Vec<Value> = accounts
            .iter()
            .filter(|account| account["institutionId"] == bank.id)
            .map(|row| account(world, row, kind))
            .collect();
        (!shown.is_empty()).then(|| {
            let id: u64 = bank.id.parse().unwrap_or(0);
            json!({"id": id, "name": bank.name, "urlHomeApp": "https://bank.example.com", "accounts": shown})
        })
    });
    banks.collect()
}

fn account(world: &World, account: &Value, kind: &str) -> Value {
    let balance = &account["balance"];
    let rows = transactions::for_report(world, account, TRANSACTIONS);
    let mut shown = json!({
        "id": account["id"].as_str().and_then(|id| id.parse::<u64>().ok()).unwrap_or(0), "ownerName": "Ada Lovelace",
        "ownerAddress": "1 Analytical Way, Salt Lake City, UT 84101", "ownerAsOfDate": world.now(), "name": account["name"],
        "number": account["number"], "type": account["type"], "currency": account["currency"], "aggregationStatusCode": 0,
        "currentBalance": balance, "availableBalance": balance, "balanceDate": world.now(), "balance": balance,
        "averageMonthlyBalance": balance, "transactions": rows, "details": {"availableBalanceAmount": balance},
        "asset": {
            "type": account["type"], "availableBalance": balance, "currentBalance": balance, "twoMonthAverage": balance,
            "sixMonthAverage": balance, "beginningBalance": balance,
        },
    });
    if kind.starts_with("voi") || kind.starts_with("voe") || kind == "voaHistory" {
        let pay: Vec<&Value> = rows.iter().filter(|row| row["category"] == "Paycheck").collect();
        let now = world.now();
        shown["incomeStreams"] = match pay.as_slice() {
            [] => json!([]),
            _ => json!([{
                "id": format!("{}-income", account["id"].as_str().unwrap_or("")), "name": "difference engine works payroll",
                "status": "ACTIVE", "estimateInclusion": "HIGH", "confidence": 90,
                "cadence": {"startDate": now - 180 * DAY, "stopDate": now, "days": 15}, "daysSinceLastTransaction": 7,
                "nextExpectedTransactionDate": now + 7 * DAY, "incomeStreamMonths": 6, "netAnnual": 50520.5, "projectedNetAnnual": 50520.5,
                "averageMonthlyIncomeNet": 4210.0, "transactions": pay,
            }]),
        };
    }
    shown
}
