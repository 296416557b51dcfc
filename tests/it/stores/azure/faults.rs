//! The report of each fault, while the proxy keeps serving.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Azure, CANARY, Endpoint, IN_USE, MACHINE, UNUSABLE, assert_serves, assert_shows_nothing, secret,
    server::{NOW, VAULT},
    start, upstream,
};
use crate::support::{
    CLIENT_ID, CLIENT_SECRET,
    process::{Process, Proxy, serve_command},
    upstream::ClosedPort,
};

/// Waits for a log line of the fault with `parts`, and checks the metric and that requests are served. Then checks that the next version
/// is used after `repair`.
#[track_caller]
fn check_fault(proxy: &Proxy, fault: &str, parts: &[&str], repair: impl FnOnce()) {
    let line =
        proxy.process.wait_for_line(|line| line.contains(UNUSABLE) && parts.iter().all(|part| line.contains(part)));
    let name = format!("cannot read secret finicity in Azure Key Vault {VAULT}: ");
    assert!(line.contains(&name) && !line.contains("canary"), "{line}");
    let metric = format!("finicity_proxy_credentials_store_errors_total{{fault=\"{fault}\"}} ");
    let metrics = proxy.ops().get("/metrics").text();
    let count = metrics.lines().find_map(|line| line.strip_prefix(&metric));
    assert!(count.is_some_and(|count| count != "0"), "{metric} is not counted in\n{metrics}");
    assert!(metrics.contains("finicity_proxy_reload_last_successful{subject=\"credentials\"} 0"), "{metrics}");
    assert_serves(proxy);
    repair();
    proxy.process.wait_for_log(IN_USE);
    proxy.wait_for_metric("reload_last_successful{subject=\"credentials\"}", 1);
    assert_shows_nothing(proxy);
}

/// Starts with the identity of the machine, causes a fault with `fail`, and checks it.
#[track_caller]
fn check(fault: &str, parts: &[&str], fail: impl FnOnce(&Azure), repair: impl FnOnce(&Azure)) {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_managed_identity());
    fail(&azure);
    check_fault(&proxy, fault, parts, || repair(&azure));
}

fn serve_again(azure: &Azure) {
    azure.put(&secret(2));
    azure.serve();
}

#[test]
fn a_missing_role_is_reported() {
    let parts = ["not permitted to read it (ForbiddenByRbac)", "assign the role \\\"Key Vault Secrets User\\\""];
    check("identity_refused", &parts, |azure| azure.fail(403, "Forbidden", Some("ForbiddenByRbac")), serve_again);
}

#[test]
fn a_missing_access_policy_is_reported() {
    let parts = ["not permitted to read it (AccessDenied)", "permit it `get` on secrets in an access policy"];
    check("identity_refused", &parts, |azure| azure.fail(403, "Forbidden", Some("AccessDenied")), serve_again);
}

#[test]
fn an_identity_rejected_by_the_vault_is_reported() {
    let parts = ["Azure Key Vault does not accept the identity of this process (Unauthorized)", "AZURE_TENANT_ID"];
    check("identity_refused", &parts, |azure| azure.fail(401, "Unauthorized", None), serve_again);
}

#[test]
fn a_rejection_by_entra_is_reported() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_workload());
    azure.refuse_tokens(
        400,
        &json!({"error": "invalid_client", "error_codes": [700_213], "error_description": "canary-message"}),
    );
    azure.revoke_tokens();
    let parts = [
        "Microsoft Entra did not issue a token to this process (AADSTS700213)",
        "add a federated credential to the identity",
        "system:serviceaccount:NAMESPACE:NAME",
    ];
    check_fault(&proxy, "identity_refused", &parts, || serve_again(&azure));
}

#[test]
fn a_lost_identity_is_reported_and_obtained_again() {
    let parts =
        ["this machine has no managed identity", "(invalid_request, HTTP status 400)", "assign a managed identity"];
    let fail = |azure: &Azure| {
        azure.refuse_tokens(400, &json!({"error": "invalid_request", "error_description": "canary-message"}));
        azure.revoke_tokens();
    };
    check("no_identity", &parts, fail, serve_again);
}

#[test]
fn a_missing_token_file_is_reported() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_workload());
    azure.remove_assertion();
    azure.revoke_tokens();
    let parts = ["the file in AZURE_FEDERATED_TOKEN_FILE cannot be read: entity not found", "check the volume"];
    check_fault(&proxy, "no_identity", &parts, || {
        azure.write_assertion("2");
        serve_again(&azure);
    });
}

#[test]
fn a_token_file_that_blocks_is_reported() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_workload());
    azure.block_assertion();
    azure.revoke_tokens();
    let parts =
        ["AZURE_FEDERATED_TOKEN_FILE does not name a regular file", "set it to the file that contains the token"];
    check_fault(&proxy, "no_identity", &parts, || {
        azure.remove_assertion();
        azure.write_assertion("2");
        serve_again(&azure);
    });
}

#[test]
fn a_missing_secret_is_reported() {
    let repair = |azure: &Azure| {
        azure.recover();
        azure.put(&secret(2));
    };
    let parts = ["the secret does not exist in the vault or is deleted (SecretNotFound)", "az keyvault secret recover"];
    check("not_found", &parts, Azure::delete, repair);
}

#[test]
fn a_disabled_version_is_reported() {
    let parts = ["its version is disabled (SecretDisabled)", "--enabled true"];
    let disable = |azure: &Azure| azure.set_attributes(json!({"enabled": false}));
    check("version_unavailable", &parts, disable, |azure| drop(azure.put(&secret(2))));
}

#[test]
fn a_version_not_yet_active_is_reported() {
    let parts = ["its activation date is in the future", "change the activation date"];
    let fail = |azure: &Azure| drop(azure.put_with(&secret(2), json!({"enabled": true, "nbf": NOW + 1})));
    let repair = |azure: &Azure| azure.set_attributes(json!({"enabled": true, "nbf": NOW, "exp": NOW + 1}));
    check("version_unavailable", &parts, fail, repair);
}

#[test]
fn an_expired_version_is_reported() {
    let parts = ["its expiration date has passed", "store a new version"];
    let expire = |azure: &Azure| azure.set_attributes(json!({"enabled": true, "nbf": NOW - 1, "exp": NOW}));
    check("version_unavailable", &parts, expire, |azure| drop(azure.put(&secret(2))));
}

#[test]
fn invalid_json_is_reported() {
    let parts = ["not valid JSON at line 1, column", "store a JSON object such as"];
    let repair = |azure: &Azure| drop(azure.put(&secret(2)));
    check("malformed", &parts, |azure| drop(azure.put("canary-not-json")), repair);
}

#[test]
fn a_missing_member_is_reported() {
    let (upstream, azure) = (upstream(), Azure::new(&secret(1), MACHINE));
    let proxy = start(&upstream, &azure.variables_of_managed_identity());
    azure.put(&json!({"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}).to_string());
    let line = proxy.process.wait_for_line(|line| line.contains(UNUSABLE));
    let expected = format!("app_key of secret finicity in Azure Key Vault {VAULT} is not set: add this member");
    assert!(line.contains(&expected), "{line}");
    assert_serves(&proxy);
    azure.put(&secret(2));
    proxy.process.wait_for_log(IN_USE);
}

#[test]
fn throttling_is_reported() {
    let parts = ["Azure Key Vault rate limit exceeded (Throttled)", "increase credentials.poll_interval"];
    check("throttled", &parts, |azure| azure.fail(429, "Throttled", None), serve_again);
}

#[test]
fn metadata_throttling_is_reported_immediately() {
    let parts = ["the managed identity endpoint rate limit exceeded (HTTP status 429)"];
    let fail = |azure: &Azure| {
        azure.refuse_tokens(429, &json!({}));
        azure.revoke_tokens();
    };
    check("throttled", &parts, fail, serve_again);
}

#[test]
fn a_vault_error_is_reported() {
    let parts = ["Azure Key Vault failed (ServiceUnavailable)", "status page"];
    check("unreachable", &parts, |azure| azure.fail(503, "ServiceUnavailable", None), serve_again);
}

#[test]
fn an_unreachable_vault_is_reported() {
    check("unreachable", &["Azure Key Vault did not respond", "firewalls"], Azure::cut, serve_again);
}

#[test]
fn a_block_by_the_vault_firewall_is_reported() {
    let parts = ["the firewall of the vault does not permit the address of this process (ForbiddenByFirewall)"];
    check("unreachable", &parts, |azure| azure.fail(403, "Forbidden", Some("ForbiddenByFirewall")), serve_again);
}

#[test]
fn an_egress_proxy_error_is_reported() {
    let parts = ["cannot be reached: the egress proxy did not open a tunnel", "credentials.egress_proxy"];
    let repair = |azure: &Azure| {
        azure.put(&secret(2));
        azure.egress.respond_with(200);
    };
    check("unreachable", &parts, |azure| azure.egress.respond_with(403), repair);
}

#[test]
fn an_untrusted_certificate_is_reported() {
    let parts =
        ["the certificate of Azure Key Vault is self-signed or issued by an untrusted CA", "set credentials.ca_file"];
    let repair = |azure: &Azure| {
        azure.put(&secret(2));
        azure.use_trusted_certificate();
    };
    check("untrusted_tls", &parts, |azure| azure.server.use_untrusted_certificate(), repair);
}

/// Starts a process that cannot obtain credentials, and waits for the log line with the reason.
#[track_caller]
fn check_start(azure: &Azure, variables: &BTreeMap<String, String>, expected: &str) {
    let upstream = upstream();
    let mut command = serve_command(&upstream, &[]);
    command.envs(variables);
    let process = Process::start(command);
    process.wait_for_line(|line| line.contains(expected));
    assert_eq!(azure.authorized_requests(), 0);
    assert!(!process.output().contains(CANARY));
}

#[test]
fn a_missing_identity_is_reported_at_startup() {
    let azure = Azure::new(&secret(1), MACHINE);
    let mut variables = azure.variables();
    let closed = ClosedPort::new().url().replace("https", "http");
    variables.insert("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), closed);
    check_start(&azure, &variables, "this process has no Azure identity: its environment has no workload identity");
    let mut variables = azure.variables_of_workload();
    variables.remove("AZURE_CLIENT_ID");
    check_start(&azure, &variables, "AZURE_FEDERATED_TOKEN_FILE is set, but AZURE_CLIENT_ID is not; annotate");
    variables = azure.variables_of_workload();
    variables.insert("AZURE_AUTHORITY_HOST".to_owned(), "http://login.microsoftonline.com".to_owned());
    check_start(
        &azure,
        &variables,
        "the environment variables of the workload identity are invalid; correct AZURE_TENANT_ID",
    );
    // Azure Arc.
    variables = azure.variables();
    variables.insert("IDENTITY_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned());
    variables.insert("IMDS_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned());
    check_start(&azure, &variables, "is of an unsupported kind");
}

#[test]
fn no_token_is_sent_outside_the_domain_of_the_challenge() {
    let azure = Azure::new(&secret(1), Endpoint::AppService);
    for resource in ["https://vault.azure.cn", "https://ault.azure.net", "https://azure.net.evil.test", "nonsense"] {
        azure.challenge_for(resource);
        let expected =
            if resource == "nonsense" { "the response is not from Azure Key Vault" } else { "no token was sent to it" };
        check_start(&azure, &azure.variables_of_managed_identity(), expected);
    }
    assert_eq!(azure.issued(), 0);
}
