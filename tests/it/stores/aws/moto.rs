//! The moto server, which checks signatures and IAM policies, behind a TLS relay that a test can make fail.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64, atomic::Ordering::Relaxed},
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    client::{Client, Response},
    upstream::{ReceivedRequest, Reply, Upstream, server_config},
};

/// The variable with the path of the moto server, which `.ci/stores` installs.
const PROGRAM: &str = "MOTO_SERVER";

/// Stops the server when the tests exit for any reason, which closes standard input. Exits if the server cannot be run.
const SUPERVISE: &str = r#""$0" --help >/dev/null || exit; "$0" -H 127.0.0.1 -p 0 & read -r _; kill $!; wait"#;

const ACCOUNT: &str = "123456789012";

const REGION: &str = "eu-west-1";

/// One server for all tests. Each test has its own secret, user and role.
struct Moto {
    address: SocketAddr,
    /// Locked while the server checks no authorization.
    administration: Mutex<()>,
    _supervisor: Child,
}

fn moto() -> &'static Moto {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(|| {
        let program = std::env::var(PROGRAM).unwrap_or_else(|_| {
            panic!(
                "{PROGRAM} does not name moto's server: run `.ci/stores aws`, which installs it and runs these tests"
            )
        });
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISE, &program])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(supervisor.stderr.take().unwrap()).lines();
        let started = lines.find_map(|line| Some(line.unwrap().split_once("http://127.0.0.1:")?.1.trim().to_owned()));
        let port: u16 = started.expect("moto's server does not start").parse().unwrap();
        thread::spawn(move || lines.for_each(drop));
        Moto { address: ([127, 0, 0, 1], port).into(), administration: Mutex::new(()), _supervisor: supervisor }
    })
}

impl Moto {
    /// Runs `with` while the server checks no authorization.
    fn administer<T>(&self, with: impl FnOnce() -> T) -> T {
        let guard = self.administration.lock().unwrap();
        let check_after = |actions: &str| {
            let lines = ["content-type: text/plain", &format!("content-length: {}", actions.len())];
            let response = self.connect().call("POST", "/moto-api/reset-auth", &lines, actions.as_bytes());
            assert_eq!(response.status, 200, "{response:?}");
        };
        check_after("inf");
        let result = with();
        check_after("0");
        drop(guard);
        result
    }

    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends a request as an administrator.
    fn call(&self, service: &str, lines: &[&str], body: &str) -> String {
        let authorization = format!(
            "authorization: AWS4-HMAC-SHA256 Credential=admin/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=none"
        );
        let length = format!("content-length: {}", body.len());
        let lines = [&[authorization.as_str(), &length], lines].concat();
        let response = self.connect().call("POST", "/", &lines, body.as_bytes());
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        response.text()
    }

    fn secrets(&self, action: &str, input: Value) -> Value {
        let target = format!("x-amz-target: secretsmanager.{action}");
        let body = input.to_string();
        let text = self
            .administer(|| self.call("secretsmanager", &["content-type: application/x-amz-json-1.1", &target], &body));
        serde_json::from_str(&text).unwrap()
    }

    /// Runs an IAM action, and returns its response.
    fn iam(&self, parameters: &[(&str, &str)]) -> String {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Version", "2010-05-08")
            .extend_pairs(parameters)
            .finish();
        self.administer(|| self.call("iam", &["content-type: application/x-www-form-urlencoded"], &body))
    }
}

fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let start = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}")).1;
    start.split_once('<').unwrap().0
}

/// The reaction of the relay to a request.
#[derive(Clone)]
enum Mode {
    Forward,
    /// Responds with the error code.
    Fail(&'static str),
    /// Cuts the connection.
    Cut,
}

/// One secret and one identity in AWS, and the relay in front of them.
pub struct Store {
    pub relay: Upstream,
    pub secret: String,
    mode: Arc<Mutex<Mode>>,
    user: String,
    key: (String, String),
    versions: AtomicU64,
}

impl Store {
    /// Creates a secret with `text`, and a user with permission for `actions`.
    pub fn new(text: &str, actions: &[&str]) -> Self {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let number = STORES.fetch_add(1, Relaxed);
        let user = format!("user-{number}");
        let secret = format!("finicity/test-{number}");
        moto().iam(&[("Action", "CreateUser"), ("UserName", &user)]);
        let key = moto().iam(&[("Action", "CreateAccessKey"), ("UserName", &user)]);
        let key = (element(&key, "AccessKeyId").to_owned(), element(&key, "SecretAccessKey").to_owned());
        let mode = Arc::new(Mutex::new(Mode::Forward));
        let relay_mode = Arc::clone(&mode);
        let relay = Upstream::start_raw(move |request| relay(request, &relay_mode.lock().unwrap().clone()));
        let store = Self { relay, secret, mode, user, key, versions: AtomicU64::new(0) };
        store.permit(actions);
        store.create(text);
        store
    }

    pub fn create(&self, text: &str) {
        moto().secrets(
            "CreateSecret",
            json!({"Name": self.secret, "SecretString": text, "ClientRequestToken": self.version()}),
        );
    }

    /// Stores `text` as a new version with the label AWSCURRENT.
    pub fn put(&self, text: &str) {
        let input = json!({"SecretId": self.secret, "SecretString": text, "ClientRequestToken": self.version()});
        moto().secrets("PutSecretValue", input);
    }

    /// Deletes the secret, immediately or in 30 days.
    pub fn delete(&self, immediately: bool) {
        moto().secrets("DeleteSecret", json!({"SecretId": self.secret, "ForceDeleteWithoutRecovery": immediately}));
    }

    pub fn restore(&self) {
        moto().secrets("RestoreSecret", json!({"SecretId": self.secret}));
    }

    /// Permits only `actions`.
    pub fn permit(&self, actions: &[&str]) {
        let policy = policy(actions);
        moto().iam(&[
            ("Action", "PutUserPolicy"),
            ("UserName", &self.user),
            ("PolicyName", "p"),
            ("PolicyDocument", &policy),
        ]);
    }

    /// Creates a role with permission for `actions` that service accounts can assume. Returns its ARN.
    pub fn create_role(&self, actions: &[&str]) -> String {
        let role = format!("role-of-{}", self.user);
        let trust = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"Federated": "*"}, "Action": "sts:AssumeRoleWithWebIdentity"}]});
        moto().iam(&[("Action", "CreateRole"), ("RoleName", &role), ("AssumeRolePolicyDocument", &trust.to_string())]);
        self.permit_role(actions);
        format!("arn:aws:iam::{ACCOUNT}:role/{role}")
    }

    pub fn permit_role(&self, actions: &[&str]) {
        let role = format!("role-of-{}", self.user);
        let policy = policy(actions);
        moto().iam(&[
            ("Action", "PutRolePolicy"),
            ("RoleName", &role),
            ("PolicyName", "p"),
            ("PolicyDocument", &policy),
        ]);
    }

    pub fn forward(&self) {
        *self.mode.lock().unwrap() = Mode::Forward;
    }

    /// From now on, AWS responds with the error `code`.
    pub fn fail_with(&self, code: &'static str) {
        *self.mode.lock().unwrap() = Mode::Fail(code);
    }

    /// From now on, connections break.
    pub fn cut(&self) {
        *self.mode.lock().unwrap() = Mode::Cut;
    }

    /// From now on, uses a certificate of the CA in the CA file again.
    pub fn use_trusted_certificate(&self) {
        self.relay.set_tls_config(server_config(&self.relay.ca_file(), &[]));
    }

    /// The number of requests for `action` so far.
    pub fn calls(&self, action: &str) -> usize {
        let target = format!("secretsmanager.{action}");
        self.relay.received().iter().filter(|request| request.headers("x-amz-target") == [&target]).count()
    }

    /// Waits until `count` requests for `action` have arrived.
    #[track_caller]
    pub fn wait_for_calls(&self, action: &str, count: usize) {
        let target = format!("secretsmanager.{action}");
        self.relay.wait_for_requests(count, |request| request.headers("x-amz-target") == [&target]);
    }

    /// The variables of a process that reads the secret, without an identity, and proxy and log variables that must be ignored.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let ca_file = self.relay.ca_file().display().to_string();
        [
            ("FINICITY__CREDENTIALS__SOURCE", "aws"),
            ("FINICITY__CREDENTIALS__POLL_INTERVAL", "1s"),
            ("FINICITY__CREDENTIALS__CA_FILE", &ca_file),
            ("FINICITY__CREDENTIALS__AWS__SECRET", &self.secret),
            ("FINICITY__CREDENTIALS__AWS__ENDPOINT", &self.relay.url()),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("HTTPS_PROXY", "http://127.0.0.1:1"),
            ("https_proxy", "http://127.0.0.1:1"),
            ("ALL_PROXY", "http://127.0.0.1:1"),
            ("LOG_SENSITIVE_BODIES", "true"),
            ("RUST_LOG", "trace"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// Like [`variables`](Self::variables), with the access key of the user.
    pub fn variables_of_user(&self) -> BTreeMap<String, String> {
        let mut variables = self.variables();
        variables.insert("AWS_ACCESS_KEY_ID".to_owned(), self.key.0.clone());
        variables.insert("AWS_SECRET_ACCESS_KEY".to_owned(), self.key.1.clone());
        variables
    }

    /// The secret access key of the user.
    pub fn secret_key(&self) -> &str {
        &self.key.1
    }

    fn version(&self) -> String {
        format!("00000000-0000-0000-0000-{:012}", self.versions.fetch_add(1, Relaxed))
    }
}

fn policy(actions: &[&str]) -> String {
    // A policy needs an action; this one is not used here.
    let actions = [actions, &["s3:ListAllMyBuckets"]].concat();
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}).to_string()
}

fn relay(request: &ReceivedRequest, mode: &Mode) -> Reply {
    match mode {
        Mode::Fail(code) => {
            Reply::status(400, "Bad Request", &format!(r#"{{"__type":"{code}","message":"canary-message"}}"#))
        }
        Mode::Cut => Reply::Cut(Vec::new()),
        // STS issues an identity without authorization, which the server cannot do while it checks authorization.
        Mode::Forward if request.headers("authorization").is_empty() => moto().administer(|| reply(&forward(request))),
        Mode::Forward => reply(&forward(request)),
    }
}

fn forward(request: &ReceivedRequest) -> Response {
    let mut client = moto().connect();
    client.send(format!("{}\r\n\r\n", request.head));
    client.send(&request.body);
    client.read_response(false).unwrap()
}

/// Converts a response. moto sends every 403 as XML; AWS uses the protocol of the request.
fn reply(response: &Response) -> Reply {
    let text = response.text();
    if response.status == 403 {
        let code = element(&text, "Code").replace("AccessDenied", "AccessDeniedException");
        return Reply::status(400, "Bad Request", &format!(r#"{{"__type":"{code}","message":"canary-message"}}"#));
    }
    Reply::status(response.status, "Whatever", &text)
}
