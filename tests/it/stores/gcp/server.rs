//! Strict mock servers of Google: Secret Manager, the Security Token Service and the IAM Service Account Credentials API behind TLS, and a
//! metadata server. Each checks the whole request, and accepts only bearer tokens that it issued or can verify.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use finicity_proxy::credentials::GcpAmbient;
use ring::{
    rsa,
    signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use serde_json::{Value, json};

use crate::support::{
    TOKEN_PREFIX,
    upstream::{ReceivedRequest, Reply, Upstream, server_config},
};

pub(super) const SECRET: &str = "projects/my-project/secrets/finicity";

const EMAIL: &str = "proxy@my-project.iam.gserviceaccount.com";

const KEY_ID: &str = "0123456789abcdef";

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/pool/providers/cluster";

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Client ID, client secret and refresh token of a user.
const USER: [&str; 3] = ["id.apps.googleusercontent.com", "canarytoken-client", "1//canarytoken/refresh=&"];

pub(super) const GET: &str = "secretmanager.versions.get";
pub(super) const ACCESS: &str = "secretmanager.versions.access";

/// An RSA key for these tests: PKCS #8, in base64.
pub(super) fn private_key() -> String {
    include_str!("key.base64").replace('\n', "")
}

#[derive(Clone)]
pub(super) struct StoredVersion {
    pub(super) data: Vec<u8>,
    pub(super) state: &'static str,
    /// A number that is added to the checksum.
    pub(super) damage: u32,
}

/// The permissions of a bearer token.
#[derive(Clone, Copy, PartialEq)]
enum Holder {
    Reader,
    /// Can only impersonate a service account.
    Impersonator,
}

/// A response that replaces the normal one.
#[derive(Clone)]
pub(super) enum Override {
    Status(u16, String),
    Cut,
}

/// The state of the servers, which tests can change.
pub(super) struct State {
    /// Version numbers are indices from 1. Empty if the secret does not exist.
    pub(super) versions: Vec<StoredVersion>,
    pub(super) permissions: Vec<&'static str>,
    /// The token of the external identity provider.
    pub(super) subject_token: String,
    pub(super) token_lifetime_s: u64,
    /// By service: `store`, `sts`, `iam`, `provider`, `oauth`, `metadata`.
    pub(super) overrides: BTreeMap<&'static str, Override>,
    /// Whether the metadata server sends `Metadata-Flavor: Google`.
    pub(super) has_flavor: bool,
    /// The number of issued tokens by service.
    pub(super) issued: BTreeMap<&'static str, usize>,
    bearers: BTreeMap<String, Holder>,
    violations: Vec<String>,
    /// Distinguishes the secret from a deleted one with the same name.
    pub(super) created: u32,
}

/// The servers. Dropping it checks that every request was correct.
pub(super) struct Google {
    pub(super) tls: Upstream,
    pub(super) metadata: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Google {
    /// Starts the servers with a secret with the first version `text`, and identities that can read it.
    pub(super) fn start(text: &str) -> Self {
        let state = State {
            versions: Vec::new(),
            permissions: vec![GET, ACCESS],
            subject_token: format!("{TOKEN_PREFIX}.subject.1"),
            token_lifetime_s: 3600,
            overrides: BTreeMap::new(),
            has_flavor: true,
            issued: BTreeMap::new(),
            bearers: BTreeMap::new(),
            violations: Vec::new(),
            created: 1,
        };
        let state = Arc::new(Mutex::new(state));
        let (tls_state, metadata_state) = (Arc::clone(&state), Arc::clone(&state));
        let tls = Upstream::start_raw(move |request| respond(request, &mut tls_state.lock().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let metadata = listener.local_addr().unwrap();
        // Runs until the tests exit.
        thread::spawn(move || {
            listener.incoming().for_each(|stream| serve_metadata(stream.unwrap(), &metadata_state));
        });
        let google = Self { tls, metadata, state };
        google.add(text);
        google
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a version.
    pub(super) fn add(&self, text: &str) {
        let version = StoredVersion { data: text.as_bytes().to_vec(), state: "ENABLED", damage: 0 };
        self.state().versions.push(version);
    }

    /// Changes the newest version.
    pub(super) fn change(&self, change: impl FnOnce(&mut StoredVersion)) {
        change(self.state().versions.last_mut().unwrap());
    }

    /// From now on, `service` responds with an error of Google.
    pub(super) fn fail(&self, service: &'static str, status: u16, code: &str, reason: &str) {
        self.override_with(service, Override::Status(status, error_body(status, code, reason, "canary-message")));
    }

    pub(super) fn override_with(&self, service: &'static str, reply: Override) {
        self.state().overrides.insert(service, reply);
    }

    /// Ends every override.
    pub(super) fn repair(&self) {
        self.state().overrides.clear();
    }

    pub(super) fn permit(&self, permissions: &[&'static str]) {
        self.state().permissions = permissions.to_vec();
    }

    /// Revokes all issued tokens.
    pub(super) fn revoke(&self) {
        self.state().bearers.clear();
    }

    /// The number of tokens issued by `service`.
    pub(super) fn issued(&self, service: &str) -> usize {
        self.state().issued.get(service).copied().unwrap_or_default()
    }

    pub(super) fn use_trusted_certificate(&self) {
        self.tls.set_tls_config(server_config(&self.tls.ca_file(), &[]));
    }

    /// The number of requests so far with a target that ends with `end`.
    pub(super) fn calls(&self, end: &str) -> usize {
        self.tls.received().iter().filter(|request| request.target().ends_with(end)).count()
    }

    /// The identity of the machine.
    pub(super) fn ambient(&self) -> GcpAmbient {
        GcpAmbient { credentials_file: None, user_file: None, metadata_host: Some(self.metadata.to_string()) }
    }

    /// The identity of a credentials file in `dir`, on a machine without a metadata server.
    pub(super) fn ambient_of(&self, dir: &Path, file: &Value) -> GcpAmbient {
        let path = dir.join("adc.json");
        fs::write(&path, file.to_string()).unwrap();
        GcpAmbient { credentials_file: Some(path), user_file: None, metadata_host: Some("127.0.0.1:1".to_owned()) }
    }

    /// A credentials file of a user.
    pub(super) fn user_file(&self) -> Value {
        let [client_id, client_secret, refresh_token] = USER;
        json!({
            "type": "authorized_user",
            "client_id": client_id,
            "client_secret": client_secret,
            "refresh_token": refresh_token,
            "quota_project_id": "quota-project",
            "token_uri": format!("{}/oauth/token", self.tls.url()),
        })
    }

    /// A credentials file for workload identity federation. Without `impersonates`, the federated identity reads the secret directly.
    pub(super) fn federation(&self, source: &Value, impersonates: bool) -> Value {
        let mut file = json!({
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/sts/v1/token", self.tls.url()),
            "credential_source": source,
        });
        if impersonates {
            let url = format!("{}/iam/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken", self.tls.url());
            file["service_account_impersonation_url"] = url.into();
        }
        file
    }

    /// Writes the token of the identity provider to a file in `dir`.
    pub(super) fn subject_file(&self, dir: &Path) -> PathBuf {
        let path = dir.join("subject-token");
        fs::write(&path, format!("{}\n", self.state().subject_token)).unwrap();
        path
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.state().violations, [""; 0]);
        }
    }
}

/// The key file of the service account.
pub(super) fn key_file() -> Value {
    let key = private_key();
    json!({
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": KEY_ID,
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"),
        "client_email": EMAIL,
        "token_uri": "https://oauth2.googleapis.com/token",
    })
}

fn error_body(status: u16, code: &str, reason: &str, message: &str) -> String {
    let details =
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]);
    let details = if reason.is_empty() { json!([]) } else { details };
    json!({"error": {"code": status, "message": message, "status": code, "details": details}}).to_string()
}

fn refuse(status: u16, code: &str, reason: &str, message: &str) -> Reply {
    Reply::status(status, "Refused", &error_body(status, code, reason, message))
}

impl State {
    /// Records an incorrect request.
    fn check(&mut self, is_right: bool, what: &str) {
        if !is_right {
            self.violations.push(what.to_owned());
        }
    }

    fn issue(&mut self, service: &'static str, holder: Holder) -> String {
        let count = self.issued.entry(service).or_default();
        *count += 1;
        let token = format!("{TOKEN_PREFIX}.{service}.{count}..");
        self.bearers.insert(token.clone(), holder);
        token
    }

    fn holder(&self, request: &ReceivedRequest) -> Option<Holder> {
        let [authorization] = request.headers("authorization")[..] else { return None };
        let bearer = authorization.strip_prefix("Bearer ")?;
        self.bearers.get(bearer).copied().or_else(|| is_signed(bearer).then_some(Holder::Reader))
    }
}

/// Whether `token` is signed by the service account, is for Secret Manager, and has not expired.
fn is_signed(token: &str) -> bool {
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { return false };
    let pair = rsa::KeyPair::from_pkcs8(&BASE64_STANDARD.decode(private_key()).unwrap()).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public().as_ref());
    let is_valid = key.verify(format!("{header}.{claims}").as_bytes(), &decode(signature)).is_ok();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (issued, expires) = (claims["iat"].as_u64().unwrap_or_default(), claims["exp"].as_u64().unwrap_or_default());
    let audience = "https://secretmanager.googleapis.com/";
    let expected = json!({"iss": EMAIL, "sub": EMAIL, "aud": audience, "iat": issued, "exp": expires});
    is_valid
        && header == json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID})
        && claims == expected
        && (now - 600..=now).contains(&issued)
        && expires > now
        && expires - issued <= 3600
}

fn respond(request: &ReceivedRequest, state: &mut State) -> Reply {
    let method = request.head.split(' ').next().unwrap();
    let target = request.target();
    let service = match target.split('/').nth(1).unwrap() {
        "v1" => "store",
        "sts" => "sts",
        "iam" => "iam",
        "subject-token" => "provider",
        "oauth" => "oauth",
        _ => "nothing",
    };
    match state.overrides.get(service) {
        Some(Override::Cut) => return Reply::Cut(Vec::new()),
        Some(Override::Status(status, body)) => return Reply::status(*status, "Override", body),
        None => {}
    }
    state.check(request.headers("user-agent")[0].starts_with("finicity-proxy/"), "user-agent");
    // Only requests of a user name a quota project.
    let is_of_user = request.headers("authorization").iter().any(|value| value.contains(".oauth."));
    let quota_project: &[&str] = if is_of_user { &["quota-project"] } else { &[] };
    state.check(request.headers("x-goog-user-project") == quota_project, "quota project");
    match (method, service) {
        ("GET", "store") => respond_store(request, state),
        ("POST", "sts") => respond_sts(request, state),
        ("POST", "iam") => respond_iam(request, state),
        ("POST", "oauth") => {
            let form: BTreeMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
            let [client_id, client_secret, refresh_token] = USER;
            let expected = [
                ("client_id", client_id),
                ("client_secret", client_secret),
                ("grant_type", "refresh_token"),
                ("refresh_token", refresh_token),
            ];
            state.check(form.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "the form of a refresh");
            let token = state.issue("oauth", Holder::Reader);
            Reply::json(&json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}).to_string())
        }
        ("GET", "provider") => {
            state.check(request.headers("x-provider") == ["yes"], "a field of the credentials file");
            Reply::json(&json!({"access_token": state.subject_token, "other": "x"}).to_string())
        }
        _ => {
            state.check(false, &format!("{method} {target}"));
            refuse(404, "NOT_FOUND", "", "")
        }
    }
}

fn respond_store(request: &ReceivedRequest, state: &mut State) -> Reply {
    state.check(request.body.is_empty() && request.headers("content-type").is_empty(), "a body");
    let prefix = format!("/v1/{SECRET}/versions/");
    let Some(rest) = request.target().strip_prefix(&prefix) else {
        state.check(false, request.target());
        return refuse(400, "INVALID_ARGUMENT", "", "");
    };
    if state.holder(request) != Some(Holder::Reader) {
        return refuse(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "Request had invalid credentials. canary");
    }
    let (version, permission) = match rest.strip_suffix(":access") {
        Some(version) => (version, ACCESS),
        None => (rest, GET),
    };
    if !state.permissions.contains(&permission) {
        let message = format!("Permission '{permission}' denied on resource (or it may not exist).");
        return refuse(403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED", &message);
    }
    let number = if version == "latest" { state.versions.len() } else { version.parse().unwrap_or_default() };
    let Some(stored) = number.checked_sub(1).and_then(|index| state.versions.get(index)) else {
        let name = SECRET.replace("my-project", "123456789012");
        let message = if version == "latest" {
            format!("Secret [{name}] not found or has no versions.")
        } else {
            format!("Secret Version [{name}/versions/{version}] not found.")
        };
        return refuse(404, "NOT_FOUND", "", &message);
    };
    let name = format!("projects/123456789012/secrets/finicity/versions/{number}");
    if permission == GET {
        let created = format!("2026-01-{:02}T00:00:00.000001Z", state.created);
        return Reply::json(&json!({"name": name, "createTime": created, "state": stored.state}).to_string());
    }
    if stored.state != "ENABLED" {
        let message = format!("Secret Version [{name}] is in {} state.", stored.state);
        return refuse(400, "FAILED_PRECONDITION", "", &message);
    }
    let checksum = crc32c(&stored.data).wrapping_add(stored.damage);
    let payload = json!({"data": BASE64_STANDARD.encode(&stored.data), "dataCrc32c": checksum.to_string()});
    Reply::json(&json!({"name": name, "payload": payload}).to_string())
}

fn respond_sts(request: &ReceivedRequest, state: &mut State) -> Reply {
    let form: BTreeMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
    let scope = form.get("scope").cloned().unwrap_or_default();
    let expected: BTreeMap<String, String> = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", AUDIENCE),
        ("scope", &scope),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", &state.subject_token),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    state.check(request.target() == "/sts/v1/token", request.target());
    state.check(request.headers("content-type") == ["application/x-www-form-urlencoded"], "content-type");
    state.check(request.headers("authorization").is_empty(), "a bearer for the STS");
    if form.get("subject_token") != Some(&state.subject_token) {
        let body = json!({"error": "invalid_grant", "error_description": "canary-description"});
        return Reply::status(400, "Bad Request", &body.to_string());
    }
    state.check(form == expected, "the form of the token exchange");
    let holder = match &*scope {
        CLOUD_PLATFORM => Holder::Reader,
        "https://www.googleapis.com/auth/iam" => Holder::Impersonator,
        _ => return refuse(400, "INVALID_ARGUMENT", "", ""),
    };
    let token = state.issue("sts", holder);
    let body = json!({
        "access_token": token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": state.token_lifetime_s,
    });
    Reply::json(&body.to_string())
}

fn respond_iam(request: &ReceivedRequest, state: &mut State) -> Reply {
    let target = format!("/iam/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken");
    state.check(request.target() == target, request.target());
    state.check(request.headers("content-type") == ["application/json"], "content-type");
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    state.check(body == json!({"scope": [CLOUD_PLATFORM], "lifetime": "3600s"}), "the body of generateAccessToken");
    if state.holder(request) != Some(Holder::Impersonator) {
        return refuse(401, "UNAUTHENTICATED", "", "");
    }
    let token = state.issue("iam", Holder::Reader);
    Reply::json(&json!({"accessToken": token, "expireTime": "2026-01-01T00:00:00Z"}).to_string())
}

fn serve_metadata(stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(request_line) = lines.next() else { return };
    let fields: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
    let mut state = state.lock().unwrap();
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    state.check(request_line == format!("GET {path} HTTP/1.1"), &request_line);
    state.check(fields.contains(&"metadata-flavor: google".to_owned()), "metadata-flavor");
    let is_proxied = fields.iter().any(|field| field.starts_with("x-forwarded-for") || field.starts_with("via:"));
    state.check(!is_proxied, "a request to the metadata server through a proxy");
    let (status, body) = match state.overrides.get("metadata").cloned() {
        Some(Override::Cut) => return,
        Some(Override::Status(status, body)) => (status, body),
        None => {
            let token = state.issue("metadata", Holder::Reader);
            let lifetime = state.token_lifetime_s;
            (200, json!({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}).to_string())
        }
    };
    let flavor = if state.has_flavor { "Metadata-Flavor: Google\r\n" } else { "" };
    let head =
        format!("HTTP/1.1 {status} Whatever\r\n{flavor}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = (&stream).write_all((head + &body).as_bytes());
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
