//! Payment success indicators: the risk that a payment does not settle.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    accounts::of_path,
    call::Call,
    customers::username,
    dates::{DAY, date},
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

const REQUEST: &str = "transaction*:{settleByDate*:d amount*:p} user:{name:s email:s \
    address:{streetLine1:s(,1000) streetLine2:s(,1000) city:s(,500) state:s(1,3) postalCode:s(,100) country:s(2,2)} \
    phone:{countryHint:s number:s}}";

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/payments/customers/{customerId}/accounts/{accountId}/payment-success-indicators", start)
        .body(REQUEST),
    Route::new("POST", "/payments/customers/{customerId}/accounts/{accountId}/fcra-payment-success-indicators", start)
        .query("purpose:s")
        .body(REQUEST),
    Route::new(
        "GET",
        "/payments/customers/{customerId}/accounts/{accountId}/payment-success-indicators/{payRequestId}",
        poll,
    )
    .query("include_reasons:b"),
    Route::new(
        "GET",
        "/payments/customers/{customerId}/accounts/{accountId}/fcra-payment-success-indicators/{payRequestId}",
        poll,
    )
    .query("include_reasons:b"),
    Route::new(
        "GET",
        "/aggregation/v2/customers/{customerId}/accounts/{accountId}/payments/paymentIndicator",
        indicator,
    )
    .query("settlementAmount*:p settleByDate*:d"),
    Route::new(
        "GET",
        "/aggregation/v1/customers/{customerId}/accounts/{accountId}/payments/paymentIndicator/fcra",
        indicator,
    )
    .query("settlementAmount*:p settleByDate*:d purposeCode*:e(1P)"),
];

/// The balance, and the score of `amount`: its percentage of the balance, at most 100.
fn score(world: &World, call: &Call, amount: f64) -> (f64, u64) {
    let balance = of_path(world, call).at("balance").as_f64().unwrap_or(0.0).max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let score = if balance <= 0.0 { 100 } else { (amount / balance * 100.0).clamp(0.0, 100.0) as u64 };
    (balance, score)
}

fn reasons(score: u64) -> Value {
    json!({
        "recentBalance": score, "balanceHistory": score, "nsfHistory": 0, "recentNsfHistory": 0, "recurringNsf": 0, "spendHistory": score,
        "depositHistory": 100 - score, "transactionAmount": score,
    })
}

fn label(score: u64) -> &'static str {
    match score {
        0..=33 => "Low Risk",
        34..=66 => "Medium Risk",
        _ => "High Risk",
    }
}

fn start(world: &mut World, call: &Call) -> Outcome {
    if username(world, call).starts_with("freeze") {
        return Err(Failure::new(403, "10405", "A security freeze is active"));
    }
    let nth = world.next("payRequests");
    let number = world.hash(&["payment", call.param("accountId"), &nth]) % 100_000_000_000_000_000;
    let id = format!("4{number:017}");
    let record = json!({
        "payRequestId": id, "status": "IN PROGRESS", "customerId": call.customer_id(), "accountId": call.param("accountId"),
        "requestDate": date(world.now()), "transaction": super::call::pick(call.body.at("transaction"), &["settleByDate", "amount"]),
    });
    world.put("payRequests", &id, record.copy());
    Ok(Reply::json(202, &record))
}

/// The first poll finds the request in progress; later ones get its result.
fn poll(world: &mut World, call: &Call) -> Outcome {
    let account = call.param("accountId");
    let Some(request) =
        world.get_mut("payRequests", call.param("payRequestId")).filter(|request| request.at("accountId") == account)
    else {
        return Err(Failure::not_found("14001", "Payment request"));
    };
    let shown = request.copy();
    if request.at("status") == "IN PROGRESS" {
        request.set("status", &"SUCCESS");
        return Reply::ok(&shown);
    }
    let (balance, score) = score(world, call, shown.at("transaction").at("amount").as_f64().unwrap_or(0.0));
    let with_reasons = call.query("include_reasons") == Some("true");
    let day = |n: i64| {
        let mut day =
            json!({"potentialSettlementDate": date(world.now() + n * DAY), "score": score, "indicator": label(score)});
        if with_reasons {
            day.set("reasons", &reasons(score));
        }
        day
    };
    let mut shown = shown;
    shown.set(
        "nsfReturnRisk",
        &json!({"result": {"availableBalance": balance, "dailyResults": (0..3).map(day).collect::<Vec<_>>()}}),
    );
    shown.set("unauthorizedReturnRisk", &json!({"result": {"score": score / 2, "indicator": label(score / 2)}}));
    Reply::ok(&shown)
}

fn indicator(world: &mut World, call: &Call) -> Outcome {
    let amount: f64 = call.query("settlementAmount").and_then(|amount| amount.parse().ok()).unwrap_or(0.0);
    let (balance, score) = score(world, call, amount);
    let day = |n: i64| {
        json!({
            "potentialSettlementDate": date(world.now() + n * DAY), "compositeScore": score, "scoreIndicator": label(score),
            "reasons": reasons(score),
        })
    };
    Reply::ok(&json!({
        "customerId": call.customer_id(), "accountId": call.param("accountId"),
        "payReqId": format!("4{:017}", world.hash(&["indicator", call.param("accountId")]) % 100_000_000_000_000_000),
        "settleByDate": call.query("settleByDate"), "settlementAmount": amount, "availableBalance": balance,
        "indicatorsByDay": (0..3).map(day).collect::<Vec<_>>(),
    }))
}
