//! The state of the sandbox: a change by one call is visible in the next one.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::sandbox::{Caller, JsonClient as _, Receiver, SANDBOX_ID, Sandbox, notice};

/// The built-in customer of every seed, and its accounts.
const FIRST: &str = "/aggregation/v1/customers/1005061234";
const CHECKING: &str = "/aggregation/v1/customers/1005061234/accounts/5011648377";
const HISTORY: &str =
    "/aggregation/v4/customers/1005061234/accounts/5011648377/transactions?fromDate=0&toDate=4000000000";

fn caller() -> (Sandbox, Caller) {
    let sandbox = Sandbox::start(&[]);
    let caller = Caller::new(&sandbox, SANDBOX_ID);
    (sandbox, caller)
}

fn names(list: &Value) -> Vec<&str> {
    list["customers"].as_array().unwrap().iter().map(|row| row["username"].as_str().unwrap()).collect()
}

#[test]
fn customers_are_filtered_paged_changed_and_removed() {
    let (_sandbox, mut caller) = caller();
    for (kind, username, first) in [("testing", "ann", "Ann"), ("testing", "bob", "Bob"), ("active", "cy", "Ann Cy")] {
        caller.ok(
            201,
            "POST",
            &format!("/aggregation/v2/customers/{kind}"),
            &json!({"username": username, "firstName": first}),
        );
    }
    let mut list = |query: &str| caller.ok(200, "GET", &format!("/aggregation/v1/customers?{query}"), &Value::Null);
    assert_eq!(names(&list("type=active")), ["cy"]);
    assert_eq!(names(&list("type=testing")).len(), 3);
    assert_eq!(names(&list("username=&type=&search=")).len(), 4);
    assert_eq!(names(&list("username=bob")), ["bob"]);
    assert_eq!(names(&list("search=ANN")).len(), 2);
    let page = list("start=3&limit=2");
    assert_eq!((&page["found"], &page["displaying"], &page["moreAvailable"]), (&json!(4), &json!(2), &json!(false)));
    assert_eq!(list("start=1&limit=3")["moreAvailable"], true);
    for wrong in ["start=0", "limit=1001", "limit=x", "type=other"] {
        let error = caller.ok(400, "GET", &format!("/aggregation/v1/customers?{wrong}"), &Value::Null);
        assert!(error["message"].as_str().unwrap().contains(wrong.split('=').next().unwrap()), "{error}");
    }
    caller.ok(204, "PUT", FIRST, &json!({"lastName": "Byron"}));
    assert_eq!(caller.ok(200, "GET", FIRST, &Value::Null)["lastName"], "Byron");
    caller.ok(204, "DELETE", FIRST, &Value::Null);
    caller.ok(404, "GET", CHECKING, &Value::Null);
}

#[test]
fn accounts_are_created_only_by_a_connect_flow() {
    let (_sandbox, mut caller) = caller();
    let new = caller.ok(201, "POST", "/aggregation/v2/customers/testing", &json!({"username": "new"}));
    let customer = new["id"].as_str().unwrap();
    let accounts = format!("/aggregation/v1/customers/{customer}/accounts");
    assert_eq!(caller.ok(200, "GET", &accounts, &Value::Null), json!({"accounts": []}));
    let link =
        caller.ok(200, "POST", "/connect/v2/generate", &json!({"partnerId": SANDBOX_ID, "customerId": customer}));
    caller.ok(200, "POST", "/sandbox/connect/complete", &json!({"link": link["link"], "institutionId": "200105"}));
    let list = caller.ok(200, "GET", &accounts, &Value::Null);
    let kinds: Vec<&str> =
        list["accounts"].as_array().unwrap().iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["investment", "ira", "401k"]);
    let id = list["accounts"][0]["id"].as_str().unwrap();
    caller.ok(404, "GET", &format!("{FIRST}/accounts/{id}"), &Value::Null);
    caller.ok(204, "DELETE", &format!("{accounts}/{id}"), &Value::Null);
    assert_eq!(caller.ok(200, "GET", &accounts, &Value::Null)["accounts"].as_array().unwrap().len(), 2);
}

#[test]
fn transactions_include_the_history_and_added_ones() {
    let (_sandbox, mut caller) = caller();
    let all = caller.ok(200, "GET", &format!("{HISTORY}&limit=1000"), &Value::Null);
    let rows = all["transactions"].as_array().unwrap();
    assert_eq!((rows.len(), &all["moreAvailable"]), (1000, &json!("true")));
    let dates: Vec<i64> = rows.iter().map(|row| row["postedDate"].as_i64().unwrap()).collect();
    assert!(dates.is_sorted_by(|one, next| one >= next));
    let next = caller.ok(200, "GET", &format!("{HISTORY}&limit=1000&start=1001"), &Value::Null);
    assert_eq!(next["moreAvailable"], "false");
    assert_eq!(all["found"].as_u64().unwrap(), 1000 + next["transactions"].as_array().unwrap().len() as u64);
    let (from, to) = (dates[900], dates[700]);
    let range = HISTORY.replace("fromDate=0&toDate=4000000000", &format!("fromDate={from}&toDate={to}&sort=asc"));
    let part = caller.ok(200, "GET", &format!("{range}&limit=1000"), &Value::Null);
    assert!(
        part["transactions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| (from..=to).contains(&row["postedDate"].as_i64().unwrap()))
    );
    assert_eq!(part["transactions"][0]["postedDate"], from);
    let one = caller.ok(
        200,
        "GET",
        &format!("/aggregation/v2/customers/1005061234/transactions/{}", rows[3]["id"]),
        &Value::Null,
    );
    assert_eq!(one, rows[3]);

    let receiver = Receiver::start(200);
    let subscribed = caller.ok(201, "POST", &format!("{CHECKING}/txpush"), &json!({"callbackUrl": receiver.url()}));
    assert_eq!(subscribed["subscriptions"].as_array().unwrap().len(), 2);
    let added = json!({"amount": -7.25, "description": "Added", "transactionDate": 1_900_000_000});
    let id = caller.ok(201, "POST", &format!("{CHECKING}/transactions"), &added)["id"].clone();
    let newest = &caller.ok(200, "GET", &format!("{HISTORY}&limit=1"), &Value::Null)["transactions"][0];
    assert_eq!((&newest["id"], &newest["description"]), (&id, &json!("Added")));
    assert_eq!(receiver.wait_for(1)[0].json()["event"]["records"][0]["id"], id);
}

#[test]
fn a_callback_that_does_not_return_the_code_is_rejected() {
    let (_sandbox, mut caller) = caller();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error =
        caller.ok(400, "POST", &format!("{CHECKING}/txpush"), &json!({"callbackUrl": format!("http://{closed}/")}));
    assert!(error["message"].as_str().unwrap().contains("callbackUrl"), "{error}");
}

#[test]
fn a_report_is_in_progress_first_and_then_json_or_pdf() {
    let (_sandbox, mut caller) = caller();
    let report =
        caller.ok(202, "POST", "/decisioning/v2/customers/1005061234/voa", &json!({"accountIds": "5011648377"}));
    let path = format!("/decisioning/v3/customers/1005061234/reports/{}", report["id"].as_str().unwrap());
    assert_eq!(caller.ok(200, "GET", &path, &Value::Null)["status"], "inProgress");
    let complete = caller.ok(200, "GET", &path, &Value::Null);
    assert_eq!(complete["status"], "success");
    assert_eq!(complete["institutions"][0]["accounts"].as_array().unwrap().len(), 1);
    let pdf = caller.json("GET", &path, &["Accept: application/pdf"], &Value::Null);
    assert_eq!(pdf.header("content-type"), Some("application/pdf"));
    assert!(pdf.body.starts_with(b"%PDF-1.4") && pdf.body.ends_with(b"%%EOF\n"));
    let list = caller.ok(200, "GET", "/decisioning/v1/customers/1005061234/reports", &Value::Null);
    assert_eq!(list["reports"][0]["status"], "success");

    let receiver = Receiver::start(200);
    let target = format!("/decisioning/v2/customers/1005061234/voi?callbackUrl={}", receiver.url());
    let report = caller.ok(202, "POST", &target, &json!({}));
    let event = receiver.wait_for(1)[0].clone();
    assert_eq!((&event.json()["reportId"], &event.json()["status"]), (&report["id"], &json!("success")));
    assert_eq!(event.header("x-finicity-signature"), None);
    let path = format!("/decisioning/v3/customers/1005061234/reports/{}", report["id"].as_str().unwrap());
    assert_eq!(caller.ok(200, "GET", &path, &Value::Null)["status"], "success");
}

#[test]
fn usernames_select_scenarios() {
    let (_sandbox, mut caller) = caller();
    let mut customer = |username: &str| {
        let created = caller.ok(201, "POST", "/aggregation/v2/customers/testing", &json!({"username": username}));
        let path = format!("/aggregation/v1/customers/{}", created["id"].as_str().unwrap());
        caller.ok(200, "POST", &format!("{path}/institutions/4222/accounts/addall"), &json!({}));
        path
    };
    let (bank, report) = (customer("aggregation-103"), customer("report-failure"));
    assert_eq!(
        caller.ok(200, "POST", &format!("{bank}/accounts"), &Value::Null)["accounts"][0]["aggregationStatusCode"],
        103
    );
    let decisioning = report.replace("aggregation/v1", "decisioning/v1");
    caller.ok(
        201,
        "POST",
        &format!("{decisioning}/consumer"),
        &json!({"firstName": "A", "lastName": "B", "state": "UT"}),
    );
    let voa = format!("{}/voa", report.replace("aggregation/v1", "decisioning/v2"));
    let started = caller.ok(202, "POST", &voa, &json!({}));
    let path = format!("{}/reports/{}", decisioning.replace("v1", "v3"), started["id"].as_str().unwrap());
    caller.ok(200, "GET", &path, &Value::Null);
    assert_eq!(caller.ok(200, "GET", &path, &Value::Null)["status"], "failure");
}

#[test]
fn invalid_request_fields_are_named() {
    let (_sandbox, mut caller) = caller();
    for (method, target, body, name) in [
        ("POST", "/aggregation/v2/customers/testing", json!({}), "username"),
        ("POST", "/aggregation/v2/customers/testing", json!({"username": 5}), "username"),
        ("POST", "/connect/v2/generate", json!({"customerId": "1005061234"}), "partnerId"),
        ("POST", "/connect/v2/generate/lite", json!({"customerId": "1", "partnerId": "1"}), "institutionId"),
        ("POST", "/decisioning/v1/customers/1005061234/consumer", json!({"firstName": "A", "lastName": "B"}), "state"),
        ("GET", "/aggregation/v3/customers/1005061234/transactions?toDate=1", Value::Null, "fromDate"),
        ("GET", "/aggregation/v1/customers/1005061234/accounts/5011648377/statement?index=0", Value::Null, "index"),
        (
            "POST",
            "/aggregation/v1/customers/1005061234/accounts/5011648377/transactions",
            json!({"amount": "1"}),
            "amount",
        ),
    ] {
        let error = caller.ok(400, method, target, &body);
        assert!(error["message"].as_str().unwrap().contains(&format!("({name})")), "{target}: {error}");
    }
    let unknown = caller.ok(404, "GET", "/no/such/operation", &Value::Null);
    assert_eq!(unknown["code"], "unknown_operation");
    assert_eq!(caller.ok(404, "PATCH", "/aggregation/v1/customers", &Value::Null)["code"], "unknown_operation");
}

#[test]
fn a_statement_is_a_valid_pdf() {
    let (_sandbox, mut caller) = caller();
    let statement = caller.json("GET", &format!("{CHECKING}/statement?index=2"), &[], &Value::Null);
    assert_eq!((statement.status, statement.header("content-type")), (200, Some("application/octet-stream")));
    assert!(statement.body.starts_with(b"%PDF-1.4"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &statement.body).unwrap();
    let text = Command::new("pdftotext").arg(file.path()).arg("-").stderr(Stdio::piped()).output();
    let Ok(text) = text else {
        notice("pdftotext is not installed, so the PDF is not opened");
        return;
    };
    let shown = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.status.success() && text.stderr.is_empty(), "{text:?}");
    assert!(shown.contains("Everyday Checking") && shown.contains("1005061234"), "{shown}");
}
