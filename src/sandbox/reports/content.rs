//! The content of complete reports: accounts, employment and pay.

use serde_json::Value;

use super::super::value::{Record as _, json, parse_id};
use super::super::{
    call::{Call, merge},
    dates::DAY,
    institutions, transactions,
    world::World,
};

/// Maximum number of transactions of each account in a report.
const TRANSACTIONS: usize = 50;

/// Adds the content that the type of `report` requires.
pub(super) fn add(world: &World, call: &Call, report: &mut Value) {
    let kind = report.text("type").to_owned();
    match kind.as_str() {
        "voePayroll" | "voiePayroll" => {
            report.set("employmentHistory", &json!([call.example(world, "employment")]));
        }
        "paystatement" | "voieWithStatement" => add_pay_statements(world, call, report),
        "statement" => {
            report.set("assetIds", &json!([world.uuid(&["statement", report.text("id")])]));
        }
        "voieWithInterview" => {
            add_pay_statements(world, call, report);
            report.set("institutions", &banks(world, report, &kind));
        }
        _ => {
            let now = world.now();
            let span = json!({"startDate": now - 180 * DAY, "endDate": now, "days": 180, "seasoned": true});
            merge(report, &span);
            report.set("institutions", &banks(world, report, &kind));
        }
    }
}

fn add_pay_statements(world: &World, call: &Call, report: &mut Value) {
    let constraints = report.at("constraints");
    let given =
        [&constraints.at("paystatementReport").at("assetIds"), &constraints.at("voieWithStatementData").at("assetIds")];
    let assets = given.into_iter().find_map(|ids| ids.as_array()).cloned().unwrap_or_default();
    let statements: Vec<Value> = assets
        .iter()
        .map(|asset| {
            let mut statement = call.example(world, "payStatement");
            statement.set("assetId", &asset);
            statement
        })
        .collect();
    report.set("numberOfBillableAssets", &assets.len());
    report.set("assetIds", &assets);
    report.set("payStatements", &statements);
}

/// The customer's banks with the requested accounts, or with all accounts if the request names none.
fn banks(world: &World, report: &Value, kind: &str) -> Value {
    let customer = report.at("customerId").to_string();
    let wanted: Vec<String> = match &report.at("constraints").at("accountIds") {
        Value::Array(ids) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(ids) => ids.split([' ', ',']).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let accounts = world.having("accounts", "customerId", &customer).into_iter();
    let accounts: Vec<&Value> = accounts
        .filter(|account| wanted.is_empty() || wanted.iter().any(|id| account.at("id") == id.as_str()))
        .collect();
    let banks = institutions::BANKS.iter().filter_map(|bank| {
        let shown: Vec<Value> = accounts
            .iter()
            .filter(|account| account.at("institutionId") == bank.id)
            .map(|row| account(world, row, kind))
            .collect();
        (!shown.is_empty()).then(|| {
            let id = parse_id(bank.id);
            json!({"id": id, "name": bank.name, "urlHomeApp": "https://bank.example.com", "accounts": shown})
        })
    });
    banks.collect()
}

fn account(world: &World, account: &Value, kind: &str) -> Value {
    let balance = account.at("balance");
    let rows = transactions::for_report(world, account, TRANSACTIONS);
    let mut shown = json!({
        "id": parse_id(account.text("id")), "ownerName": "Ada Lovelace",
        "ownerAddress": "1 Analytical Way, Salt Lake City, UT 84101", "ownerAsOfDate": world.now(), "name": account.at("name"),
        "number": account.at("number"), "type": account.at("type"), "currency": account.at("currency"), "aggregationStatusCode": 0,
        "currentBalance": balance, "availableBalance": balance, "balanceDate": world.now(), "balance": balance,
        "averageMonthlyBalance": balance, "transactions": rows, "details": {"availableBalanceAmount": balance},
        "asset": {
            "type": account.at("type"), "availableBalance": balance, "currentBalance": balance, "twoMonthAverage": balance,
            "sixMonthAverage": balance, "beginningBalance": balance,
        },
    });
    if kind.starts_with("voi") || kind.starts_with("voe") || kind == "voaHistory" {
        let pay: Vec<&Value> = rows.iter().filter(|row| row.at("category") == "Paycheck").collect();
        let now = world.now();
        shown.set("incomeStreams", &match pay.as_slice() {
            [] => json!([]),
            _ => json!([{
                "id": format!("{}-income", account.text("id")), "name": "difference engine works payroll",
                "status": "ACTIVE", "estimateInclusion": "HIGH", "confidence": 90,
                "cadence": {"startDate": now - 180 * DAY, "stopDate": now, "days": 15}, "daysSinceLastTransaction": 7,
                "nextExpectedTransactionDate": now + 7 * DAY, "incomeStreamMonths": 6, "netAnnual": 50520.5, "projectedNetAnnual": 50520.5,
                "averageMonthlyIncomeNet": 4210.0, "transactions": pay,
            }]),
        });
    }
    shown
}
