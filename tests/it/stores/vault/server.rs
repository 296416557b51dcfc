//! A real OpenBao server as a child process.

use std::{env, fs, net::SocketAddr, path::Path, process::Command};

use finicity_proxy::credentials::VaultAuth;
use serde_json::{Value, json};

use crate::support::{client::Client, process::Process};

const ROOT: &str = "root-token-of-the-test";

/// An unsealed in-memory server with KV version 2 at `secret`. Dropping it kills it.
pub(super) struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    pub(super) fn start() -> Self {
        let program = env::var_os("BAO")
            .expect("BAO must name the program of OpenBao: run `.ci/stores vault`, which installs it");
        let mut command = Command::new(program);
        command.env_clear().env("HOME", env::temp_dir()).args(["server", "-dev", "-dev-no-store-token"]);
        command.args(["-dev-listen-address=127.0.0.1:0", "-log-level=warn"]).arg(format!("-dev-root-token-id={ROOT}"));
        let process = Process::start(command);
        // It prints only the cluster port, which is the port plus 1.
        let line = process.wait_for_line(|line| line.contains("Listener 1: tcp"));
        let cluster = line.split("cluster address: \"").nth(1).unwrap().split('"').next().unwrap();
        let mut address: SocketAddr = cluster.parse().unwrap();
        address.set_port(address.port() - 1);
        process.wait_for_line(|line| line.contains("Root Token:"));
        Self { process, address }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request with the root token, which must succeed.
    #[track_caller]
    pub(super) fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call_in("", method, path, body)
    }

    /// Like [`call`](Self::call), in a namespace.
    #[track_caller]
    pub(super) fn call_in(&self, namespace: &str, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let lines = [
            format!("X-Vault-Token: {ROOT}"),
            format!("X-Vault-Namespace: {namespace}"),
            format!("Content-Length: {}", body.len()),
        ];
        let lines = lines.each_ref().map(String::as_str);
        let response = Client::connect(self.address).call(method, &format!("/v1/{path}"), &lines, body.as_bytes());
        assert!(response.status < 300, "{method} {path}: {} {}", response.status, response.text());
        serde_json::from_str(&response.text()).unwrap_or_default()
    }

    /// Writes a new version of `secret/finicity`.
    pub(super) fn write(&self, members: &Value) {
        self.call("POST", "secret/data/finicity", &json!({ "data": members }));
    }

    /// Sets the policy `finicity`.
    pub(super) fn set_policy(&self, rules: &str) {
        self.call("POST", "sys/policies/acl/finicity", &json!({ "policy": rules }));
    }

    /// Sets the policy `finicity` to one that does not permit reading the secret.
    pub(super) fn forbid(&self) {
        self.set_policy(r#"path "secret/data/another" { capabilities = ["read"] }"#);
    }

    /// Creates an AppRole with `settings` and the policy `finicity`, which permits reading only `secret/finicity`. Writes its IDs to files in
    /// `dir`.
    pub(super) fn app_role(&self, dir: &Path, settings: &Value) -> VaultAuth {
        self.set_policy(r#"path "secret/data/finicity" { capabilities = ["read"] }"#);
        self.call("POST", "sys/auth/approle", &json!({"type": "approle"}));
        let mut role = json!({"token_policies": "finicity"});
        role.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        self.call("POST", "auth/approle/role/finicity", &role);
        let role_id = self.call("GET", "auth/approle/role/finicity/role-id", &Value::Null);
        fs::write(dir.join("role_id"), format!("{}\n", role_id["data"]["role_id"].as_str().unwrap())).unwrap();
        self.new_secret_id(dir);
        VaultAuth::AppRole { role_id_file: dir.join("role_id"), secret_id_file: dir.join("secret_id") }
    }

    /// Writes a new secret ID of that role to its file, and returns it.
    pub(super) fn new_secret_id(&self, dir: &Path) -> String {
        let created = self.call("POST", "auth/approle/role/finicity/secret-id", &json!({}));
        let secret_id = created["data"]["secret_id"].as_str().unwrap().to_owned();
        fs::write(dir.join("secret_id"), format!("{secret_id}\n")).unwrap();
        secret_id
    }

    /// Creates a token with `settings`.
    pub(super) fn create_token(&self, settings: &Value) -> String {
        self.call("POST", "auth/token/create", settings)["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// The accessors of all tokens.
    pub(super) fn accessors(&self) -> Vec<Value> {
        self.call("LIST", "auth/token/accessors", &Value::Null)["data"]["keys"].as_array().unwrap().clone()
    }

    /// Revokes all tokens except root tokens.
    pub(super) fn revoke_all(&self) {
        for accessor in self.accessors() {
            let found = self.call("POST", "auth/token/lookup-accessor", &json!({ "accessor": accessor }));
            if found["data"]["policies"] != json!(["root"]) {
                self.call("POST", "auth/token/revoke-accessor", &json!({ "accessor": accessor }));
            }
        }
    }

    pub(super) fn seal(&self) {
        self.call("PUT", "sys/seal", &Value::Null);
    }

    pub(super) fn unseal(&self) {
        let line = self.process.wait_for_line(|line| line.contains("Unseal Key: "));
        let key = line.split("Unseal Key: ").nth(1).unwrap().trim();
        let status = self.call("PUT", "sys/unseal", &json!({ "key": key }));
        assert_eq!(status["sealed"], false);
    }
}
