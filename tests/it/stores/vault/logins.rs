//! Each auth method: its login, and the error of a rejection.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use finicity_proxy::credentials::{StoreFault, VaultAuth};
use rcgen::KeyPair;
use ring::{rand::SystemRandom, signature::ECDSA_P256_SHA256_FIXED_SIGNING, signature::EcdsaKeyPair};
use serde_json::{Value, json};

use super::{Source, server::Server, token_auth, usual};
use crate::support::{
    CLIENT_SECRET,
    upstream::{Reply, Upstream},
};

/// A time decades in the future, for tokens that do not expire during a test.
const FAR: u64 = 3_400_000_000;

/// A time in the past, at which they were issued.
const PAST: u64 = 1_700_000_000;

/// A JSON Web Token with `claims`.
fn jwt(key: &KeyPair, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({"alg": "ES256", "typ": "JWT"})), encode(claims));
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random).unwrap();
    let signature = pair.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn write_jwt(dir: &Path, token: &str) {
    fs::write(dir.join("jwt"), format!("{token}\n")).unwrap();
}

#[test]
fn app_role_reads_its_files_at_each_login() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    let auth = server.app_role(dir.path(), &json!({}));
    let mut source = Source::new(&server.url(), auth);
    assert_eq!(source.load(), CLIENT_SECRET);

    fs::write(dir.path().join("secret_id"), "canary-Secret+9b/2=e!").unwrap();
    assert_eq!(source.load(), CLIENT_SECRET, "a valid token needs no login");
    server.revoke_all();
    source.assert_fails(
        StoreFault::IdentityRefused,
        &[
            "cannot read secret secret/finicity in Vault at http://127.0.0.1:",
            "the login at auth/approle/login was denied (400)",
            "secret_id_num_uses",
        ],
    );
    server.new_secret_id(dir.path());
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn a_json_web_token_logs_in() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    let key = KeyPair::generate().unwrap();
    server.call("POST", "sys/auth/jwt", &json!({"type": "jwt"}));
    server.call("POST", "auth/jwt/config", &json!({"jwt_validation_pubkeys": [key.public_key_pem()]}));
    let role =
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": "finicity"});
    server.call("POST", "auth/jwt/role/proxy", &role);

    write_jwt(dir.path(), &jwt(&key, &json!({"sub": "proxy", "aud": "another", "iat": PAST, "exp": FAR})));
    let auth = VaultAuth::Jwt { role: "proxy".to_owned(), jwt_file: dir.path().join("jwt") };
    let mut source = Source::new(&server.url(), auth);
    let parts = ["the login at auth/jwt/login was denied (400)", "its role proxy accepts the audience", "auth/jwt"];
    source.assert_fails(StoreFault::IdentityRefused, &parts);
    write_jwt(dir.path(), &jwt(&key, &json!({"sub": "proxy", "aud": "vault", "iat": PAST, "exp": FAR})));
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn a_kubernetes_service_account_logs_in() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    // A mock of the API server, which reviews tokens.
    let kubernetes = Upstream::start_raw(|request| {
        assert_eq!(request.target(), "/apis/authentication.k8s.io/v1/tokenreviews");
        let user = json!({"username": "system:serviceaccount:payments:proxy", "uid": "u-1", "groups": []});
        let status = json!({"authenticated": true, "user": user, "audiences": ["vault"]});
        Reply::json(
            &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}).to_string(),
        )
    });
    let ca = fs::read_to_string(kubernetes.ca_file()).unwrap();
    server.call("POST", "sys/auth/kubernetes", &json!({"type": "kubernetes"}));
    let config =
        json!({"kubernetes_host": kubernetes.url(), "kubernetes_ca_cert": ca, "token_reviewer_jwt": "reviewer"});
    server.call("POST", "auth/kubernetes/config", &config);
    let set_role = |account: &str| {
        let role = json!({
            "bound_service_account_names": account,
            "bound_service_account_namespaces": "payments",
            "token_policies": "finicity",
        });
        server.call("POST", "auth/kubernetes/role/proxy", &role);
    };
    set_role("another");

    let account = json!({"namespace": "payments", "serviceaccount": {"name": "proxy", "uid": "u-1"}});
    let claims = json!({
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:payments:proxy",
        "aud": ["vault"],
        "iat": PAST,
        "exp": FAR,
        "kubernetes.io": account,
    });
    write_jwt(dir.path(), &jwt(&KeyPair::generate().unwrap(), &claims));
    let auth = VaultAuth::Kubernetes { role: "proxy".to_owned(), jwt_file: dir.path().join("jwt") };
    let mut source = Source::new(&server.url(), auth);
    let parts = ["the login at auth/kubernetes/login was denied (403)", "its role proxy names the service account"];
    source.assert_fails(StoreFault::IdentityRefused, &parts);
    set_role("proxy");
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn a_token_from_a_file_is_used_until_it_is_replaced() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    server.write(&usual());
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    let create = || server.create_token(&json!({"policies": ["finicity"], "ttl": "1h"}));
    let mut source = Source::new(&server.url(), token_auth(dir.path(), &create()));
    assert_eq!(source.load(), CLIENT_SECRET);

    server.revoke_all();
    let parts = [
        "the token has expired or was revoked, or its policies do not permit reading secret/data/finicity (403)",
        "put a valid token in ",
        "(credentials.vault.token_file)",
        r#"path "secret/data/finicity" { capabilities = ["read"] }"#,
    ];
    source.assert_fails(StoreFault::IdentityRefused, &parts);
    token_auth(dir.path(), &create());
    assert_eq!(source.load(), CLIENT_SECRET);

    // A token without the default policy, which also cannot look itself up.
    let bare = server.create_token(&json!({"policies": ["finicity"], "no_default_policy": true, "ttl": "1h"}));
    token_auth(dir.path(), &bare);
    assert_eq!(source.load(), CLIENT_SECRET);
    // A token from a file is not owned by the proxy, so it is never revoked.
    server.forbid();
    source.assert_fails(StoreFault::IdentityRefused, &["do not permit reading secret/data/finicity (403)"]);
    server.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
    assert_eq!(source.load(), CLIENT_SECRET);
}

#[test]
fn an_invalid_identity_file_is_reported_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let mut source = Source::new("http://127.0.0.1:1", VaultAuth::Token { token_file: file.clone() });
    let path = file.display().to_string();
    for (content, expected) in [
        (None, "cannot be read"),
        (Some(" \n"), "is empty"),
        (Some("two\nlines"), "does not contain one line of text"),
        (Some("a token"), "does not contain a token"),
        (Some("t\u{f6}ken"), "does not contain a token"),
    ] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let expected = format!("{path} (credentials.vault.token_file) {expected}");
        source.assert_fails(StoreFault::NoIdentity, &[&expected, "check the volume and the permissions of the file"]);
    }
    let missing = VaultAuth::Jwt { role: "r".to_owned(), jwt_file: dir.path().join("jwt") };
    let mut source = Source::new("http://127.0.0.1:1", missing);
    source.assert_fails(StoreFault::NoIdentity, &["(credentials.vault.jwt_file) cannot be read"]);
}
