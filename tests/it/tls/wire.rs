//! What is sent before a request: TLS versions, early data, and the influence of the environment.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::trust::{TestCa, upstream};
use crate::support::process::Proxy;

/// A relay in front of an upstream that records the first TLS record of each connection, the `ClientHello`.
struct RecordingRelay {
    address: SocketAddr,
    state: Arc<RelayState>,
}

#[derive(Default)]
struct RelayState {
    hellos: Mutex<Vec<Vec<u8>>>,
    /// Sent to each connection instead of the upstream's bytes.
    response: Mutex<Option<Vec<u8>>>,
}

impl RecordingRelay {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(RelayState::default());
        let relay_state = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&relay_state);
                thread::spawn(move || relay(stream.unwrap(), port, &state));
            }
        });
        Self { address, state }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    fn respond_with(&self, bytes: Vec<u8>) {
        *self.state.response.lock().unwrap() = Some(bytes);
    }

    fn hellos(&self) -> Vec<ClientHello> {
        self.state.hellos.lock().unwrap().iter().map(|record| ClientHello::parse(record)).collect()
    }
}

fn relay(mut client: TcpStream, port: u16, state: &RelayState) -> io::Result<()> {
    let mut record = vec![0; 5];
    client.read_exact(&mut record)?;
    record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
    client.read_exact(&mut record[5..])?;
    state.hellos.lock().unwrap().push(record.clone());
    let response = state.response.lock().unwrap().clone();
    if let Some(response) = response {
        client.write_all(&response)?;
        client.shutdown(Shutdown::Write)?;
        return io::copy(&mut client, &mut io::sink()).map(drop);
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", port))?;
    upstream.write_all(&record)?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let copied = io::copy(&mut upstream, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    copied.map(drop)
}

/// A `ClientHello` (RFC 8446, 4.1.2).
struct ClientHello {
    legacy_version: u16,
    extensions: BTreeMap<u16, Vec<u8>>,
}

const SUPPORTED_VERSIONS: u16 = 43;
const EARLY_DATA: u16 = 42;
const PRE_SHARED_KEY: u16 = 41;

impl ClientHello {
    fn parse(record: &[u8]) -> Self {
        // Skips the record header and the message header.
        let mut rest = &record[9..];
        let mut read = |length: usize| {
            let (bytes, tail) = rest.split_at(length);
            rest = tail;
            bytes.to_vec()
        };
        let number = |bytes: Vec<u8>| bytes.into_iter().fold(0_usize, |number, byte| number << 8 | usize::from(byte));
        let legacy_version = number(read(2)) as u16;
        read(32);
        // Session ID, cipher suites and compression methods, each prefixed by a length of this many bytes.
        for length in [1, 2, 1] {
            let length = number(read(length));
            read(length);
        }
        let mut remaining = number(read(2));
        let mut extensions = BTreeMap::new();
        while remaining > 0 {
            let (extension_type, length) = (number(read(2)) as u16, number(read(2)));
            extensions.insert(extension_type, read(length));
            remaining -= 4 + length;
        }
        Self { legacy_version, extensions }
    }
}

/// A `ServerHello` of TLS 1.1.
fn tls11_server_hello() -> Vec<u8> {
    let body = [&[3, 2][..], &[7; 32], &[0], &[0xc0, 0x13], &[0]].concat();
    [&[0x16, 3, 2, 0, body.len() as u8 + 4, 2, 0, 0, body.len() as u8][..], &body].concat()
}

#[test]
fn j04_nothing_below_tls_1_2_is_offered_or_accepted() {
    let ca = TestCa::new("ours");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, ca.pem()).unwrap();
    let upstream = upstream(&ca.server(|_| {}).config);
    let relay = RecordingRelay::to(upstream.port());
    let ca_file = ca_file.display().to_string();
    let variables = [("FINICITY__UPSTREAM__URL", relay.url()), ("FINICITY__UPSTREAM__CA_FILE", ca_file)];
    let proxy = Proxy::start_with(&upstream, &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    assert_eq!(proxy.connect().get("/x").status, 200);

    let alert_protocol_version = vec![0x15, 3, 1, 0, 2, 2, 70];
    for (count, response) in [(1, tls11_server_hello()), (2, alert_protocol_version)] {
        relay.respond_with(response);
        proxy.connect().get("/x").assert_problem(502, "upstream_tls");
        proxy.process.wait_for_lines(count, |line| line.contains("the upstream does not speak TLS 1.2 or 1.3"));
    }
    assert_eq!(upstream.requests().len(), 1);
    let hellos = relay.hellos();
    assert_eq!(hellos.len(), 4, "a token request and three API requests");
    for hello in hellos {
        assert_eq!(hello.legacy_version, 0x0303);
        assert_eq!(hello.extensions[&SUPPORTED_VERSIONS], [4, 3, 4, 3, 3], "TLS 1.3 and 1.2");
    }
}

#[test]
fn j08_a_session_is_resumed_without_early_data() {
    let ca = TestCa::new("ours");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, ca.pem()).unwrap();
    let mut config = (*ca.server(|_| {}).config).clone();
    config.max_early_data_size = 16 * 1024;
    let upstream = upstream(&Arc::new(config));
    let relay = RecordingRelay::to(upstream.port());
    let ca_file = ca_file.display().to_string();
    let variables = [("FINICITY__UPSTREAM__URL", relay.url()), ("FINICITY__UPSTREAM__CA_FILE", ca_file)];
    let proxy = Proxy::start_with(&upstream, &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    for _ in 0..3 {
        assert_eq!(proxy.connect().get("/x").status, 200);
    }
    let hellos = relay.hellos();
    assert!(hellos.iter().any(|hello| hello.extensions.contains_key(&PRE_SHARED_KEY)), "no session is resumed");
    assert!(hellos.iter().all(|hello| !hello.extensions.contains_key(&EARLY_DATA)));
}

#[test]
fn the_environment_adds_no_key_log_no_proxy_and_no_ca() {
    let ca = TestCa::new("ours");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, ca.pem()).unwrap();
    let upstream = upstream(&ca.server(|_| {}).config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let ca_dir = dir.path().display().to_string();
    let key_log = dir.path().join("keys.log").display().to_string();
    let ca_file = ca_file.display().to_string();
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let mut variables = vec![("FINICITY__UPSTREAM__CA_FILE", ca_file.as_str()), ("SSLKEYLOGFILE", &key_log)];
    variables.extend(proxies.map(|name| (name, address.as_str())));
    let proxy = Proxy::start_with(&upstream, &variables);
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert!(!dir.path().join("keys.log").exists());

    // Variables with which other programs configure trusted CAs.
    let variables =
        [("SSL_CERT_FILE", ca_file.as_str()), ("SSL_CERT_DIR", &*ca_dir), ("FINICITY__UPSTREAM__CA_FILE", "")];
    let proxy = Proxy::launch(&upstream, &variables);
    let line = proxy.process.wait_for_log("token refresh failed: operator action required");
    assert_eq!(line["class"], "certificate", "{line}");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "the HTTP proxy was used");
}
