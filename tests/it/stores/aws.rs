//! AWS Secrets Manager and STS, mocked by the moto server.

mod moto;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::process::Signal;
use serde_json::json;

use self::moto::Store;
use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET, TOKEN_PREFIX,
    egress::EgressProxy,
    process::{Process, Proxy, serve_command},
    upstream::{Reply, Upstream},
};

const DESCRIBE: &str = "secretsmanager:DescribeSecret";
const READ: &str = "secretsmanager:GetSecretValue";

const UNUSABLE: &str = "cannot load the credentials; keeping the current ones";
const IN_USE: &str = "the new credentials obtained a token and are now in use";

/// The content of a web identity token, which must not appear in any output.
const WEB_IDENTITY: &str = "canary-web-identity-5be1";

/// The text of the secret in `version`.
fn secret(version: u32) -> String {
    json!({
        "client_id": CLIENT_ID,
        "client_secret": format!("{CLIENT_SECRET}{version}"),
        "app_key": format!("{APP_KEY}{version}"),
        "other": "of another program",
    })
    .to_string()
}

/// An upstream that accepts ID, secret and key of the same version of the secret, and rejects version 9.
fn upstream() -> Upstream {
    Upstream::start_raw(|request| {
        let key = request.headers("finicity-app-key")[0].strip_prefix(APP_KEY).unwrap().to_owned();
        if request.target() == "/oauth/token" {
            let call: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(call["client_secret"], format!("{CLIENT_SECRET}{key}"), "id, secret and key change together");
            return if key == "9" {
                Reply::status(401, "Unauthorized", r#"{"error":"invalid_client"}"#)
            } else {
                Reply::json(&format!(
                    r#"{{"access_token":"{TOKEN_PREFIX}{key}","token_type":"Bearer","expires_in":3600}}"#
                ))
            };
        }
        if request.headers("authorization") == [format!("Bearer {TOKEN_PREFIX}{key}")] {
            Reply::json("{}")
        } else {
            Reply::status(403, "Forbidden", "{}")
        }
    })
}

fn start(upstream: &Upstream, variables: &BTreeMap<String, String>) -> Proxy {
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Proxy::start_with(upstream, &variables)
}

#[track_caller]
fn assert_serves(proxy: &Proxy) {
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn a_new_version_under_load_fails_no_request() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    let proxy = start(&upstream, &store.variables_of_user());
    store.wait_for_calls("DescribeSecret", 3);
    assert_eq!(store.calls("GetSecretValue"), 1, "an unchanged secret is read again");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while !done.load(Relaxed) {
                    assert_eq!(client.get("/x").status, 200);
                }
            });
        }
        store.put(&secret(2));
        proxy.process.wait_for_log(IN_USE);
        proxy.connect().get("/after");
        done.store(true, Relaxed);
    });
    let after = upstream.received().into_iter().find(|request| request.target() == "/after").unwrap();
    assert_eq!(after.headers("authorization"), [format!("Bearer {TOKEN_PREFIX}2")]);
    assert_eq!((upstream.token_requests(), store.calls("GetSecretValue")), (2, 2));
    assert!(!proxy.process.output().contains(store.secret_key()));
    assert!(proxy.process.logs(UNUSABLE).is_empty());
}

#[test]
fn read_permission_is_enough() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[READ]));
    let proxy = start(&upstream, &store.variables_of_user());
    store.wait_for_calls("GetSecretValue", 3);
    assert_eq!(store.calls("DescribeSecret"), 1, "a denied request is repeated");
    store.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
    assert!(proxy.process.logs(UNUSABLE).is_empty());
}

#[test]
fn sighup_polls_immediately_and_a_wrong_secret_is_tried_once() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    let mut variables = store.variables_of_user();
    variables.insert("FINICITY__CREDENTIALS__POLL_INTERVAL".to_owned(), "24h".to_owned());
    let proxy = start(&upstream, &variables);
    store.put(&secret(9));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log(
        "new credentials rejected; they are not tried again, and the old ones stay in use: correct the new credentials",
    );
    proxy.process.signal(Signal::HUP);
    store.wait_for_calls("GetSecretValue", 3);
    assert_serves(&proxy);
    store.put(&secret(2));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_log(IN_USE);
    assert_eq!(upstream.token_requests(), 3);
}

/// The variables of a pod with a role for its service account, and with a token file.
fn pod(store: &Store, token: &Path) -> BTreeMap<String, String> {
    let mut variables = store.variables();
    variables.insert("AWS_ROLE_ARN".to_owned(), store.create_role(&[DESCRIBE, READ]));
    variables.insert("AWS_WEB_IDENTITY_TOKEN_FILE".to_owned(), token.display().to_string());
    variables.insert("AWS_ENDPOINT_URL_STS".to_owned(), store.relay.url());
    variables
}

#[test]
fn a_service_account_assumes_its_role_by_web_identity() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[]));
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(&token, WEB_IDENTITY).unwrap();
    let proxy = start(&upstream, &pod(&store, token.path()));
    store.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
    let requests = store.relay.received();
    let sts: Vec<_> = requests.iter().filter(|request| request.headers("x-amz-target").is_empty()).collect();
    assert_eq!(sts.len(), 1, "a valid identity is not obtained again");
    assert!(String::from_utf8_lossy(&sts[0].body).contains(WEB_IDENTITY));
    for request in requests.iter().filter(|request| !request.headers("x-amz-target").is_empty()) {
        let session = request.headers("x-amz-security-token")[0];
        assert!(!proxy.process.output().contains(session));
    }
    assert!(!proxy.process.output().contains(WEB_IDENTITY));
}

/// Waits for a log line of the fault with `parts`, and checks the metric and that requests are served. Then checks that the next version
/// is used after `repair`.
#[track_caller]
fn check_fault(proxy: &Proxy, store: &Store, fault: &str, parts: &[&str], repair: impl FnOnce()) {
    let line =
        proxy.process.wait_for_line(|line| line.contains(UNUSABLE) && parts.iter().all(|part| line.contains(part)));
    let name = format!("cannot read secret {} in AWS Secrets Manager: ", store.secret);
    assert!(line.contains(&name) && !line.contains("canary"), "{line}");
    let metric = format!("finicity_proxy_credentials_store_errors_total{{fault=\"{fault}\"}} ");
    let metrics = proxy.ops().get("/metrics").text();
    assert!(metrics.contains(&metric), "{metric} is not in\n{metrics}");
    assert!(metrics.contains("finicity_proxy_reload_last_successful{subject=\"credentials\"} 0"), "{metrics}");
    assert_serves(proxy);
    repair();
    proxy.process.wait_for_log(IN_USE);
    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 1);
}

/// Starts as a user with all permissions, breaks the store with `fail`, and checks the fault.
#[track_caller]
fn check(fault: &str, parts: &[&str], fail: impl FnOnce(&Store), repair: impl FnOnce(&Store)) {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    let proxy = start(&upstream, &store.variables_of_user());
    fail(&store);
    check_fault(&proxy, &store, fault, parts, || repair(&store));
    assert!(!proxy.process.output().contains(store.secret_key()));
}

#[test]
fn a_missing_permission_is_reported() {
    let parts =
        ["AccessDeniedException", "permit secretsmanager:GetSecretValue on this secret in the policy of its role"];
    let repair = |store: &Store| {
        store.permit(&[READ]);
        store.put(&secret(2));
    };
    check("identity_refused", &parts, |store| store.permit(&[]), repair);
}

#[test]
fn an_identity_rejected_by_aws_is_reported() {
    let parts = ["AWS does not accept the identity of this process (ExpiredTokenException)", "replace its access key"];
    let repair = |store: &Store| {
        store.forward();
        store.put(&secret(2));
    };
    check("identity_refused", &parts, |store| store.fail_with("ExpiredTokenException"), repair);
}

#[test]
fn a_missing_secret_is_reported() {
    let parts = [
        "the secret does not exist in this account and region (ResourceNotFoundException)",
        "correct credentials.aws.secret",
    ];
    check("not_found", &parts, |store| store.delete(true), |store| store.create(&secret(2)));
}

#[test]
fn a_secret_scheduled_for_deletion_is_reported() {
    let repair = |store: &Store| {
        store.restore();
        store.put(&secret(2));
    };
    let parts = ["it is scheduled for deletion", "restore-secret"];
    check("version_unavailable", &parts, |store| store.delete(false), repair);
}

#[test]
fn a_missing_staging_label_is_reported() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    store.put(&secret(2));
    // The first version has this label now, until there is a third.
    let mut variables = store.variables_of_user();
    variables.insert("FINICITY__CREDENTIALS__AWS__STAGE".to_owned(), "AWSPREVIOUS".to_owned());
    let proxy = start(&upstream, &variables);
    store.delete(true);
    store.create(&secret(3));
    let parts = ["no version of it has the staging label AWSPREVIOUS", "credentials.aws.stage"];
    check_fault(&proxy, &store, "version_unavailable", &parts, || store.put(&secret(4)));
}

#[test]
fn invalid_json_is_reported() {
    let parts = ["not valid JSON at line 1, column", "store a JSON object such as"];
    check("malformed", &parts, |store| store.put("canary-not-json"), |store| store.put(&secret(2)));
}

#[test]
fn a_missing_member_is_reported() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    let proxy = start(&upstream, &store.variables_of_user());
    store.put(&json!({"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}).to_string());
    let line = proxy.process.wait_for_line(|line| line.contains(UNUSABLE));
    let expected = format!("app_key of secret {} in AWS Secrets Manager is not set: add this member", store.secret);
    assert!(line.contains(&expected), "{line}");
    assert_serves(&proxy);
    store.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
}

#[test]
fn throttling_is_reported() {
    let repair = |store: &Store| {
        store.forward();
        store.put(&secret(2));
    };
    let parts = ["AWS rate limit exceeded (ThrottlingException)", "increase credentials.poll_interval"];
    check("throttled", &parts, |store| store.fail_with("ThrottlingException"), repair);
}

#[test]
fn an_unreachable_store_is_reported() {
    let repair = |store: &Store| {
        store.forward();
        store.put(&secret(2));
    };
    check("unreachable", &["AWS Secrets Manager did not respond", "firewalls"], Store::cut, repair);
}

#[test]
fn an_untrusted_certificate_is_reported() {
    let parts = [
        "the certificate of AWS Secrets Manager is self-signed or issued by an untrusted CA",
        "set credentials.ca_file",
    ];
    let repair = |store: &Store| {
        store.use_trusted_certificate();
        store.put(&secret(2));
    };
    check("untrusted_tls", &parts, |store| store.relay.use_untrusted_certificate(), repair);
}

#[test]
fn an_egress_proxy_is_used_and_its_error_reported() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    let egress = EgressProxy::start();
    let mut variables = store.variables_of_user();
    variables.insert("FINICITY__CREDENTIALS__EGRESS_PROXY".to_owned(), egress.url());
    let proxy = start(&upstream, &variables);
    let expected = format!("CONNECT {} HTTP/1.1", store.relay.authority());
    assert!(egress.heads().iter().all(|head| head.starts_with(&expected)) && !egress.heads().is_empty());
    egress.respond_with(403);
    let parts = ["cannot be reached: the egress proxy did not open a tunnel", "credentials.egress_proxy"];
    check_fault(&proxy, &store, "unreachable", &parts, || {
        egress.respond_with(200);
        store.put(&secret(2));
    });
}

#[test]
fn a_lost_identity_is_reported_and_obtained_again() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[]));
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, WEB_IDENTITY).unwrap();
    let proxy = start(&upstream, &pod(&store, &token));
    // A rejected session must be replaced, but the token is missing.
    fs::remove_file(&token).unwrap();
    store.permit_role(&[]);
    let parts = ["this process's AWS identity cannot be obtained", "IRSA or EKS Pod Identity"];
    check_fault(&proxy, &store, "no_identity", &parts, || {
        fs::write(&token, WEB_IDENTITY).unwrap();
        store.permit_role(&[READ]);
        store.put(&secret(2));
    });
    assert!(!proxy.process.output().contains(WEB_IDENTITY));
}

#[test]
fn a_rejection_by_sts_is_reported() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[]));
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(&token, WEB_IDENTITY).unwrap();
    let proxy = start(&upstream, &pod(&store, token.path()));
    // A rejected session must be replaced. The response of the relay is not in the format of STS.
    store.fail_with("ExpiredTokenException");
    let parts = ["AWS STS did not issue an identity to this process", "the role's trust policy"];
    check_fault(&proxy, &store, "identity_refused", &parts, || {
        store.forward();
        store.put(&secret(2));
    });
}

#[test]
fn a_missing_identity_or_region_is_reported_at_startup() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[]));
    let check = |variables: &BTreeMap<String, String>, expected: &str| {
        let mut command = serve_command(&upstream, &[]);
        command.envs(variables);
        let process = Process::start(command);
        process.wait_for_line(|line| line.contains(expected));
    };
    let mut variables = store.variables();
    check(&variables, "this process has no AWS identity; give the process an AWS identity");
    variables.remove("AWS_REGION");
    check(&variables, "the AWS region is unknown; set credentials.aws.region or AWS_REGION");
}

#[test]
fn startup_waits_for_an_unavailable_store() {
    let (upstream, store) = (upstream(), Store::new(&secret(1), &[DESCRIBE, READ]));
    store.cut();
    let mut command = serve_command(&upstream, &[("FINICITY__AUTH__TOKEN_WAIT", "1ms")]);
    command.envs(store.variables_of_user());
    let proxy = Proxy::run(command);
    let unread = "cannot load the first credentials; requests fail until they are loaded";
    let problem = proxy.process.wait_for_log(unread)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("AWS Secrets Manager did not respond"), "{problem}");
    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 0);
    let probe = proxy.ops().get("/startupz");
    assert!(probe.status == 503 && probe.text().contains("AWS Secrets Manager did not respond"), "{}", probe.text());
    assert_eq!(proxy.connect().get("/x").status, 503);
    // It is retried without a signal.
    store.forward();
    proxy.process.wait_for_log("token obtained");
    assert_serves(&proxy);
    assert_eq!(proxy.ops().get("/startupz").status, 200);
    assert!(!proxy.process.output().contains(store.secret_key()));
}
