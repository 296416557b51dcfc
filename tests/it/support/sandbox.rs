//! The sandbox as a process, clients that call it directly, and a service that receives its webhooks.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;

use super::{
    TIMEOUT,
    client::{Client, Response},
    process::{Process, Proxy, program},
};

/// The public credentials of the sandbox.
pub const SANDBOX_ID: &str = "sandbox-client";
pub const SANDBOX_SECRET: &str = "sandbox-Secret-1!";
pub const SANDBOX_APP_KEY: &str = "sandbox-app-key-0123456789abcdef";

/// Prints `text` to stderr directly: it is visible although the test harness captures output.
pub fn notice(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// A connection to the sandbox over TLS.
pub type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A running sandbox. Dropping it kills it.
pub struct Sandbox {
    _process: Process,
    pub port: u16,
    pub ca_file: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Sandbox {
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let mut command = program();
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(&ca_file).args(arguments);
        let process = Process::start(command);
        process.wait_for_line(|line| line == "finicity-proxy serve");
        let line = process.wait_for_line(|line| line.starts_with("the sandbox listens on "));
        let port = line.split(';').next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        Self { _process: process, port, ca_file, _folder: Some(folder) }
    }

    /// A sandbox that already runs on `port`, with its CA in `ca_file`.
    pub fn of(process: Process, port: u16, ca_file: PathBuf) -> Self {
        Self { _process: process, port, ca_file, _folder: None }
    }

    /// A connection that trusts only the sandbox's CA.
    pub fn connect(&self) -> TlsClient {
        self.connect_as("localhost")
    }

    /// Like [`connect`](Self::connect), for the host `name`.
    pub fn connect_as(&self, name: &str) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca_file).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(StreamOwned::new(connection, stream))
    }

    /// The proxy in front of the sandbox, as the partner `id`.
    pub fn proxy(&self, id: &str, variables: &[(&str, &str)]) -> Proxy {
        let proxy = Proxy::run(self.serve_command(id, variables));
        proxy.process.wait_for_log("token obtained");
        proxy
    }

    /// `serve` in front of the sandbox, as the partner `id`.
    pub fn serve_command(&self, id: &str, variables: &[(&str, &str)]) -> Command {
        self.command(&["serve"], id, variables)
    }

    /// The program with `arguments` and the configuration of a proxy in front of it, as the partner `id`.
    pub fn command(&self, arguments: &[&str], id: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = program();
        command
            .args(arguments)
            .env("FINICITY__AUTH__SCHEME", "partner")
            .env("FINICITY_PARTNER_ID", id)
            .env("FINICITY_PARTNER_SECRET", SANDBOX_SECRET)
            .env("FINICITY_APP_KEY", SANDBOX_APP_KEY)
            .env("FINICITY__UPSTREAM__URL", format!("https://localhost:{}", self.port))
            .env("FINICITY__UPSTREAM__CA_FILE", &self.ca_file)
            .env("FINICITY__LISTEN__PROXY", "127.0.0.1:0")
            .env("FINICITY__LISTEN__OPS", "127.0.0.1:0")
            .env("FINICITY__LISTEN__ADMIN", "127.0.0.1:0")
            .envs(variables.iter().copied());
        command
    }
}

/// Requests with or without a JSON body, over any connection.
pub trait JsonClient {
    /// Sends a request with the additional head lines `lines`, and with `body` unless it is null.
    fn json(&mut self, method: &str, target: &str, lines: &[&str], body: &Value) -> Response;

    /// Sends a request that must get the status `status`. Returns the response body as JSON.
    #[track_caller]
    fn ok(&mut self, status: u16, method: &str, target: &str, body: &Value) -> Value {
        let response = self.json(method, target, &[], body);
        assert_eq!(response.status, status, "{method} {target}: {}", response.text());
        serde_json::from_slice(&response.body).unwrap_or(Value::Null)
    }
}

impl<S: std::io::Read + std::io::Write> JsonClient for Client<S> {
    fn json(&mut self, method: &str, target: &str, lines: &[&str], body: &Value) -> Response {
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        let length = format!("Content-Length: {}", bytes.len());
        let mut all = Vec::new();
        if !lines.iter().any(|line| line.starts_with("Accept:")) {
            all.push("Accept: application/json");
        }
        if !body.is_null() {
            all.push("Content-Type: application/json");
        }
        if !body.is_null() || method == "POST" || method == "PUT" {
            all.push(&length);
        }
        all.extend(lines);
        self.call(method, target, &all, bytes.as_bytes())
    }
}

/// A direct client of the sandbox with its own token.
pub struct Caller {
    pub client: TlsClient,
    pub token: String,
}

impl Caller {
    /// Obtains a token as the partner `id`.
    pub fn new(sandbox: &Sandbox, id: &str) -> Self {
        let mut client = sandbox.connect();
        let body = serde_json::json!({"partnerId": id, "partnerSecret": SANDBOX_SECRET});
        let key = format!("Finicity-App-Key: {SANDBOX_APP_KEY}");
        let response = client.json("POST", "/aggregation/v2/partners/authentication", &[&key], &body);
        assert_eq!(response.status, 200, "{}", response.text());
        let token: Value = serde_json::from_slice(&response.body).unwrap();
        Self { client, token: token["token"].as_str().unwrap().to_owned() }
    }
}

impl JsonClient for Caller {
    fn json(&mut self, method: &str, target: &str, lines: &[&str], body: &Value) -> Response {
        let key = format!("Finicity-App-Key: {SANDBOX_APP_KEY}");
        let token = format!("Finicity-App-Token: {}", self.token);
        let all: Vec<&str> = [key.as_str(), token.as_str()].into_iter().chain(lines.iter().copied()).collect();
        self.client.json(method, target, &all, body)
    }
}

/// A notification that arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Delivery {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Deliveries {
    received: Mutex<Vec<Delivery>>,
    changed: Condvar,
}

/// A service that accepts webhooks and returns the TxPUSH verification code.
pub struct Receiver {
    pub address: SocketAddr,
    deliveries: Arc<Deliveries>,
}

impl Receiver {
    /// Responds to every POST with `status`.
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deliveries = Arc::new(Deliveries::default());
        let shared = Arc::clone(&deliveries);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), status, &shared));
            }
        });
        Self { address, deliveries }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Waits until `count` deliveries have arrived. Returns all deliveries.
    pub fn wait_for(&self, count: usize) -> Vec<Delivery> {
        let received = self.deliveries.received.lock().unwrap();
        let enough = |received: &mut Vec<Delivery>| received.len() < count;
        let (received, timeout) = self.deliveries.changed.wait_timeout_while(received, TIMEOUT, enough).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} deliveries", received.len());
        received.clone()
    }
}

fn serve(stream: TcpStream, status: u16, deliveries: &Deliveries) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let target = line.split(' ').nth(1).unwrap_or("").to_owned();
        let is_post = line.starts_with("POST ");
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length =
            headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, length)| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let code = target.split_once("txpush_verification_code=").map_or("", |(_, code)| code);
        let status = if is_post { status } else { 200 };
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{code}", code.len());
        if is_post {
            deliveries.received.lock().unwrap().push(Delivery { headers, body });
            deliveries.changed.notify_all();
        }
        reader.get_mut().write_all(head.as_bytes()).unwrap();
    }
}
