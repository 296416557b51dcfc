//! The operator's policy: which requests are permitted, and what happens to the others.

use finicity_proxy::vendor::catalogue::Catalogue;

use crate::support::{
    client::Client,
    process::{Process, Proxy, program},
    upstream::{Reply, Upstream},
};

const ALLOW: &str = "GET /aggregation/v1/customers/**, POST /aggregation/v2/customers/testing, * /aggregation/v1/customers/{id}/accounts/*";
const DENY: &str = "* /aggregation/v1/customers/{customerId}/accounts/simple";

/// Requests, and the reason for which the policy above denies each.
const REQUESTS: [(&str, &str, Option<&str>); 12] = [
    ("GET", "/aggregation/v1/customers?limit=5", None),
    ("GET", "/aggregation/v1/customers/1", None),
    ("GET", "/aggregation/v1/customers/%31", None),
    ("PUT", "/aggregation/v1/customers/1/accounts/2", None),
    ("PUT", "/aggregation/v1/customers/1", Some("not_allowed")),
    ("POST", "/aggregation/v1/customers", Some("not_allowed")),
    ("HEAD", "/aggregation/v1/customers", Some("not_allowed")),
    ("GET", "/elsewhere", Some("not_allowed")),
    ("GET", "/aggregation/v1/customers/1/accounts/simple", Some("denied")),
    ("GET", "/aggregation/v1/customers/1/ACCOUNTS/%73imple;x", Some("denied")),
    ("GET", "/aggregation/v1/customers/1%2faccounts", Some("unclear")),
    ("GET", "/aggregation/v1/customers/", Some("unclear")),
];

fn start(variables: &[(&str, &str)]) -> (Upstream, Proxy) {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let rules = [("FINICITY__POLICY__ALLOW", ALLOW), ("FINICITY__POLICY__DENY", DENY)];
    let proxy = Proxy::start_with(&upstream, &[&rules, variables].concat());
    (upstream, proxy)
}

/// The access line of the `count`th request.
fn access_line(proxy: &Proxy, count: usize) -> serde_json::Value {
    proxy.process.wait_for_lines(count, |line| line.contains("finicity_proxy::access"));
    proxy.process.logs("request").swap_remove(count - 1)
}

#[test]
fn c09_c10_denied_requests_are_rejected_and_logged() {
    let (upstream, proxy) = start(&[]);
    let mut client = proxy.connect();
    let mut forwarded = Vec::new();
    for (count, (method, target, denial)) in (1..).zip(REQUESTS) {
        let response = client.call(method, target, &[], b"");
        let expected = match denial {
            None => (200, None),
            Some("unclear") => (400, Some("bad_request")),
            Some(_) => (403, Some("route_denied")),
        };
        assert_eq!((response.status, response.header("x-finicity-proxy-error")), expected, "{method} {target}");
        if let (Some(code), true) = (expected.1, method != "HEAD") {
            response.assert_problem(expected.0, code);
        }
        let line = access_line(&proxy, count);
        assert_eq!(line["policy.denial"].as_str(), denial, "{line}");
        assert_eq!(line["error.type"].as_str(), expected.1, "{line}");
        forwarded.extend(denial.is_none().then_some(target));
    }
    let reached: Vec<String> = upstream.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(reached, forwarded, "only permitted requests, byte for byte");
    for (reason, count) in [("not_allowed", 4), ("denied", 2), ("unclear", 2), ("billable", 0)] {
        proxy.wait_for_metric(&format!(r#"policy_denials_total{{reason="{reason}"}}"#), count);
    }
    // The policy does not apply to local replies.
    assert_eq!(client.call("POST", "/oauth/token", &["Content-Length: 2"], b"{}").status, 200);
    assert_eq!(client.call("OPTIONS", "*", &[], b"").status, 204);
}

#[test]
fn report_mode_forwards_denied_requests() {
    let (upstream, proxy) = start(&[("FINICITY__POLICY__MODE", "report")]);
    proxy.process.wait_for_line(|line| line.contains(r#"policy.mode is \"report\""#));
    let mut client = proxy.connect();
    for (count, (method, target, denial)) in (1..).zip(REQUESTS) {
        assert_eq!(client.call(method, target, &[], b"").status, 200, "{method} {target}");
        let line = access_line(&proxy, count);
        assert_eq!((line["policy.denial"].as_str(), line.get("error.type")), (denial, None), "{line}");
    }
    assert_eq!(upstream.requests().len(), REQUESTS.len());
    proxy.wait_for_metric(r#"policy_denials_total{reason="not_allowed"}"#, 4);
    proxy.wait_for_metric(r#"errors_total{code="route_denied"}"#, 0);
}

#[test]
fn deny_billable_rejects_billable_requests() {
    let upstream = Upstream::start(3600, |_| Reply::json("{}"));
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__POLICY__DENY_BILLABLE", "true")]);
    let mut client = proxy.connect();
    assert_eq!(client.get("/aggregation/v1/customers").status, 200);
    for target in ["/aggregation/v1/customers/1/accounts", "/elsewhere", "/aggregation/v1/%63ustomers"] {
        client.get(target).assert_problem(403, "route_denied");
    }
    assert_eq!(upstream.requests().len(), 1);
    proxy.wait_for_metric(r#"policy_denials_total{reason="billable"}"#, 3);
}

/// Runs the program with `arguments` and `variables`. Returns its exit code and its output.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::start(command);
    (process.wait().code(), process.output())
}

#[test]
fn routes_shows_the_effect_of_rules_without_credentials() {
    let (code, open) = run(&["routes"], &[]);
    assert_eq!(code, Some(0), "{open}");
    assert_eq!(
        open.lines().filter(|line| line.starts_with("allowed ")).count(),
        Catalogue::us().operations().len(),
        "{open}"
    );
    let allow = format!("{ALLOW}, GET /agregation/**");
    let rules = [
        ("FINICITY__POLICY__ALLOW", allow.as_str()),
        ("FINICITY__POLICY__DENY", DENY),
        ("FINICITY__POLICY__MODE", "report"),
    ];
    let (code, output) = run(&["routes"], &rules);
    assert_eq!(code, Some(0), "{output}");
    let decision = |method: &str, template: &str| {
        let line = output.lines().find(|line| line.ends_with(&format!(" {method:<7} {template}")));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or_else(|| panic!("{template} is not in\n{output}"))
    };
    assert_eq!(decision("GET", "/aggregation/v1/customers/{customerId}"), "allowed");
    assert_eq!(decision("DELETE", "/aggregation/v1/customers/{customerId}"), "not_allowed");
    assert_eq!(decision("GET", "/aggregation/v1/customers/{customerId}/accounts/simple"), "denied");
    assert!(output.contains("finicity-proxy: rule 4 of policy.allow matches no known operation"), "{output}");
    assert!(output.contains("\"report\""), "{output}");
    let (_, billable) = run(&["routes", "--set=policy.deny_billable=true"], &[]);
    for line in billable.lines() {
        let expected = if line.contains(" free ") { "allowed " } else { "billable " };
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn p01_invalid_rules_are_reported_by_index_without_content() {
    let variables = [
        ("FINICITY__POLICY__ALLOW", "GET /fine, canarysecret, BREW /canarysecret"),
        ("FINICITY__POLICY__DENY", "GET /canary/../secret"),
        ("FINICITY__POLICY__MODE", "canarysecret"),
        ("FINICITY__POLICY__DENY_BILLABLE", "canarysecret"),
    ];
    for lost in [",", " , "] {
        let (code, output) = run(&["routes"], &[("FINICITY__POLICY__ALLOW", lost)]);
        assert_eq!(code, Some(78), "{output}");
        assert!(output.contains("policy.allow (set by FINICITY__POLICY__ALLOW): contains only separators"), "{output}");
    }
    for command in ["check", "routes", "serve"] {
        let (code, output) = run(&[command], &variables);
        assert_eq!(code, Some(78), "{output}");
        for expected in [
            "policy.allow (set by FINICITY__POLICY__ALLOW): rule 2 must be a method",
            "rule 3 must begin with *",
            "policy.deny (set by FINICITY__POLICY__DENY): rule 1 must have path segments",
            "policy.mode (set by FINICITY__POLICY__MODE): must be \"enforce\" or \"report\"",
            "policy.deny_billable (set by FINICITY__POLICY__DENY_BILLABLE): must be true or false",
        ] {
            assert!(output.contains(expected), "{expected:?} is not in\n{output}");
        }
        assert!(!output.contains("canary"), "{output}");
    }
}

#[test]
fn the_policy_applies_to_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let listen = format!("unix:{},127.0.0.1:0", socket.display());
    let (upstream, proxy) = start(&[("FINICITY__LISTEN__PROXY", &listen)]);
    Client::connect_socket(&socket).get("/elsewhere").assert_problem(403, "route_denied");
    proxy.connect().get("/elsewhere").assert_problem(403, "route_denied");
    assert!(upstream.requests().is_empty());
}

#[test]
fn check_summarizes_the_policy() {
    let credentials =
        ["FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET", "FINICITY_APP_KEY"].map(|name| (name, "canarysecret"));
    for (setting, expected) in [
        ("policy.allow=", "policy     allows every request"),
        ("policy.mode=report", "policy     allows every request"),
        ("policy.deny_billable=true", "policy     enforced; "),
        ("policy.deny=GET /agregation", "; rule 1 of policy.deny matches no known operation"),
    ] {
        let (code, output) = run(&["check", "--set", setting], &credentials);
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains(expected), "{expected:?} is not in\n{output}");
    }
}
