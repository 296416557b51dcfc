use bytes::Bytes;
use serde_json::json;

use super::*;

fn report(status: u16, body: &str) -> ErrorReport {
    let body = Bytes::copy_from_slice(body.as_bytes());
    ErrorReport::new(&http::Response::builder().status(status).body(body).unwrap())
}

fn api(status: u16, code: &str, reason: &str, message: &str) -> ErrorReport {
    let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}, {"x": 1}]);
    let details = if reason.is_empty() { json!([]) } else { details };
    let error = json!({"code": status, "status": code, "message": message, "details": details});
    report(status, &json!({ "error": error }).to_string())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_store_error_maps_to_its_fault_and_remedy() {
    let version = "Secret Version [projects/1/secrets/s/versions/3]";
    for (status, code, reason, message, fault, remedy) in [
        (401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "", StoreFault::IdentityRefused, "the clock of this machine"),
        (
            403,
            "PERMISSION_DENIED",
            "IAM_PERMISSION_DENIED",
            "",
            StoreFault::IdentityRefused,
            "grant it roles/secretmanager.secretAccessor on",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "",
            "",
            StoreFault::IdentityRefused,
            "grant it roles/secretmanager.secretAccessor on",
        ),
        (403, "PERMISSION_DENIED", "SERVICE_DISABLED", "", StoreFault::IdentityRefused, "gcloud services enable"),
        (
            403,
            "PERMISSION_DENIED",
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "",
            StoreFault::IdentityRefused,
            "scope cloud-platform",
        ),
        (403, "PERMISSION_DENIED", "SECURITY_POLICY_VIOLATED", "", StoreFault::IdentityRefused, "perimeter"),
        (403, "PERMISSION_DENIED", "BILLING_DISABLED", "", StoreFault::IdentityRefused, "enable billing"),
        (403, "PERMISSION_DENIED", "USER_PROJECT_DENIED", "", StoreFault::IdentityRefused, "quota_project_id"),
        (
            404,
            "NOT_FOUND",
            "",
            "Secret [projects/1/secrets/s] not found or has no versions.",
            StoreFault::NotFound,
            "credentials.gcp.secret",
        ),
        (404, "NOT_FOUND", "", &format!("{version} not found."), StoreFault::NotFound, "credentials.gcp.version"),
        (
            400,
            "FAILED_PRECONDITION",
            "",
            &format!("{version} is in DISABLED state."),
            StoreFault::VersionUnavailable,
            "versions enable",
        ),
        (
            400,
            "FAILED_PRECONDITION",
            "",
            &format!("{version} is in DESTROYED state."),
            StoreFault::VersionUnavailable,
            "cannot be restored",
        ),
        (
            400,
            "FAILED_PRECONDITION",
            "",
            "The KMS key is not enabled",
            StoreFault::VersionUnavailable,
            "cryptoKeyEncrypterDecrypter",
        ),
        (400, "FAILED_PRECONDITION", "", "", StoreFault::VersionUnavailable, "versions describe"),
        (400, "INVALID_ARGUMENT", "", "", StoreFault::NotFound, "credentials.gcp.version"),
        (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "", StoreFault::Throttled, "poll_interval"),
        (503, "UNAVAILABLE", "", "", StoreFault::Unreachable, "wait"),
        (409, "ABORTED", "", "", StoreFault::Unreachable, "credentials.gcp.endpoint"),
    ] {
        let failure = Failure::of_store(&api(status, code, reason, message));
        assert_eq!(failure.fault, fault, "{status} {code} {reason} {message}: {failure:?}");
        assert!(failure.remedy.contains(remedy), "{remedy}: {failure:?}");
    }
}

#[test]
fn a_response_that_is_not_from_google_maps_by_its_status() {
    for (status, fault) in [
        (200, StoreFault::Unreachable),
        (302, StoreFault::Unreachable),
        (403, StoreFault::IdentityRefused),
        (404, StoreFault::Unreachable),
        (429, StoreFault::Throttled),
        (502, StoreFault::Unreachable),
    ] {
        for body in ["<html>canary", "", r#"{"error": {}}"#, r#"{"error": 5}"#, "[]"] {
            let failure = Failure::of_store(&report(status, body));
            assert_eq!(failure.fault, fault, "{status} {body}: {failure:?}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }
}

#[test]
fn issuer_rejections_and_failures_are_distinguished() {
    for (status, body, fault) in [
        (400, r#"{"error": "invalid_grant", "error_description": "canary"}"#, StoreFault::IdentityRefused),
        (403, r#"{"error": {"status": "PERMISSION_DENIED", "message": "canary"}}"#, StoreFault::IdentityRefused),
        (404, "canary", StoreFault::IdentityRefused),
        (429, "canary", StoreFault::Throttled),
        (500, r#"{"error": "server_error"}"#, StoreFault::Unreachable),
        (302, "canary", StoreFault::Unreachable),
    ] {
        let failure = Failure::of_issuer(&report(status, body), "the issuer", "the remedy");
        assert_eq!(failure.fault, fault, "{status} {body}: {failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
    let grant = Failure::of_issuer(&report(400, r#"{"error": "invalid_grant"}"#), "the issuer", "the remedy");
    assert_eq!(grant.reason, "the issuer did not issue an identity to this process (invalid_grant)");
}

#[test]
fn only_error_codes_are_shown() {
    for code in ["canary value", "canary\n", "canary{\"", &"canary".repeat(20)] {
        let failure = Failure::of_store(&api(409, code, code, "canary"));
        assert!(failure.reason.contains("HTTP status 409, without"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}
