//! The control API and the flags: faults, fixtures, reset, recorded requests, certificates.

use std::{fs, io};

use serde_json::{Value, json};

use crate::support::{
    process::{Process, program},
    sandbox::{Caller, JsonClient as _, SANDBOX_APP_KEY, SANDBOX_ID, Sandbox},
};

const CUSTOMERS: &str = "/aggregation/v1/customers";

fn caller() -> (Sandbox, Caller) {
    let sandbox = Sandbox::start(&[]);
    let caller = Caller::new(&sandbox, SANDBOX_ID);
    (sandbox, caller)
}

#[test]
fn a_fault_has_its_configured_status_code_and_shape() {
    let (_sandbox, mut caller) = caller();
    for (fault, expected) in [
        (json!({"status": 503, "code": "42", "message": "gone"}), r#"{"code":"42","message":"gone"}"#),
        (
            json!({"status": 500, "shape": "xml", "code": "1", "message": "<&"}),
            "<error><code>1</code><message>&lt;&amp;</message></error>",
        ),
        (json!({"status": 401, "shape": "text", "message": "no"}), "no"),
        (json!({"status": 429, "retryAfter": 7}), ""),
        (json!({"status": 502, "body": "<html>", "contentType": "text/html"}), "<html>"),
    ] {
        let mut fault = fault.clone();
        fault["operation"] = json!("GET /aggregation/v1/customers");
        fault["count"] = json!(1);
        caller.ok(204, "POST", "/sandbox/faults", &fault);
        let response = caller.json("GET", CUSTOMERS, &[], &Value::Null);
        assert_eq!(
            (u64::from(response.status), response.text().as_str()),
            (fault["status"].as_u64().unwrap(), expected)
        );
        assert_eq!(response.header("retry-after"), fault["retryAfter"].as_u64().map(|_| "7"));
        assert_eq!(caller.json("GET", CUSTOMERS, &[], &Value::Null).status, 200);
    }
    assert_eq!(caller.ok(200, "GET", "/sandbox/faults", &Value::Null).as_array().unwrap().len(), 5);
    caller.ok(204, "DELETE", "/sandbox/faults", &Value::Null);
    let error = caller.ok(400, "POST", "/sandbox/faults", &json!({"status": 1}));
    assert_eq!(error["code"], "sandbox_fault");
}

#[test]
fn a_fault_resets_truncates_or_drips() {
    let (sandbox, mut caller) = caller();
    let mut add = |action: &str| {
        let fault =
            json!({"operation": "GET /aggregation/v1/customers", "action": action, "count": 1, "interval": "1ms"});
        caller.ok(204, "POST", "/sandbox/faults", &fault);
        Caller { client: sandbox.connect(), token: caller.token.clone() }
    };
    let request = |caller: &Caller| {
        format!(
            "GET {CUSTOMERS} HTTP/1.1\r\nHost: x\r\nFinicity-App-Key: {SANDBOX_APP_KEY}\r\nFinicity-App-Token: {}\r\n\r\n",
            caller.token
        )
    };
    let mut reset = add("reset");
    let text = request(&reset);
    reset.client.send(text);
    let error = reset.client.read_response(false).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof), "{error}");

    let mut truncated = add("truncate");
    let text = request(&truncated);
    truncated.client.send(text);
    let error = truncated.client.read_response(false).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof), "{error}");

    let mut dripping = add("drip");
    let whole = dripping.json("GET", CUSTOMERS, &[], &Value::Null);
    assert_eq!(serde_json::from_slice::<Value>(&whole.body).unwrap()["found"], 1);
    let mut late = add("truncate");
    late.ok(204, "DELETE", "/sandbox/faults", &Value::Null);
    late.ok(204, "POST", "/sandbox/faults", &json!({"latency": "10ms", "count": 1}));
    assert_eq!(late.json("GET", CUSTOMERS, &[], &Value::Null).status, 200);
}

#[test]
fn requests_are_recorded_without_their_credentials() {
    let (_sandbox, mut caller) = caller();
    caller.json("GET", "/aggregation/v1/customers?search=x", &["X-Mine: 1"], &Value::Null);
    let shown = caller.client.get("/sandbox/requests").text();
    for secret in [SANDBOX_APP_KEY, caller.token.as_str()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let recorded: Value = serde_json::from_str(&shown).unwrap();
    let last = recorded["requests"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["target"], &last["status"], &last["token"]),
        (&json!("/aggregation/v1/customers?search=x"), &json!(200), &json!("valid"))
    );
    caller.ok(204, "DELETE", "/sandbox/requests", &Value::Null);
    assert_eq!(caller.ok(200, "GET", "/sandbox/requests", &Value::Null)["requests"], json!([]));
}

#[test]
fn a_dump_can_be_loaded_as_a_fixture() {
    let (_sandbox, mut caller) = caller();
    caller.ok(201, "POST", "/aggregation/v2/customers/testing", &json!({"username": "kept"}));
    let dump = caller.ok(200, "GET", "/sandbox/fixtures", &Value::Null);
    caller.ok(204, "POST", "/sandbox/reset", &Value::Null);
    let mut again = Caller { client: caller.client, token: String::new() };
    again.ok(204, "PUT", "/sandbox/fixtures", &dump);
    assert_eq!(again.ok(200, "GET", "/sandbox/fixtures", &Value::Null), dump);
    for wrong in [json!([]), json!({"customers": [1]}), json!({"customers": {"1": 2}})] {
        assert_eq!(again.ok(400, "PUT", "/sandbox/fixtures", &wrong)["code"], "sandbox_fixture");
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fixtures.json");
    let fixture = json!({
        "customers": {"77": {"id": "77", "username": "from-a-file", "type": "testing", "createdDate": "1"}},
        "accounts": {"88": {"customerId": "77", "type": "savings", "balance": 12.5}},
    });
    fs::write(&file, fixture.to_string()).unwrap();
    let sandbox = Sandbox::start(&[
        "--fixtures",
        file.to_str().unwrap(),
        "--fault",
        r#"{"operation":"GET /applications","status":418}"#,
    ]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let account = &caller.ok(200, "GET", "/aggregation/v1/customers/77/accounts", &Value::Null)["accounts"][0];
    assert_eq!(
        (&account["id"], &account["balance"], &account["currency"]),
        (&json!("88"), &json!(12.5), &json!("USD"))
    );
    caller.ok(418, "GET", "/applications", &Value::Null);
}

#[test]
fn unusable_arguments_are_reported_at_startup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.json");
    fs::write(&file, "{").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, name) in [
        (vec!["--fixtures", file], "--fixtures"),
        (vec!["--fixtures", "/nowhere/x"], "--fixtures"),
        (vec!["--fault", r#"{"status":5}"#], "fault"),
        (vec!["--name", "not a name"], "not a name"),
        (vec!["--ca-dir", file], "x.json"),
    ] {
        let mut command = program();
        command.current_dir(folder.path()).args(["sandbox", "--listen", "127.0.0.1:0"]).args(&arguments);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(1), "{}", process.output());
        assert!(process.output().contains(name), "{}", process.output());
    }
}

#[test]
fn a_persistent_ca_and_extra_names_serve_other_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    let start = || {
        let mut command = program();
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--name", "finicity.internal", "--ca-dir"]).arg(&dir);
        let process = Process::start(command);
        process.wait_for_line(|line| line == "finicity-proxy serve");
        let port: u16 = process.output().split(';').next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        assert!(
            process.output().contains(&format!("FINICITY__UPSTREAM__URL='https://finicity.internal:{port}'")),
            "{}",
            process.output()
        );
        Sandbox::of(process, port, dir.join("ca.pem"))
    };
    let first = start();
    let ca = fs::read(&first.ca_file).unwrap();
    assert_eq!(first.connect_as("finicity.internal").get("/sandbox/health").status, 200);
    drop(first);
    let second = start();
    assert_eq!(fs::read(&second.ca_file).unwrap(), ca);
    assert_eq!(second.connect_as("finicity.internal").get("/sandbox/ca.pem").body, ca);
    assert_eq!(second.connect().get("/sandbox/health").status, 200);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.join("ca-key.pem")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
