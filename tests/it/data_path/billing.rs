//! `policy.billable_per_day`: the budget of requests per day that the vendor can bill.

use std::{fs, path::Path};

use rustix::process::Signal;

use crate::support::{
    process::{Process, Proxy, program},
    upstream::{Gate, Reply, Upstream},
};

const BILLABLE: &str = "/aggregation/v1/customers/1/accounts";
const FREE: &str = "/aggregation/v1/customers";

fn vendor() -> Upstream {
    Upstream::start(3600, |request| match request.target() {
        "/aggregation/v1/customers/1/accounts?fails" => Reply::status(500, "Internal Server Error", "{}"),
        _ => Reply::json("{}"),
    })
}

fn start(upstream: &Upstream, per_day: &str, variables: &[(&str, &str)]) -> Proxy {
    let limit = [("FINICITY__POLICY__BILLABLE_PER_DAY", per_day)];
    Proxy::start_with(upstream, &[&limit, variables].concat())
}

#[test]
fn requests_over_the_budget_get_403_and_only_2xx_count() {
    let upstream = vendor();
    let proxy = start(&upstream, "3", &[]);
    let mut client = proxy.connect();
    proxy.wait_for_metric("billable_budget", 3);
    proxy.wait_for_metric("billable_budget_left", 3);
    for _ in 0..5 {
        assert_eq!(client.get("/aggregation/v1/customers/1/accounts?fails").status, 500);
        assert_eq!(client.get(FREE).status, 200);
    }
    proxy.wait_for_metric("billable_budget_left", 3);
    // Requests that are not in the catalogue count as billable.
    for target in [BILLABLE, "/unknown", BILLABLE] {
        assert_eq!(client.get(target).status, 200);
    }
    proxy.wait_for_metric("billable_budget_left", 0);
    for target in [BILLABLE, "/unknown", BILLABLE] {
        let response = client.get(target);
        response.assert_executed(403, "billing_budget_spent", "no");
        let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&seconds), "{seconds}");
    }
    assert_eq!(client.get(FREE).status, 200, "free requests are still forwarded");
    proxy.wait_for_metric(r#"policy_denials_total{reason="billing_budget_spent"}"#, 3);
    proxy.wait_for_metric(r#"errors_total{code="billing_budget_spent"}"#, 3);
    proxy.process.wait_for_line(|line| line.contains(r#""policy.denial":"billing_budget_spent""#));
}

#[test]
fn requests_in_flight_reserve_budget() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(3600, move |_| Reply::json("{}").held(&held));
    let proxy = start(&upstream, "1", &[]);
    let mut first = proxy.connect();
    first.send(format!("GET {BILLABLE} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    upstream.wait_for(BILLABLE);
    proxy.connect().get(BILLABLE).assert_problem(403, "billing_budget_spent");
    gate.open();
    assert_eq!(first.read_response(false).unwrap().status, 200);
    proxy.wait_for_metric("billable_budget_left", 0);
}

#[test]
fn report_mode_forwards_and_counts_billable_requests() {
    let upstream = vendor();
    let proxy = start(&upstream, "1", &[("FINICITY__POLICY__MODE", "report")]);
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.get(BILLABLE).status, 200);
    }
    proxy.wait_for_metric(r#"policy_denials_total{reason="billing_budget_spent"}"#, 2);
    proxy.wait_for_metric("billable_budget_left", 0);
}

/// Waits until the file contains `calls`, and returns its content.
fn wait_for_calls(dir: &Path, calls: u64) -> String {
    let deadline = std::time::Instant::now() + crate::support::TIMEOUT;
    loop {
        let text = fs::read_to_string(dir.join("billing.json")).unwrap_or_default();
        if text.contains(&format!(r#""billable_calls":{calls}}}"#)) {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
        std::thread::yield_now();
    }
}

#[test]
fn the_count_is_persisted_and_shared_through_the_state_dir() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = vendor();
    let state_dir = [("FINICITY__AUTH__STATE_DIR", dir.path().to_str().unwrap())];
    let mut proxy = start(&upstream, "4", &state_dir);
    assert_eq!(proxy.connect().get(BILLABLE).status, 200);
    // Written while the proxy runs, so that a crash loses at most one second of requests.
    wait_for_calls(dir.path(), 1);
    proxy.process.signal(Signal::KILL);
    proxy.process.wait();

    let proxies = [start(&upstream, "4", &state_dir), start(&upstream, "4", &state_dir)];
    for mut proxy in proxies {
        proxy.wait_for_metric("billable_budget_left", 3);
        assert_eq!(proxy.connect().get(BILLABLE).status, 200);
        proxy.process.signal(Signal::TERM);
        assert_eq!(proxy.process.wait().code(), Some(0));
    }
    let text = wait_for_calls(dir.path(), 3);
    assert!(text.starts_with(r#"{"version":1,"date":"20"#), "{text}");

    fs::write(dir.path().join("billing.json"), "spoiled").unwrap();
    let proxy = start(&upstream, "4", &state_dir);
    proxy.process.wait_for_log("cannot load a state file; its content is lost, and it will be replaced");
    proxy.wait_for_metric("billable_budget_left", 4);
}

#[test]
fn billable_allowed_exempts_operations_from_deny_billable() {
    let upstream = vendor();
    let variables = [
        ("FINICITY__POLICY__DENY_BILLABLE", "true"),
        ("FINICITY__POLICY__BILLABLE_ALLOWED", "GET /aggregation/v1/customers/{customerId}/accounts"),
    ];
    let proxy = start(&upstream, "1", &variables);
    let mut client = proxy.connect();
    client.get("/unknown").assert_problem(403, "route_denied");
    assert_eq!(client.get(BILLABLE).status, 200);
    client.get(BILLABLE).assert_problem(403, "billing_budget_spent");
    client.get("/unknown").assert_problem(403, "route_denied");
}

#[test]
fn check_shows_the_budget_and_rejects_an_invalid_one() {
    for (per_day, expected, code) in [
        ("500", "billing    at most 500 billable calls", 0),
        ("0", "policy     allows every request", 0),
        ("-1", "policy.billable_per_day", 78),
        ("many", "policy.billable_per_day", 78),
    ] {
        let mut command = program();
        command.arg("check").env("FINICITY__POLICY__BILLABLE_PER_DAY", per_day);
        for name in ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"] {
            command.env(name, "a-value-of-a-test-1");
        }
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(code), "{per_day}");
        assert!(process.output().contains(expected), "{}", process.output());
    }
}
