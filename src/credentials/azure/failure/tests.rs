use http::Uri;
use serde_json::json;

use super::*;
use crate::credentials::{azure::code::refusal, config::AzureIdentity};

fn config(version: Option<&str>) -> AzureConfig {
    AzureConfig {
        vault_url: Uri::from_static("https://finicity.vault.azure.net"),
        secret: "finicity".to_owned(),
        version: version.map(ToOwned::to_owned),
        identity: AzureIdentity::default(),
    }
}

/// The failure of a Key Vault response with the code and the inner code.
fn vault(status: u16, code: &str, inner: Option<&str>) -> Failure {
    let inner = inner.map(|code| json!({"code": code}));
    let body = json!({"error": {"code": code, "message": "canary", "innererror": inner}});
    of_vault(status, body.to_string().as_bytes(), &config(None))
}

#[test]
fn each_vault_error_maps_to_its_fault_and_remedy() {
    for (status, code, inner, fault, remedy) in [
        (401, "Unauthorized", None, StoreFault::IdentityRefused, "AZURE_TENANT_ID"),
        (403, "Forbidden", Some("ForbiddenByRbac"), StoreFault::IdentityRefused, "role \"Key Vault Secrets User\""),
        (403, "Forbidden", Some("AccessDenied"), StoreFault::IdentityRefused, "`get` on secrets in an access policy"),
        (
            403,
            "Forbidden",
            Some("ForbiddenByPolicy"),
            StoreFault::IdentityRefused,
            "`get` on secrets in an access policy",
        ),
        (403, "Forbidden", None, StoreFault::IdentityRefused, "permit it `get` on secrets: with the role"),
        (403, "Forbidden", Some("ForbiddenByFirewall"), StoreFault::Unreachable, "networking settings"),
        (403, "Forbidden", Some("ForbiddenByConnection"), StoreFault::Unreachable, "private endpoint"),
        (403, "Forbidden", Some("SecretDisabled"), StoreFault::VersionUnavailable, "--enabled true"),
        (403, "Forbidden", Some("SecretNotYetValid"), StoreFault::VersionUnavailable, "activation date"),
        (403, "Forbidden", Some("SecretExpired"), StoreFault::VersionUnavailable, "expiration date"),
        (404, "SecretNotFound", None, StoreFault::NotFound, "az keyvault secret recover --name finicity"),
        (409, "Conflict", Some("ObjectIsDeletedButRecoverable"), StoreFault::VersionUnavailable, "recover"),
        (400, "BadParameter", None, StoreFault::NotFound, "credentials.azure.version"),
        (429, "Throttled", None, StoreFault::Throttled, "credentials.poll_interval"),
        (503, "ServiceUnavailable", None, StoreFault::Unreachable, "status page"),
        (418, "Teapot", None, StoreFault::Unreachable, "Azure documentation"),
    ] {
        let failure = vault(status, code, inner);
        assert_eq!(failure.fault, fault, "{failure:?}");
        assert!(failure.remedy.contains(remedy), "{failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn a_response_without_a_vault_error_maps_by_its_status() {
    for (status, fault) in [
        (401, StoreFault::IdentityRefused),
        (403, StoreFault::Unreachable),
        (404, StoreFault::Unreachable),
        (302, StoreFault::Unreachable),
        (429, StoreFault::Throttled),
        (502, StoreFault::Unreachable),
    ] {
        for body in
            ["", "<html>canary</html>", "{}", "{\"error\":\"canary\"}", "{\"error\":{\"code\":\"canary code\"}}"]
        {
            let failure = of_vault(status, body.as_bytes(), &config(None));
            assert_eq!(failure.fault, fault, "{status} {body}: {failure:?}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
    }
}

#[test]
fn a_configured_version_is_mentioned() {
    let body = json!({"error": {"code": "SecretNotFound", "message": "canary"}}).to_string();
    let failure = of_vault(404, body.as_bytes(), &config(Some("4387e9f3d6e14c459867679a90fd0f79")));
    assert!(failure.reason.contains("secret or version") && failure.remedy.ends_with("or credentials.azure.version"));
}

#[test]
fn only_the_number_of_an_error_message_is_shown() {
    for (message, shown) in [
        ("AKV10032: Invalid issuer. Expected canary", "(Unauthorized, AKV10032)"),
        ("AKV10032 canary", "(Unauthorized)"),
        ("AKVcanary: x", "(Unauthorized)"),
        ("AKV1: x", "(Unauthorized)"),
    ] {
        let body = json!({"error": {"code": "Unauthorized", "message": message}}).to_string();
        let failure = of_vault(401, body.as_bytes(), &config(None));
        assert!(failure.reason.ends_with(shown) && !failure.reason.contains("canary"), "{failure:?}");
    }
}

#[test]
fn each_entra_error_maps_to_its_fault_and_remedy() {
    for (status, codes, error, fault, remedy) in [
        (400, &[700_211][..], "invalid_client", StoreFault::IdentityRefused, "add a federated credential"),
        (400, &[700_016], "unauthorized_client", StoreFault::IdentityRefused, "correct the client ID"),
        (400, &[90002], "invalid_request", StoreFault::IdentityRefused, "AZURE_TENANT_ID"),
        (401, &[700_024], "invalid_client", StoreFault::IdentityRefused, "clock"),
        (401, &[], "invalid_client", StoreFault::IdentityRefused, "federated credential"),
        (429, &[], "", StoreFault::Throttled, "wait"),
        (400, &[], "temporarily_unavailable", StoreFault::Unreachable, "status page"),
        (503, &[90033], "temporarily_unavailable", StoreFault::Unreachable, "status page"),
        (403, &[], "canary text", StoreFault::Unreachable, "AZURE_AUTHORITY_HOST"),
    ] {
        let body = json!({"error": error, "error_codes": codes, "error_description": "canary"}).to_string();
        let failure = identity::of_entra(status, refusal(body.as_bytes()).as_deref());
        assert_eq!(failure.fault, fault, "{failure:?}");
        assert!(failure.remedy.contains(remedy) && !format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[test]
fn each_managed_identity_error_maps_to_its_fault() {
    for (status, body, fault) in [
        (400, r#"{"error":"invalid_request","error_description":"canary"}"#, StoreFault::NoIdentity),
        (400, r#"{"statusCode":400,"message":"canary"}"#, StoreFault::NoIdentity),
        (403, "canary", StoreFault::NoIdentity),
        (404, "", StoreFault::Unreachable),
        (410, "", StoreFault::Unreachable),
        (429, "", StoreFault::Throttled),
        (500, r#"{"error":"unknown"}"#, StoreFault::Unreachable),
    ] {
        let failure = identity::of_managed_identity(status, refusal(body.as_bytes()).as_deref());
        assert_eq!(failure.fault, fault, "{failure:?}");
        assert!(failure.reason.contains(&status.to_string()) && !failure.reason.contains("canary"), "{failure:?}");
    }
}
