//! Consents to share data, one for each completed Connect flow.

use serde_json::Value;

use super::value::{Record as _, json};
use super::{
    call::Call,
    dates::{DAY, date_time},
    institutions::Bank,
    paging::Page,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/data-sharing-consents", list)
        .query("customer_id*:s status:s sort_by:s sort_order:s start:i(1,) limit:i(1,1000) context:s"),
    Route::new("GET", "/data-sharing-consents/{consent_receipt_id}", one),
    Route::new("DELETE", "/data-sharing-consents/{consent_receipt_id}", revoke),
    Route::new(
        "DELETE",
        "/data-sharing-consents/{consent_receipt_id}/institutionLogins/{institution_login_id}",
        revoke_login,
    ),
];

/// Adds the consent to share `accounts` of `customer` at `bank`, which belong to `login`.
pub(super) fn add(world: &mut World, customer: &str, bank: &Bank, login: &str, accounts: &[Value]) {
    let partner = world.partner.id().to_owned();
    let id = world.uuid(&["consent", customer, bank.id]);
    let (now, until) = (date_time(world.now()), date_time(world.now() + 365 * DAY));
    let period = json!({"startDate": now, "endDate": until});
    let status = json!({"status": "ACTIVE", "statusDate": now});
    let accounts = accounts.iter().map(|account| {
        json!({
            "id": account.at("id"), "realAccountNumberLast4": account.at("realAccountNumberLast4"), "type": account.at("type"), "name": account.at("name"),
            "status": "ACTIVE",
        })
    });
    let record = json!({
        "consentReceiptId": id, "receiptVersion": 1, "partnerId": partner, "customerId": customer, "customerCategory": "INDIVIDUAL", "purpose": "Testing",
        "purposeStatement": "to test an application", "applicationName": "Sandbox application", "context": "samePartner",
        "allowedTrnxHistoryInDays": 365, "createdDate": now, "disclosures": [{"type": "PARTNER", "name": "Sandbox partner"}],
        "statusDetails": status, "accessPeriod": period,
        "institutions": [{
            "institutionId": bank.id, "institutionLoginId": login, "institutionName": bank.name, "accounts": accounts.collect::<Vec<_>>(),
            "createdDate": now, "dataHandling": {"postUsageStorage": "deleted", "statement": "to test an application"},
            "lastUpdatedBy": "CUSTOMER", "statusDetails": status, "accessPeriod": period, "isBusinessConsumerStatement": "false",
            "accountOwnerCategory": "INDIVIDUAL", "dataScopes": [{"id": "transactions", "name": "Transactions"}],
        }],
    });
    world.put("consents", &id, record);
}

fn not_found() -> Failure {
    Failure::not_found("14001", "Consent")
}

fn list(world: &mut World, call: &Call) -> Outcome {
    let customer = call.query("customer_id").unwrap_or("");
    if !customer.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::invalid("customer_id", "digits"));
    }
    let rows = world
        .having("consents", "customerId", customer)
        .into_iter()
        .filter(|row| call.query("status").is_none_or(|status| row.at("statusDetails").at("status") == status));
    let rows: Vec<Value> = rows.map(Value::copy).collect();
    if rows.is_empty() { Err(not_found()) } else { Reply::ok(&Page::of(call, 25).wrap("consents", rows)) }
}

fn one(world: &mut World, call: &Call) -> Outcome {
    Reply::ok(world.get("consents", call.param("consentReceiptId")).ok_or_else(not_found)?)
}

fn revoke(world: &mut World, call: &Call) -> Outcome {
    set_revoked(world, call, None)
}

fn revoke_login(world: &mut World, call: &Call) -> Outcome {
    set_revoked(world, call, Some(call.param("institutionLoginId")))
}

/// Revokes the consent, or only its login `login`, and removes the accounts of the revoked logins.
fn set_revoked(world: &mut World, call: &Call, login: Option<&str>) -> Outcome {
    let status = json!({"status": "REVOKED", "statusDate": date_time(world.now())});
    let consent = world.get_mut("consents", call.param("consentReceiptId")).ok_or_else(not_found)?;
    let mut revoked = Vec::new();
    for institution in consent.at_mut("institutions").as_array_mut().into_iter().flatten() {
        let of_institution = institution.text("institutionLoginId").to_owned();
        if login.is_none_or(|login| login == of_institution) {
            institution.set("statusDetails", &status);
            revoked.push(of_institution);
        }
    }
    consent.set("statusDetails", &json!({"status": "INACTIVE", "statusDate": status.at("statusDate")}));
    for login in revoked {
        world.remove_having("accounts", "institutionLoginId", &login);
    }
    Reply::empty(204)
}
