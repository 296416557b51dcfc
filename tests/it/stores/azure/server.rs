//! Mock servers of Azure on this machine: a vault, Microsoft Entra, and the endpoints of managed identities. There is no emulator of
//! these, so the servers are strict: they check method, host, path, query, headers and form of each request, accept only tokens that they
//! issued, and record each deviation from the documentation of Azure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    egress::EgressProxy,
    upstream::{ReceivedRequest, Reply, Upstream, server_config_for},
};

pub const VAULT: &str = "finicity.vault.azure.net";
const ENTRA: &str = "login.microsoftonline.com";
const RESOURCE: &str = "https://vault.azure.net";
const API_VERSION: &str = "2025-07-01";
const TENANT: &str = "72f988bf-0000-0000-0000-000000000000";
pub const CLIENT: &str = "2d7b6a0c-0000-0000-0000-00000000000a";

/// The time of the vault, in its `Date` fields and in Unix seconds.
const DATE: &str = "Sat, 28 Nov 2026 12:00:00 GMT";
pub const NOW: i64 = 1_795_867_200;

/// The prefix of tokens and of the App Service header. None of them must appear in any output.
pub const CANARY: &str = "canary-azure-";

/// How managed identities are served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// By instance metadata, for the identity of the machine or of a client ID.
    Imds(Option<&'static str>),
    /// By App Service or Container Apps.
    AppService,
}

/// The reaction of the vault to a request.
#[derive(Clone)]
enum Mode {
    Serve,
    /// Responds with status, code and inner code.
    Fail(u16, &'static str, Option<&'static str>),
    /// Cuts the connection.
    Cut,
}

struct Version {
    id: String,
    text: String,
    attributes: Value,
}

struct State {
    versions: Vec<Version>,
    is_deleted: bool,
    mode: Mode,
    resource: &'static str,
    assertion: String,
    endpoint: Endpoint,
    /// The response of the identity services instead of a token.
    refusal: Option<(u16, String)>,
    /// The lifetime of tokens. With 0, the SDK uses a token only once.
    lifetime_s: u64,
    issued: u64,
    tokens: BTreeSet<String>,
    violations: Vec<String>,
}

/// A vault with one secret, and the services that issue tokens for it.
pub struct Azure {
    pub server: Upstream,
    pub egress: EgressProxy,
    dir: TempDir,
    metadata_port: u16,
    state: Arc<Mutex<State>>,
}

impl Drop for Azure {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.state().violations, [""; 0], "requests that Azure would reject");
        }
    }
}

impl Azure {
    /// A vault with the secret `text`, and with managed identities from `endpoint`.
    pub fn new(text: &str, endpoint: Endpoint) -> Self {
        let state = Arc::new(Mutex::new(State {
            versions: Vec::new(),
            is_deleted: false,
            mode: Mode::Serve,
            resource: RESOURCE,
            assertion: String::new(),
            endpoint,
            refusal: None,
            lifetime_s: 3600,
            issued: 0,
            tokens: BTreeSet::new(),
            violations: Vec::new(),
        }));
        let serving = Arc::clone(&state);
        let server = Upstream::start_raw(move |request| {
            let mut state = serving.lock().unwrap();
            match request.headers("host")[..] {
                [VAULT] => state.vault(request),
                [ENTRA] => state.entra(request),
                ref hosts => state.violation(&format!("hosts {hosts:?}")),
            }
        });
        let egress = EgressProxy::start_to(server.port());
        let metadata_port = serve_metadata(Arc::clone(&state));
        let azure = Self { server, egress, dir: tempfile::tempdir().unwrap(), metadata_port, state };
        azure.use_trusted_certificate();
        azure.write_assertion("1");
        azure.put(text);
        azure
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Stores `text` as a new version, and returns its ID.
    pub fn put(&self, text: &str) -> String {
        self.put_with(text, json!({"enabled": true}))
    }

    /// Like [`put`](Self::put), with attributes.
    pub fn put_with(&self, text: &str, attributes: Value) -> String {
        let mut state = self.state();
        let id = format!("{:032x}", 0x4387_e9f3 + state.versions.len());
        state.versions.push(Version { id: id.clone(), text: text.to_owned(), attributes });
        id
    }

    /// Sets the attributes of the newest version, such as `enabled`, `nbf`, `exp`.
    pub fn set_attributes(&self, attributes: Value) {
        self.state().versions.last_mut().unwrap().attributes = attributes;
    }

    pub fn delete(&self) {
        self.state().is_deleted = true;
    }

    pub fn recover(&self) {
        self.state().is_deleted = false;
    }

    /// From now on, the vault responds with status, code and inner code.
    pub fn fail(&self, status: u16, code: &'static str, inner: Option<&'static str>) {
        self.state().mode = Mode::Fail(status, code, inner);
    }

    /// From now on, connections to the vault break.
    pub fn cut(&self) {
        self.state().mode = Mode::Cut;
    }

    /// Ends all faults of the vault and the identity services.
    pub fn serve(&self) {
        let mut state = self.state();
        state.mode = Mode::Serve;
        state.refusal = None;
    }

    /// From now on, the identity services respond with `status` and `body`.
    pub fn refuse_tokens(&self, status: u16, body: &Value) {
        self.state().refusal = Some((status, body.to_string()));
    }

    /// From now on, tokens are valid for one request only.
    pub fn issue_short_tokens(&self) {
        self.state().lifetime_s = 0;
    }

    /// Revokes all tokens issued so far.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// From now on, the challenge of the vault names this resource.
    pub fn challenge_for(&self, resource: &'static str) {
        self.state().resource = resource;
    }

    /// The number of tokens issued so far.
    pub fn issued(&self) -> u64 {
        self.state().issued
    }

    /// Replaces the token of the workload identity. Microsoft Entra then accepts only the new one.
    pub fn write_assertion(&self, number: &str) {
        let assertion = format!("{CANARY}assertion.{number}.e30");
        fs::write(self.token_file(), &assertion).unwrap();
        self.state().assertion = assertion;
    }

    /// Replaces the token file by a FIFO that no process writes to.
    pub fn block_assertion(&self) {
        self.remove_assertion();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, self.token_file(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }

    pub fn remove_assertion(&self) {
        fs::remove_file(self.token_file()).unwrap();
    }

    fn token_file(&self) -> std::path::PathBuf {
        self.dir.path().join("azure-identity-token")
    }

    /// From now on, uses certificates of the CA in the CA file.
    pub fn use_trusted_certificate(&self) {
        self.server.set_tls_config(server_config_for(&[VAULT, ENTRA], &self.server.ca_file(), &[]));
    }

    /// The number of requests to the vault with a token so far.
    pub fn authorized_requests(&self) -> usize {
        self.server.received().iter().filter(|request| is_authorized(request)).count()
    }

    /// Waits until `count` requests with a token have arrived.
    #[track_caller]
    pub fn wait_for_authorized_requests(&self, count: usize) {
        self.server.wait_for_requests(count, is_authorized);
    }

    /// The variables of a process that reads the secret, without an identity, and proxy and log variables that must be ignored.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let (ca_file, vault_url) = (self.server.ca_file().display().to_string(), format!("https://{VAULT}"));
        [
            ("FINICITY__CREDENTIALS__SOURCE", "azure"),
            ("FINICITY__CREDENTIALS__POLL_INTERVAL", "1s"),
            ("FINICITY__CREDENTIALS__CA_FILE", &ca_file),
            ("FINICITY__CREDENTIALS__EGRESS_PROXY", &self.egress.url()),
            ("FINICITY__CREDENTIALS__AZURE__VAULT_URL", &vault_url),
            ("FINICITY__CREDENTIALS__AZURE__SECRET", "finicity"),
            ("HTTPS_PROXY", "http://127.0.0.1:1"),
            ("https_proxy", "http://127.0.0.1:1"),
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("ALL_PROXY", "http://127.0.0.1:1"),
            ("RUST_LOG", "trace"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// Like [`variables`](Self::variables), with the workload identity of a pod on AKS.
    pub fn variables_of_workload(&self) -> BTreeMap<String, String> {
        let mut variables = self.variables();
        let authority = format!("https://{ENTRA}/");
        let file = self.token_file().display().to_string();
        for (name, value) in [
            ("AZURE_CLIENT_ID", CLIENT),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_AUTHORITY_HOST", &authority),
            ("AZURE_FEDERATED_TOKEN_FILE", &file),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        variables
    }

    /// Like [`variables`](Self::variables), with the managed identity.
    pub fn variables_of_managed_identity(&self) -> BTreeMap<String, String> {
        let mut variables = self.variables();
        let origin = format!("http://127.0.0.1:{}", self.metadata_port);
        match self.state().endpoint {
            Endpoint::Imds(client) => {
                variables.insert("AZURE_POD_IDENTITY_AUTHORITY_HOST".to_owned(), origin);
                variables.extend(client.map(|client| ("AZURE_CLIENT_ID".to_owned(), client.to_owned())));
            }
            Endpoint::AppService => {
                variables.insert("IDENTITY_ENDPOINT".to_owned(), format!("{origin}/msi/token"));
                variables.insert("IDENTITY_HEADER".to_owned(), format!("{CANARY}header"));
            }
        }
        variables
    }
}

fn is_authorized(request: &ReceivedRequest) -> bool {
    request.headers("host") == [VAULT] && !request.headers("authorization").is_empty()
}

impl State {
    fn violation(&mut self, what: &str) -> Reply {
        self.violations.push(what.to_owned());
        Reply::status(400, "Bad Request", &json!({"error": {"code": "BadParameter", "message": what}}).to_string())
    }

    fn vault(&mut self, request: &ReceivedRequest) -> Reply {
        let version = match self.check_read(request) {
            Ok(version) => version,
            Err(what) => return self.violation(&format!("{what}: {}", request.head)),
        };
        match self.mode {
            Mode::Cut => return Reply::Cut(Vec::new()),
            Mode::Fail(status, code, inner) => return vault_error(status, code, inner),
            Mode::Serve => {}
        }
        let token = request.headers("authorization").first().and_then(|value| value.strip_prefix("Bearer "));
        if !token.is_some_and(|token| self.tokens.contains(token)) {
            return self.challenge();
        }
        let found = match version.as_str() {
            "" => self.versions.last(),
            id => self.versions.iter().find(|version| version.id == id),
        };
        let Some(Version { id, text, attributes }) = found.filter(|_| !self.is_deleted) else {
            return vault_error(404, "SecretNotFound", None);
        };
        if attributes["enabled"] == false {
            return vault_error(403, "Forbidden", Some("SecretDisabled"));
        }
        let id = format!("https://{VAULT}/secrets/finicity/{id}");
        reply(200, &[], &json!({"value": text, "id": id, "attributes": attributes, "tags": {}}).to_string())
    }

    /// The requested version; empty for the newest.
    fn check_read(&self, request: &ReceivedRequest) -> Result<String, &'static str> {
        let (path, query) = request.target().split_once('?').ok_or("no query")?;
        if !request.head.starts_with("GET ") || request.body_len > 0 {
            return Err("not a plain GET");
        }
        if query != format!("api-version={API_VERSION}") {
            return Err("the api-version");
        }
        if request.headers("accept") != ["application/json"] {
            return Err("the field accept");
        }
        path.strip_prefix("/secrets/finicity/").map(ToOwned::to_owned).ok_or("the path")
    }

    fn challenge(&self) -> Reply {
        let challenge = format!(
            "WWW-Authenticate: Bearer authorization=\"https://{ENTRA}/{TENANT}\", resource=\"{}\"",
            self.resource
        );
        let body = json!({"error": {"code": "Unauthorized", "message": "AKV10000: canary-message"}});
        reply(401, &[&challenge], &body.to_string())
    }

    fn entra(&mut self, request: &ReceivedRequest) -> Reply {
        if let Err(what) = self.check_exchange(request) {
            return self.violation(&format!("{what}: {}", request.head));
        }
        if let Some((status, body)) = &self.refusal {
            return reply(*status, &[], body);
        }
        let form: BTreeMap<_, _> = form_urlencoded::parse(&request.body).collect();
        if form["client_assertion"] != self.assertion {
            let body = json!({"error": "invalid_client", "error_codes": [700_024], "error_description": "canary"});
            return reply(401, &[], &body.to_string());
        }
        let token = self.issue();
        let lifetime_s = self.lifetime_s;
        let body = json!({"token_type": "Bearer", "expires_in": lifetime_s, "ext_expires_in": lifetime_s, "access_token": token});
        reply(200, &[], &body.to_string())
    }

    fn check_exchange(&self, request: &ReceivedRequest) -> Result<(), &'static str> {
        if !request.head.starts_with(&format!("POST /{TENANT}/oauth2/v2.0/token HTTP/1.1\r\n")) {
            return Err("the request line");
        }
        if request.headers("content-type") != ["application/x-www-form-urlencoded"] {
            return Err("the field content-type");
        }
        let mut form: BTreeMap<_, _> = form_urlencoded::parse(&request.body).collect();
        form.remove("client_assertion").ok_or("no assertion")?;
        let expected = [
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", CLIENT),
            ("grant_type", "client_credentials"),
            ("scope", "https://vault.azure.net/.default"),
        ];
        if form.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).ne(expected) {
            return Err("the form");
        }
        Ok(())
    }

    fn issue(&mut self) -> String {
        self.issued += 1;
        let token = format!("{CANARY}token-{}", self.issued);
        self.tokens.insert(token.clone());
        token
    }

    /// The response to a request for the token of a managed identity.
    fn metadata(&mut self, head: &[String]) -> (u16, String) {
        let has = |field: &str| head.iter().any(|line| line.eq_ignore_ascii_case(field));
        let mut expected = match self.endpoint {
            Endpoint::Imds(_) => "GET /metadata/identity/oauth2/token".to_owned(),
            Endpoint::AppService => "GET /msi/token".to_owned(),
        };
        expected += "?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net";
        if let Endpoint::Imds(Some(client)) = self.endpoint {
            let _ = write!(expected, "&client_id={client}");
        }
        expected += " HTTP/1.1";
        let is_identified = match self.endpoint {
            Endpoint::Imds(_) => has("metadata: true"),
            Endpoint::AppService => has(&format!("x-identity-header: {CANARY}header")),
        };
        if head[0] != expected || !is_identified {
            self.violations.push(format!("not {expected}: {head:?}"));
            return (400, "{}".to_owned());
        }
        if let Some(refusal) = &self.refusal {
            return refusal.clone();
        }
        // In the year 2100, or in 1970.
        let expires_on = if self.lifetime_s == 0 { "0" } else { "4102444800" };
        let token = self.issue();
        let body =
            json!({"access_token": token, "expires_on": expires_on, "resource": RESOURCE, "token_type": "Bearer"});
        (200, body.to_string())
    }
}

fn vault_error(status: u16, code: &str, inner: Option<&str>) -> Reply {
    let inner = inner.map(|code| json!({"code": code}));
    let body = json!({"error": {"code": code, "message": "canary-message", "innererror": inner}});
    reply(status, &[], &body.to_string())
}

fn reply(status: u16, lines: &[&str], body: &str) -> Reply {
    let mut head =
        format!("HTTP/1.1 {status} Whatever\r\ndate: {DATE}\r\ncontent-type: application/json; charset=utf-8\r\n");
    for line in lines {
        let _ = write!(head, "{line}\r\n");
    }
    let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
    Reply::Bytes((head + body).into_bytes())
}

/// Serves the endpoint of managed identities over plain HTTP until the tests exit. Returns its port.
fn serve_metadata(state: Arc<Mutex<State>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = respond(stream.unwrap(), &state);
        }
    });
    port
}

fn respond(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut head = Vec::new();
    loop {
        match lines.next().transpose()? {
            // A process that exits can leave an unfinished head.
            None => return Ok(()),
            Some(line) if line.is_empty() => break,
            Some(line) => head.push(line),
        }
    }
    let (status, body) = state.lock().unwrap().metadata(&head);
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} Whatever\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}
