//! Banks: search, paging, branding, and the types of accounts that they offer.

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    call::Call,
    paging::Page,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

const SEARCH: &str = "search:s start:i(1,) limit:i(1,1000) type:s supportedCountries:s";

pub(super) const ROUTES: &[Route] = &[
    Route::new("GET", "/institution/v2/institutions", search).query(SEARCH),
    Route::new("GET", "/institution/v2/certifiedInstitutions", certified).query(SEARCH),
    Route::new("GET", "/institution/v2/certifiedInstitutions/rssd", certified).query(SEARCH),
    Route::new("GET", "/institution/v2/institutions/{institutionId}", one),
    Route::new("GET", "/institution/v2/institutions/{institutionId}/branding", branding),
    Route::new("GET", "/institution/v1/institutions/routingNumber/{routing_number}", by_routing_number),
];

/// A bank of the sandbox.
#[derive(Debug)]
pub(super) struct Bank {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    /// The types of the accounts that each customer has at this bank.
    pub(super) accounts: &'static [&'static str],
    pub(super) routing_number: &'static str,
    oauth: bool,
    country: &'static str,
    status: &'static str,
}

const fn bank(
    id: &'static str,
    name: &'static str,
    routing_number: &'static str,
    accounts: &'static [&'static str],
) -> Bank {
    Bank { id, name, accounts, routing_number, oauth: false, country: "us", status: "online" }
}

/// All banks. The first two have the identifiers of the vendor's own test banks.
pub(super) const BANKS: [Bank; 12] = [
    bank("4222", "Sandbox Bank", "110000019", &["checking", "savings", "creditCard"]),
    Bank { oauth: true, ..bank("102105", "Sandbox Bank OAuth", "110000022", &["checking", "savings", "creditCard"]) },
    bank("200101", "Lakeside Savings", "110000035", &["checking", "savings", "moneyMarket", "cd"]),
    bank("200102", "Harbor Cards", "110000048", &["creditCard", "lineOfCredit"]),
    bank("200103", "Granite Mortgage", "110000051", &["mortgage", "loan"]),
    bank("200104", "Orchard Student Loans", "110000064", &["studentLoan"]),
    bank("200105", "Summit Invest", "110000077", &["investment", "ira", "401k"]),
    Bank { oauth: true, ..bank("200106", "Meadow Credit Union", "110000080", &["checking", "savings"]) },
    bank("200107", "Foundry Business Bank", "110000093", &["checking", "savings", "loan"]),
    Bank { country: "ca", ..bank("200108", "Maple Bank of Canada", "110000103", &["checking", "creditCard"]) },
    Bank { status: "maintenance", ..bank("200109", "Closed Today Bank", "110000116", &["checking"]) },
    bank("200110", "Empty Vault Bank", "110000129", &[]),
];

/// The bank `id`.
#[inline(never)]
pub(super) fn find(id: &str) -> Option<&'static Bank> {
    BANKS.iter().find(|bank| bank.id == id)
}

/// The banks that match the query of `call`.
fn matching(call: &Call) -> Vec<&'static Bank> {
    let search = call.query("search").unwrap_or("").to_lowercase();
    let search = search.trim_matches('*').trim();
    let countries = call.query("supportedCountries").unwrap_or("*").to_lowercase();
    let kind = call.query("type").unwrap_or("").to_lowercase();
    let matches = |bank: &&Bank| {
        let is_found = bank.name.to_lowercase().contains(search) || home(bank).contains(search) || bank.id == search;
        let in_country = countries == "*" || countries.split(',').any(|country| country.trim() == bank.country);
        let of_kind = match kind.as_str() {
            "" | "voa" | "voi" | "stateagg" | "transagg" | "ach" | "aha" | "availbalance" | "accountowner" => true,
            "loanpaymentdetails" | "studentloandata" => bank.accounts.iter().any(|account| account.contains("oan")),
            _ => false,
        };
        is_found && in_country && of_kind
    };
    BANKS.iter().filter(matches).collect()
}

fn home(bank: &Bank) -> String {
    format!("https://{}.example.com", bank.name.to_lowercase().replace(' ', "-"))
}

fn search(world: &mut World, call: &Call) -> Outcome {
    let page = Page::of(call, 25);
    let mut body = page.wrap("institutions", matching(call).into_iter().map(institution).collect());
    body.set("createdDate", &world.now());
    Reply::ok(&body)
}

fn certified(world: &mut World, call: &Call) -> Outcome {
    let with_rssd = call.operation.template().ends_with("/rssd");
    let rows = matching(call).into_iter().map(|bank| {
        let mut row = capabilities(bank);
        row.set("productionStatus", &production_status(bank));
        if with_rssd {
            let rssd = id_number(bank) + 900_000;
            row.set("rssd", &rssd);
            row.set("childInstitutions", &json!([{
                "rssd": rssd + 1, "parentRSSD": rssd, "name": format!("{} Branch", bank.name), "institutionId": id_number(bank),
            }]));
        }
        row
    });
    let mut body = Page::of(call, 25).wrap("institutions", rows.collect());
    body.set("requestedDate", &world.now());
    Reply::ok(&body)
}

fn of_path(call: &Call) -> Result<&'static Bank, Failure> {
    find(call.param("institutionId")).ok_or_else(|| Failure::not_found("14001", "Institution"))
}

fn one(_: &mut World, call: &Call) -> Outcome {
    Reply::ok(&json!({"institution": institution(of_path(call)?)}))
}

fn branding(_: &mut World, call: &Call) -> Outcome {
    Reply::ok(&json!({"branding": brand(of_path(call)?)}))
}

fn by_routing_number(world: &mut World, call: &Call) -> Outcome {
    let number = call.param("routingNumber");
    if number.len() != 9 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::invalid("routing_number", "nine digits"));
    }
    let rows = BANKS.iter().filter(|bank| bank.routing_number == number).map(|bank| {
        let mut row = institution(bank);
        row.set("countryCodes", &json!([{"countryCode": bank.country.to_uppercase()}]));
        row.set("paymentInitiation", &false);
        row
    });
    let rows: Vec<Value> = rows.collect();
    if rows.is_empty() {
        return Err(Failure::not_found("14001", "Institution"));
    }
    let mut body = Page::of(call, 25).wrap("institutions", rows);
    body.set("createdDate", &world.now());
    Reply::ok(&body)
}

fn id_number(bank: &Bank) -> u64 {
    parse_id(bank.id)
}

fn capabilities(bank: &Bank) -> Value {
    let has = |kind: &str| bank.accounts.iter().any(|account| account.contains(kind));
    json!({
        "id": id_number(bank), "name": bank.name, "transAgg": true, "ach": has("checking"), "stateAgg": has("checking"), "voi": true,
        "voa": true, "aha": has("checking"), "availBalance": has("checking"), "accountOwner": true, "studentLoanData": has("studentLoan"),
        "loanPaymentDetails": has("oan"), "liabilityData": has("oan"), "billPayData": false, "oauthEnabled": bank.oauth,
    })
}

fn production_status(bank: &Bank) -> Value {
    let status = bank.status;
    json!({
        "overallStatus": status, "transAgg": status, "stateAgg": status, "voa": status, "voi": status, "ach": status, "aha": status,
    })
}

fn brand(bank: &Bank) -> Value {
    let home = home(bank);
    json!({
        "logo": format!("{home}/logo.svg"), "alternateLogo": format!("{home}/alternate.svg"), "icon": format!("{home}/icon.svg"),
        "primaryColor": "#1B5E3F", "tile": format!("{home}/tile.svg"),
    })
}

fn institution(bank: &Bank) -> Value {
    let home = home(bank);
    let mut row = capabilities(bank);
    let rest = json!({
        "displayName": bank.name, "accountTypeDescription": "Banking", "phone": "555-010-0100", "urlHomeApp": home,
        "urlLogonApp": format!("{home}/login"), "urlForgotPassword": format!("{home}/forgot"),
        "urlOnlineRegistration": format!("{home}/register"), "class": "banking", "specialText": format!("Sign in to {}", bank.name),
        "timeZone": "America/Denver", "specialInstructions": ["Any user name and password will do."],
        "specialInstructionsTitle": "Sandbox", "currency": if bank.country == "ca" { "CAD" } else { "USD" }, "email": "help@example.com",
        "status": bank.status,
        "address": {
            "city": "Salt Lake City", "state": "UT", "country": bank.country.to_uppercase(), "postalCode": "84101",
            "addressLine1": "1 Analytical Way", "addressLine2": "Floor 2",
        },
    });
    super::call::merge(&mut row, &rest);
    row.set("branding", &brand(bank));
    row.set("productionStatus", &production_status(bank));
    row
}
