//! Records of the partner: registered applications, third-party access, Connect experiences.

use serde_json::Value;

use super::value::{Record as _, json, parse_id};
use super::{
    call::{Call, pick},
    dates::date_time,
    institutions,
    paging::Page,
    reply::{Failure, Outcome, Reply},
    route::Route,
    world::World,
};

const APPLICATION: &str = "appDescription*:s appName*:s appUrl*:s ownerAddressLine1*:s ownerAddressLine2*:s ownerCity*:s ownerCountry*:s \
    ownerName*:s ownerPostalCode*:s ownerState*:s image*:s";

const ACCESS: &str = "customerId*:s partnerId*:s thirdPartyPartnerId*:s provenance:{clientFingerprint:s ipAddress:s token:s} \
    products*:[{product*:s payorId:s maxCalls:i accountId*:s accessPeriod*:{type*:s startTime*:t endTime*:t}}]";

pub(super) const ROUTES: &[Route] = &[
    Route::new("POST", "/aggregation/v1/partners/applications", register).body(APPLICATION),
    Route::new("PUT", "/aggregation/v1/partners/applications/{preAppId}", change).body(APPLICATION),
    Route::new("GET", "/aggregation/v2/partners/applications", registrations).query(
        "preAppId:s applicationId:s status:s appName:s submittedDate:i modifiedDate:i page:i(1,) pageSize:i(1,)",
    ),
    Route::new("GET", "/applications", applications)
        .query("start:i limit:i(1,100) pre_app_id:i application_id:s name:s status:s"),
    Route::new("GET", "/applications/{application_id}/institutions", registered_institutions)
        .query("start:i limit:i(1,1000) institution_id:i"),
    Route::new("POST", "/aggregation/v1/partners/accessKey", grant).body(ACCESS),
    Route::new("PUT", "/aggregation/v1/partners/accessKey/{consentReceiptId}", regrant).body(ACCESS),
    Route::new("DELETE", "/aggregation/v1/partners/accessKey/{consentReceiptId}", revoke),
    Route::new("GET", "/connect/experiences", experiences).query("productCode:s appName*:s"),
    Route::new("POST", "/connect/experiences/{experience_id}/duplicate", duplicate).body("indirectPartnerId*:i"),
];

fn register(world: &mut World, call: &Call) -> Outcome {
    let nth = world.next("applications");
    let id = (1000 + parse_id(&nth)).to_string();
    let application = world.uuid(&["application", &id]);
    let now = world.now();
    let record = json!({
        "preAppId": id, "applicationId": application, "appName": call.body.at("appName"), "status": "P", "submittedDate": now, "modifiedDate": now,
    });
    world.put("applications", &id, record);
    Ok(Reply::json(201, &json!({"preAppId": parse_id(&id), "status": "P"})))
}

fn change(world: &mut World, call: &Call) -> Outcome {
    let now = world.now();
    let Some(application) = world.get_mut("applications", call.param("preAppId")) else {
        return Err(Failure::not_found("14001", "Application"));
    };
    application.set("appName", call.body.at("appName"));
    application.set("modifiedDate", &now);
    let number = parse_id(application.text("preAppId"));
    Reply::ok(&json!({"preAppId": number, "status": application.at("status")}))
}

/// The applications that match the query. `filters` pairs query parameters with the members that they are compared with.
fn chosen(world: &World, call: &Call, filters: [(&str, &str); 4]) -> Vec<Value> {
    let matches = |row: &&Value| {
        filters.iter().all(|(param, member)| call.query(param).is_none_or(|value| row.at(member) == value))
    };
    world.all("applications").filter(matches).map(Value::copy).collect()
}

fn registrations(world: &mut World, call: &Call) -> Outcome {
    let filters =
        [("preAppId", "preAppId"), ("applicationId", "applicationId"), ("status", "status"), ("appName", "appName")];
    let rows = chosen(world, call, filters);
    let number =
        |name, default: usize| call.number(name).and_then(|number| usize::try_from(number).ok()).unwrap_or(default);
    let (page, size, total) = (number("page", 1), number("pageSize", 25), rows.len());
    let shown: Vec<Value> = rows
        .into_iter()
        .skip((page - 1) * size)
        .take(size)
        .map(|mut row| {
            row.set("partnerId", &call.partner_id);
            row.set("scopes", &"Account Info");
            row.set("institutionDetails", &json!([]));
            row
        })
        .collect();
    Reply::ok(&json!({
        "totalRecords": total, "totalPages": total.div_ceil(size), "pageNumber": page, "numberOfRecordsPerPage": size, "applications": shown,
    }))
}

fn applications(world: &mut World, call: &Call) -> Outcome {
    let filters =
        [("pre_app_id", "preAppId"), ("application_id", "applicationId"), ("status", "status"), ("name", "appName")];
    let rows = chosen(world, call, filters).into_iter().map(|row| {
        let at = |name: &str| date_time(row.at(name).as_i64().unwrap_or(0));
        json!({
            "preAppId": row.at("preAppId").as_str().and_then(|id| id.parse::<u64>().ok()), "applicationId": row.at("applicationId"),
            "status": row.at("status"), "name": row.at("appName"), "scopes": "Account Info", "createdDate": at("submittedDate"),
            "modifiedDate": at("modifiedDate"), "submittedDate": at("submittedDate"),
        })
    });
    Reply::ok(&Page::of(call, 25).wrap("applications", rows.collect()))
}

fn registered_institutions(world: &mut World, call: &Call) -> Outcome {
    if world.having("applications", "applicationId", call.param("applicationId")).is_empty() {
        return Err(Failure::not_found("14001", "Application"));
    }
    let now = date_time(world.now());
    let wanted = |bank: &&institutions::Bank| call.query("institution_id").is_none_or(|id| bank.id == id);
    let rows = institutions::BANKS.iter().filter(wanted).map(|bank| {
        let id = parse_id(bank.id);
        json!({"institutionId": id, "institutionName": bank.name, "status": true, "createdDate": now, "modifiedDate": now})
    });
    Reply::ok(&Page::of(call, 25).wrap("institutions", rows.collect()))
}

fn receipt(world: &World, call: &Call, id: &str) -> Value {
    let mut receipt = pick(call.body, &["customerId", "partnerId", "products", "provenance"]);
    let now = date_time(world.now());
    receipt.set("profile", &3);
    receipt.set("version", &"1");
    receipt.set("receiptId", &id);
    receipt.set("timestamp", &now);
    receipt.at_mut("provenance").set("token", &world.hex_id(&["access key", id]));
    json!({"data": [{
        "receipt": receipt,
        "proof": {"signature": world.hex_id(&["proof", id]), "keyId": "sandbox-key", "timestamp": now},
    }]})
}

fn grant(world: &mut World, call: &Call) -> Outcome {
    if world.get("customers", call.text("customerId")).is_none() {
        return Err(Failure::not_found("14001", "Customer"));
    }
    let nth = world.next("accessKeys");
    let id = format!("cr_{}", world.hex_id(&["access", &nth]));
    world.put("accessKeys", &id, json!({"customerId": call.text("customerId")}));
    Reply::ok(&receipt(world, call, &id))
}

fn regrant(world: &mut World, call: &Call) -> Outcome {
    let id = call.param("consentReceiptId");
    if world.get("accessKeys", id).is_none() {
        return Err(Failure::not_found("14001", "Access"));
    }
    Reply::ok(&receipt(world, call, id))
}

fn revoke(world: &mut World, call: &Call) -> Outcome {
    match world.remove("accessKeys", call.param("consentReceiptId")) {
        Some(_) => Reply::empty(204),
        None => Err(Failure::not_found("14001", "Access")),
    }
}

fn experiences(world: &mut World, call: &Call) -> Outcome {
    let name = call.query("appName").unwrap_or("");
    Reply::ok(&json!([{"id": world.uuid(&["experience", name]), "appName": name, "productCode": ["ABC", "AO"]}]))
}

fn duplicate(world: &mut World, call: &Call) -> Outcome {
    let id = call.param("experienceId");
    super::validate::check_body("experience_id*:g", &json!({"experience_id": id}))?;
    Reply::ok(&json!({"experienceId": world.uuid(&["experience", id])}))
}
