//! The sources of the Google identity and their errors, at startup and later.

use std::fs;

use finicity_proxy::credentials::{GcpAmbient, StoreFault};
use serde_json::{Value, json};

use super::{
    Source, secret,
    server::{ACCESS, Google, Override, key_file},
};
use crate::support::{TOKEN_PREFIX, egress::EgressProxy};

#[test]
fn the_metadata_server_provides_the_machine_identity() {
    let google = Google::start(&secret(1));
    let mut source = Source::new(&google, google.ambient());
    source.assert_loads(1);
    google.add(&secret(2));
    source.changed().unwrap();
    source.assert_loads(2);
    assert_eq!(google.issued("metadata"), 1, "a valid token is obtained again");
}

#[test]
fn an_expiring_or_rejected_token_is_replaced() {
    let google = Google::start(&secret(1));
    let mut source = Source::new(&google, google.ambient());
    source.assert_loads(1);
    google.revoke();
    source.assert_loads(1);
    assert_eq!(google.issued("metadata"), 2);
    // Such a short lifetime that each request obtains a new token.
    google.revoke();
    google.state().token_lifetime_s = 200;
    source.assert_loads(1);
    assert_eq!(google.issued("metadata"), 4);
}

#[test]
fn a_key_file_signs_tokens_without_an_issuer() {
    let (google, dir) = (Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let mut source = Source::new(&google, google.ambient_of(dir.path(), &key_file()));
    source.assert_loads(1);
    assert!(google.state().issued.is_empty());
    // A replaced key is used for signing after a token signed with the old one was rejected.
    let mut file = key_file();
    file["private_key_id"] = json!("another");
    let mut replaced = Source::new(&google, google.ambient_of(dir.path(), &file));
    let parts =
        ["Google does not accept the identity of this process (UNAUTHENTICATED, ACCESS_TOKEN_EXPIRED)", "the clock"];
    replaced.assert_fails(StoreFault::IdentityRefused, &parts);
    google.ambient_of(dir.path(), &key_file());
    replaced.assert_loads(1);
}

#[test]
fn a_federated_identity_can_read_the_secret_directly() {
    let (google, dir) = (Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let file = google.federation(&json!({"file": google.subject_file(dir.path())}), false);
    let mut source = Source::new(&google, google.ambient_of(dir.path(), &file));
    source.assert_loads(1);
    // The token of the identity provider is read again for each exchange.
    google.state().subject_token = format!("{TOKEN_PREFIX}.subject.2");
    google.subject_file(dir.path());
    google.revoke();
    source.assert_loads(1);
    assert_eq!((google.issued("sts"), google.issued("iam")), (2, 0));
}

#[test]
fn a_federated_identity_impersonates_a_service_account() {
    let (google, dir) = (Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let source = json!({
        "url": format!("{}/subject-token", google.tls.url()),
        "headers": {"X-Provider": "yes"},
        "format": {"type": "json", "subject_token_field_name": "access_token"},
    });
    let mut source = Source::new(&google, google.ambient_of(dir.path(), &google.federation(&source, true)));
    source.assert_loads(1);
    source.assert_loads(1);
    assert_eq!((google.issued("sts"), google.issued("iam")), (1, 1));
}

#[test]
fn user_credentials_work_on_a_developer_machine() {
    let (google, dir) = (Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let named = google.ambient_of(dir.path(), &google.user_file());
    let user_file = named.credentials_file.clone();
    let mut source = Source::new(&google, GcpAmbient { credentials_file: None, user_file, ..named });
    source.assert_loads(1);
    google.override_with("oauth", Override::Status(400, r#"{"error": "invalid_grant"}"#.to_owned()));
    google.revoke();
    let parts = [
        "token endpoint did not issue an identity to this process (invalid_grant)",
        "gcloud auth application-default login",
    ];
    source.assert_fails(StoreFault::IdentityRefused, &parts);
    google.repair();
    source.assert_loads(1);
}

#[test]
fn each_metadata_server_error_is_distinguished() {
    let google = Google::start(&secret(1));
    let mut source = Source::new(&google, google.ambient());
    let no_server = ["this process has no Google identity", "GOOGLE_APPLICATION_CREDENTIALS"];
    let status = |status: u16, body: &str| Override::Status(status, body.to_owned());
    for (reply, fault, parts) in [
        (Override::Cut, StoreFault::NoIdentity, no_server),
        (
            status(404, "canary"),
            StoreFault::NoIdentity,
            ["this machine has no service account", "attach a service account"],
        ),
        (
            status(403, r#"canary: Permission 'iam.serviceAccounts.getAccessToken' denied"#),
            StoreFault::IdentityRefused,
            [
                "the metadata server did not issue an identity to this process (HTTP status 403",
                "roles/iam.workloadIdentityUser",
            ],
        ),
        (status(429, ""), StoreFault::Throttled, ["Google rate limit exceeded", "poll_interval"]),
        (status(503, "canary"), StoreFault::Unreachable, ["the metadata server failed (HTTP status 503", "wait"]),
        (status(200, "canary"), StoreFault::Unreachable, ["the metadata server contains no token", "check"]),
    ] {
        google.override_with("metadata", reply);
        source.assert_fails(fault, &parts);
    }
    google.repair();
    google.state().has_flavor = false;
    source.assert_fails(StoreFault::NoIdentity, &no_server);
    google.state().has_flavor = true;
    source.assert_loads(1);
    // A port without a server, an invalid host, and a name of another machine.
    for (host, fault, parts) in [
        ("127.0.0.1:1", StoreFault::NoIdentity, no_server),
        ("a/canary", StoreFault::NoIdentity, ["GCE_METADATA_HOST is not a host", "remove it"]),
        (
            "metadata.test",
            StoreFault::Unreachable,
            ["the metadata server has no TLS and is not on this machine", "https"],
        ),
    ] {
        let ambient = GcpAmbient { metadata_host: Some(host.to_owned()), ..google.ambient() };
        Source::new(&google, ambient).assert_fails(fault, &parts);
    }
}

#[test]
fn each_credentials_file_error_is_distinguished() {
    let (google, dir) = (Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let path = dir.path().join("adc.json").display().to_string();
    let missing = dir.path().join("missing").display().to_string();
    let mut key = key_file();
    key["private_key"] = json!("canary");
    let url = format!("{}/subject-token", google.tls.url());
    let federation = |source: Value| google.federation(&source, false);
    let cases = [
        (json!({"type": "canary"}), [path.as_str(), "has an unsupported type"]),
        (key, [&path, "has a private_key that is not an RSA key in PKCS #8 and PEM"]),
        (federation(json!({"file": missing})), [&missing, "token file"]),
        (federation(json!({"environment_id": "aws1", "url": url})), [&path, "has AWS as its credential_source"]),
        (federation(json!({"executable": {"command": "canary"}})), [&path, "unsupported credential_source"]),
        (
            federation(
                json!({"file": google.subject_file(dir.path()), "format": {"type": "json", "subject_token_field_name": "x"}}),
            ),
            ["subject-token", "contains no token in the format of credential_source.format"],
        ),
        (federation(json!({"url": url, "headers": {"a b": "canary"}})), [&path, "an invalid header field"]),
    ];
    for (file, parts) in cases {
        Source::new(&google, google.ambient_of(dir.path(), &file)).assert_fails(StoreFault::NoIdentity, &parts);
    }
    let ambient = google.ambient_of(dir.path(), &key_file());
    fs::remove_file(&path).unwrap();
    let parts = [path.as_str(), "does not exist", "or GOOGLE_APPLICATION_CREDENTIALS"];
    let mut source = Source::new(&google, ambient);
    source.assert_fails(StoreFault::NoIdentity, &parts);
    fs::write(&path, key_file().to_string()).unwrap();
    source.assert_loads(1);
}

#[test]
fn each_issuer_error_is_distinguished() {
    let (google, dir) = (Google::start(&secret(1)), tempfile::tempdir().unwrap());
    let file = google.federation(&json!({"file": google.subject_file(dir.path())}), true);
    let mut source = Source::new(&google, google.ambient_of(dir.path(), &file));
    google.state().subject_token = "other".to_owned();
    source.assert_fails(
        StoreFault::IdentityRefused,
        &[
            "Google's Security Token Service did not issue an identity to this process (invalid_grant)",
            "workload identity provider",
        ],
    );
    google.state().subject_token = format!("{TOKEN_PREFIX}.subject.1");
    for (service, status, code, reason, fault, parts) in [
        (
            "sts",
            503,
            "UNAVAILABLE",
            "",
            StoreFault::Unreachable,
            ["Security Token Service failed (UNAVAILABLE)", "wait"],
        ),
        ("sts", 429, "RESOURCE_EXHAUSTED", "", StoreFault::Throttled, ["rate limit exceeded", "quota"]),
        (
            "iam",
            403,
            "PERMISSION_DENIED",
            "IAM_PERMISSION_DENIED",
            StoreFault::IdentityRefused,
            [
                "Credentials API did not issue an identity to this process (PERMISSION_DENIED, IAM_PERMISSION_DENIED)",
                "roles/iam.workloadIdentityUser",
            ],
        ),
        (
            "iam",
            403,
            "PERMISSION_DENIED",
            "SERVICE_DISABLED",
            StoreFault::IdentityRefused,
            ["is not enabled in the project", "enable it"],
        ),
        ("iam", 404, "NOT_FOUND", "", StoreFault::IdentityRefused, ["(NOT_FOUND)", "exists"]),
    ] {
        google.fail(service, status, code, reason);
        source.assert_fails(fault, &parts);
        google.repair();
    }
    source.assert_loads(1);
}

#[test]
fn the_egress_proxy_is_used_only_for_tls() {
    let google = Google::start(&secret(1));
    let egress = EgressProxy::start();
    let mut source = Source::with(&google, google.ambient(), |store, _| {
        store.egress_proxy = Some(egress.url().parse().unwrap());
    });
    source.assert_loads(1);
    let expected = format!("CONNECT {} HTTP/1.1", google.tls.authority());
    assert!(!egress.heads().is_empty() && egress.heads().iter().all(|head| head.starts_with(&expected)));
    egress.respond_with(403);
    let parts =
        ["Google Secret Manager cannot be reached: the egress proxy did not open a tunnel", "credentials.egress_proxy"];
    source.assert_fails(StoreFault::Unreachable, &parts);
    egress.respond_with(200);
    source.assert_loads(1);
}

#[test]
fn each_store_error_at_startup_is_distinguished() {
    let google = Google::start(&secret(1));
    let mut source = Source::new(&google, google.ambient());
    google.tls.use_untrusted_certificate();
    source.assert_fails(StoreFault::UntrustedTls, &["the certificate of Google Secret Manager", "credentials.ca_file"]);
    google.use_trusted_certificate();
    google.permit(&[]);
    source.assert_fails(
        StoreFault::IdentityRefused,
        &["not permitted to read it", "grant it roles/secretmanager.secretAccessor on this secret"],
    );
    google.permit(&[ACCESS]);
    source.assert_loads(1);
    google.override_with("store", Override::Status(404, "<html>canary".to_owned()));
    source.assert_fails(StoreFault::Unreachable, &["the response is not from Google Secret Manager"]);
    google.repair();
    let mut other = Source::with(&google, google.ambient(), |_, gcp| gcp.version = "7".to_owned());
    other.assert_fails(
        StoreFault::NotFound,
        &["it does not have this version (NOT_FOUND)", "correct credentials.gcp.version"],
    );
}
