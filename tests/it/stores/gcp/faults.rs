//! Faults at run time: the message and the metric of each fault, that the proxy keeps serving, and that the next version is used after the
//! fault.

use serde_json::json;

use super::{
    IN_USE, UNUSABLE, assert_serves, secret,
    server::{ACCESS, GET, Google, Override, SECRET},
    start, upstream,
};
use crate::support::{CLIENT_ID, CLIENT_SECRET, egress::EgressProxy, process::Proxy};

/// Waits for a log line of the fault with `parts`, and checks the metric and that requests are served. Then checks that the next version
/// is used after `repair`.
#[track_caller]
fn check_fault(proxy: &Proxy, fault: &str, parts: &[&str], repair: impl FnOnce()) {
    let line =
        proxy.process.wait_for_line(|line| line.contains(UNUSABLE) && parts.iter().all(|part| line.contains(part)));
    let name = format!("cannot read secret {SECRET} in Google Secret Manager: ");
    assert!(line.contains(&name) && !line.contains("canary"), "{line}");
    let metric = format!("finicity_proxy_credentials_store_errors_total{{fault=\"{fault}\"}} ");
    let metrics = proxy.ops().get("/metrics").text();
    let count = metrics.lines().find_map(|line| line.strip_prefix(&metric));
    assert!(count.is_some_and(|count| count != "0"), "{metric} is not in\n{metrics}");
    assert!(metrics.contains("finicity_proxy_reload_last_successful{subject=\"credentials\"} 0"), "{metrics}");
    assert_serves(proxy);
    repair();
    proxy.process.wait_for_log(IN_USE);
    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 1);
}

/// Starts the proxy, causes a fault with `fail`, and checks it.
#[track_caller]
fn check(fault: &str, parts: &[&str], fail: impl FnOnce(&Google), repair: impl FnOnce(&Google)) {
    let (upstream, google) = (upstream(), Google::start(&secret(1)));
    let proxy = start(&upstream, &google, &[]);
    fail(&google);
    check_fault(&proxy, fault, parts, || {
        repair(&google);
        google.add(&secret(2));
    });
}

/// Like [`check`], for an error response of Google.
#[track_caller]
fn check_error(fault: &str, status: u16, code: &'static str, parts: &[&str]) {
    check(fault, parts, |google| google.fail("store", status, code, ""), Google::repair);
}

#[test]
fn a_missing_permission_is_reported() {
    let parts = [
        "not permitted to read it (PERMISSION_DENIED, IAM_PERMISSION_DENIED)",
        "grant it roles/secretmanager.secretAccessor on this secret",
    ];
    check("identity_refused", &parts, |google| google.permit(&[]), |google| google.permit(&[ACCESS]));
}

#[test]
fn an_identity_rejected_by_google_is_reported() {
    check_error("identity_refused", 401, "UNAUTHENTICATED", &["Google does not accept the identity of this process"]);
}

#[test]
fn a_lost_identity_is_reported_and_obtained_again() {
    let lose = |google: &Google| {
        google.revoke();
        google.override_with("metadata", Override::Cut);
    };
    check("no_identity", &["this process has no Google identity", "GKE: Workload Identity"], lose, Google::repair);
}

#[test]
fn a_missing_secret_is_reported() {
    let parts = ["the secret does not exist or has no version (NOT_FOUND)", "correct credentials.gcp.secret"];
    let create_again = |google: &Google| google.state().created = 2;
    check("not_found", &parts, |google| google.state().versions.clear(), create_again);
}

#[test]
fn a_disabled_version_is_reported() {
    let disable = |google: &Google| google.change(|version| version.state = "DISABLED");
    let enable = |google: &Google| google.change(|version| version.state = "ENABLED");
    check(
        "version_unavailable",
        &["its version 1 is disabled", "enable it (gcloud secrets versions enable)"],
        disable,
        enable,
    );
}

#[test]
fn a_destroyed_version_is_reported_without_get_permission() {
    let (upstream, google) = (upstream(), Google::start(&secret(1)));
    google.permit(&[ACCESS]);
    let proxy = start(&upstream, &google, &[]);
    google.change(|version| version.state = "DESTROYED");
    let parts = ["its version is destroyed", "add a new version"];
    check_fault(&proxy, "version_unavailable", &parts, || google.add(&secret(2)));
}

#[test]
fn invalid_json_is_reported() {
    let parts = ["not valid JSON at line 1, column", "store a JSON object such as"];
    check("malformed", &parts, |google| google.add("canary-not-json"), |_| {});
}

#[test]
fn a_binary_value_is_reported() {
    let binary = |google: &Google| {
        google.add("");
        google.change(|version| version.data = vec![0xff; 8]);
    };
    check("malformed", &["its value is binary", "UTF-8"], binary, |_| {});
}

#[test]
fn a_missing_member_is_reported() {
    let (upstream, google) = (upstream(), Google::start(&secret(1)));
    let proxy = start(&upstream, &google, &[]);
    google.add(&json!({"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}).to_string());
    let line = proxy.process.wait_for_line(|line| line.contains(UNUSABLE));
    let expected = format!("app_key of secret {SECRET} in Google Secret Manager is not set: add this member");
    assert!(line.contains(&expected), "{line}");
    assert_serves(&proxy);
    google.add(&secret(2));
    proxy.process.wait_for_log(IN_USE);
}

#[test]
fn a_damaged_value_is_reported_and_not_used() {
    let damage = |google: &Google| {
        let mut state = google.state();
        let mut version = state.versions[0].clone();
        version.damage = 1;
        state.versions.push(version);
    };
    check("unreachable", &["does not match the checksum (CRC32C) that Google sent with it"], damage, |_| {});
}

#[test]
fn throttling_is_reported() {
    let parts = ["Google rate limit exceeded (RESOURCE_EXHAUSTED)", "increase credentials.poll_interval"];
    check_error("throttled", 429, "RESOURCE_EXHAUSTED", &parts);
}

#[test]
fn a_store_error_is_reported() {
    check_error("unreachable", 503, "UNAVAILABLE", &["Google Secret Manager failed (UNAVAILABLE)", "wait"]);
}

#[test]
fn an_unreachable_store_is_reported() {
    let parts = ["Google Secret Manager did not respond", "firewalls"];
    check("unreachable", &parts, |google| google.override_with("store", Override::Cut), Google::repair);
}

#[test]
fn an_untrusted_certificate_is_reported() {
    let parts = [
        "the certificate of Google Secret Manager is self-signed or issued by an untrusted CA",
        "set credentials.ca_file",
    ];
    check("untrusted_tls", &parts, |google| google.tls.use_untrusted_certificate(), Google::use_trusted_certificate);
}

#[test]
fn an_egress_proxy_error_is_reported() {
    let (upstream, google, egress) = (upstream(), Google::start(&secret(1)), EgressProxy::start());
    google.permit(&[GET, ACCESS]);
    let proxy = start(&upstream, &google, &[("FINICITY__CREDENTIALS__EGRESS_PROXY", &egress.url())]);
    egress.respond_with(403);
    let parts = ["cannot be reached: the egress proxy did not open a tunnel", "credentials.egress_proxy"];
    check_fault(&proxy, "unreachable", &parts, || {
        egress.respond_with(200);
        google.add(&secret(2));
    });
}
