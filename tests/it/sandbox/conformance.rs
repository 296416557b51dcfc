//! Every operation, called at least once, and every documented status, compared with the OpenAPI description of the vendor.
//!
//! The description is not part of the project: `FINICITY_OPENAPI` has its path. Without it, the calls are made nevertheless, and only
//! their statuses are checked.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    process::Command,
};

use serde_json::{Value, json};

use crate::support::{
    client::Response,
    sandbox::{Caller, JsonClient as _, Receiver, SANDBOX_APP_KEY, SANDBOX_ID, SANDBOX_SECRET, Sandbox, notice},
};

/// One call per line: the operation, path parameters, query, body, expected status, and JSON pointers to values of the response that are
/// kept for later calls. `{name}` is replaced by the kept value.
const CALLS: &str = include_str!("operations.jsonl");

/// The path of the description, from the environment.
fn description() -> Option<OsString> {
    let path = env::var_os("FINICITY_OPENAPI").filter(|path| !path.is_empty());
    if path.is_none() {
        notice("conformance: FINICITY_OPENAPI is not set, so no response is compared with the vendor's schemas");
    }
    path
}

/// Runs `conformance.py`, and returns its output.
#[track_caller]
fn compare(description: &OsStr, arguments: &[&OsStr]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sandbox/conformance.py");
    let output = Command::new("python3").arg(script).arg(description).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Values kept from earlier responses.
struct Kept(BTreeMap<String, String>);

impl Kept {
    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.fill_value(item)).collect(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), self.fill_value(value))).collect()
            }
            other => other.clone(),
        }
    }

    /// `template` with its parameters, which are looked up by their camel case names in the call and then in the kept values.
    fn path(&self, template: &str, params: &Value) -> String {
        let segments = template.split('/').map(|segment| {
            let Some(name) = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) else {
                return segment.to_owned();
            };
            let mut words = name.split('_');
            let mut camel = words.next().unwrap().to_owned();
            camel.extend(words.map(|word| word[..1].to_uppercase() + &word[1..]));
            match params[&camel].as_str() {
                Some(value) => self.fill(value),
                None => self.0.get(&camel).cloned().unwrap_or_else(|| panic!("{template}: nothing kept as {camel}")),
            }
        });
        segments.collect::<Vec<_>>().join("/")
    }

    fn keep(&mut self, name: &str, value: &Value) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if name == "portfolioId" {
            let parts: Vec<&str> = text.split('-').collect();
            self.0.insert("portfolioId|0".to_owned(), format!("{}-0-port", parts[0]));
        }
        self.0.insert(name.to_owned(), text);
    }
}

/// Makes the calls of [`CALLS`]. Returns the label and the response of each.
fn make_calls(caller: &mut Caller) -> Vec<(String, Response)> {
    let receiver = Receiver::start(200);
    let mut kept = Kept(BTreeMap::from([("receiver".to_owned(), receiver.url())]));
    let mut responses = Vec::new();
    for line in CALLS.lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        let label = call["op"].as_str().unwrap();
        let (method, template) = label.trim_start_matches("CONTROL ").split_once(' ').unwrap();
        let query = call["query"].as_str().map(|query| format!("?{}", kept.fill(query))).unwrap_or_default();
        let target = kept.path(template, &call["params"]) + &query;
        let response = caller.json(method, &target, &[], &kept.fill_value(&call["body"]));
        assert_eq!(u64::from(response.status), call["status"].as_u64().unwrap(), "{label}: {}", response.text());
        for (name, pointer) in call["keep"].as_object().into_iter().flatten() {
            let body: Value = serde_json::from_slice(&response.body).unwrap();
            kept.keep(name, body.pointer(pointer.as_str().unwrap()).unwrap_or_else(|| panic!("{label}: no {pointer}")));
        }
        responses.push((label.to_owned(), response));
    }
    responses
}

/// Requests a token and rotates the secret, which [`CALLS`] cannot express.
fn make_token_requests(sandbox: &Sandbox) -> Vec<(String, Response)> {
    let mut client = sandbox.connect();
    let key = format!("Finicity-App-Key: {SANDBOX_APP_KEY}");
    let path = "/aggregation/v2/partners/authentication";
    let id = "sandbox-client.rotated";
    let token = client.json("POST", path, &[&key], &json!({"partnerId": id, "partnerSecret": SANDBOX_SECRET}));
    let new = json!({"partnerId": id, "partnerSecret": SANDBOX_SECRET, "newPartnerSecret": "another-Secret-2!"});
    let rotated = client.json("PUT", path, &[&key], &new);
    vec![(format!("POST {path}"), token), (format!("PUT {path}"), rotated)]
}

/// One response in the input format of `conformance.py`.
fn line(label: &str, response: &Response) -> String {
    let media = response.header("content-type").unwrap_or("").split(';').next().unwrap();
    json!({"operation": label, "status": response.status, "type": media, "body": response.text()}).to_string()
}

#[test]
fn every_operation_and_status_matches_the_vendor_schema() {
    let sandbox = Sandbox::start(&[]);
    let mut caller = Caller::new(&sandbox, SANDBOX_ID);
    let mut responses = make_calls(&mut caller);
    responses.extend(make_token_requests(&sandbox));
    let Some(description) = description() else { return };
    let operations: Vec<(String, Vec<String>)> =
        serde_json::from_str(&compare(&description, &["list".as_ref()])).unwrap();
    assert_eq!(operations.len(), 156);
    responses.retain(|(label, _)| operations.iter().any(|(documented, _)| documented == label));
    for (label, statuses) in &operations {
        let (method, template) = label.split_once(' ').unwrap();
        let path: Vec<&str> =
            template.split('/').map(|segment| if segment.starts_with('{') { "1" } else { segment }).collect();
        for status in statuses.iter().filter(|status| !status.starts_with('2')) {
            let fault = json!({"operation": label, "status": status.parse::<u16>().unwrap(), "count": 1});
            caller.ok(204, "POST", "/sandbox/faults", &fault);
            let response = caller.json(method, &path.join("/"), &[], &Value::Null);
            assert_eq!(response.status.to_string(), *status, "{label}");
            responses.push((label.clone(), response));
        }
        caller.ok(204, "DELETE", "/sandbox/faults", &Value::Null);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: Vec<String> = responses.iter().map(|(label, response)| line(label, response)).collect();
    fs::write(file.path(), lines.join("\n")).unwrap();
    let problems = compare(&description, &["check".as_ref(), file.path().as_os_str()]);
    assert!(problems.is_empty(), "{problems}");
}
