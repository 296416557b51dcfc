//! Which upstream certificates the proxy trusts, how trust changes at run time, and how rejected certificates are reported.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData as _, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustix::process::Signal;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

use crate::support::{
    client::Client,
    process::Proxy,
    upstream::{Reply, Upstream},
};

/// A certificate authority that issues certificates.
pub struct TestCa(CertifiedIssuer<'static, KeyPair>);

/// A server configuration with a certificate, and the pin of its key.
pub struct TestServer {
    pub config: Arc<ServerConfig>,
    pin: String,
}

impl TestServer {
    /// The pin of its key.
    pub fn pin(&self) -> &str {
        &self.pin
    }
}

impl TestCa {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server for `localhost`, with a certificate that `configure` adjusts.
    pub fn server(&self, configure: impl FnOnce(&mut CertificateParams)) -> TestServer {
        let (params, key) = leaf(configure);
        server(params.signed_by(&key, &self.0).unwrap().der().clone(), &key)
    }
}

fn leaf(configure: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    configure(&mut params);
    (params, KeyPair::generate().unwrap())
}

fn self_signed() -> TestServer {
    let (params, key) = leaf(|_| {});
    server(params.self_signed(&key).unwrap().der().clone(), &key)
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> TestServer {
    let pin = format!("sha256/{}", BASE64_STANDARD.encode(digest(&SHA256, &key.subject_public_key_info())));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TestServer { config: Arc::new(config), pin }
}

/// An upstream that closes the connection after each response, so that each request opens one.
pub fn upstream(config: &Arc<ServerConfig>) -> Upstream {
    let response = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    let upstream = Upstream::start(3600, |_| Reply::Close(response.to_vec()));
    upstream.set_tls_config(Arc::clone(config));
    upstream
}

/// A directory with a file `ca.pem` that changes like a mounted ConfigMap.
struct MountedFile {
    dir: TempDir,
    generation: u32,
}

impl MountedFile {
    fn new(content: &str) -> Self {
        let mut mount = Self { dir: tempfile::tempdir().unwrap(), generation: 0 };
        mount.swap(content);
        symlink("..data/ca.pem", mount.dir.path().join("ca.pem")).unwrap();
        mount
    }

    fn ca_file(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    fn swap(&mut self, content: &str) {
        let path = |name: &str| self.dir.path().join(name);
        let generation = |number: u32| format!("..gen_{number}");
        let old = generation(self.generation);
        self.generation += 1;
        let new = generation(self.generation);
        fs::create_dir(path(&new)).unwrap();
        fs::write(path(&new).join("ca.pem"), content).unwrap();
        symlink(&new, path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        if self.generation > 1 {
            fs::remove_dir_all(path(&old)).unwrap();
        }
    }
}

const RELOADED: &str = "upstream.ca_file reloaded; new connections use the new trust store";

#[test]
fn j01_each_certificate_defect_is_rejected_and_logged() {
    let (ca, unknown_ca) = (TestCa::new("ours"), TestCa::new("a stranger"));
    let same_name_ca = TestCa::new("ours");
    let valid_server = ca.server(|_| {});
    let mount = MountedFile::new(&ca.pem());
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2024, 1, 1);
    let not_yet_valid = |params: &mut CertificateParams| params.not_before = date_time_ymd(2999, 1, 1);
    let other_name = |params: &mut CertificateParams| {
        params.subject_alt_names =
            CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap().subject_alt_names;
    };
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    for (server, message) in [
        (ca.server(expired), "has expired"),
        (ca.server(not_yet_valid), "is not valid yet"),
        (ca.server(other_name), "is for another host"),
        (ca.server(for_clients), "certificate is invalid"),
        (unknown_ca.server(|_| {}), "self-signed or issued by an untrusted CA"),
        (same_name_ca.server(|_| {}), "self-signed or issued by an untrusted CA"),
        (self_signed(), "self-signed or issued by an untrusted CA"),
        (ca.server(|_| {}), "has a key that upstream.pinned_keys does not list"),
    ] {
        let ca_file = mount.ca_file();
        let variables =
            [("FINICITY__UPSTREAM__CA_FILE", &*ca_file), ("FINICITY__UPSTREAM__PINNED_KEYS", &valid_server.pin)];
        let rejected = upstream(&server.config);
        let proxy = Proxy::launch(&rejected, &variables);
        let line = proxy.process.wait_for_log("token refresh failed: operator action required");
        assert_eq!(line["class"], "certificate", "{line}");
        assert!(line["error"].as_str().unwrap().contains(message), "{message}: {line}");
        assert_eq!(rejected.received().len(), 0, "nothing was sent");
        // The next attempt can have been made already.
        let refreshes = counted(&proxy, r#"finicity_proxy_token_refreshes_total{outcome="certificate"}"#);
        assert!(refreshes >= 1, "{refreshes}");

        let upstream = upstream(&valid_server.config);
        let proxy = Proxy::start_with(&upstream, &variables);
        assert_eq!(proxy.connect().get("/good").status, 200);
        upstream.set_tls_config(server.config);
        proxy.connect().get("/bad").assert_problem(502, "upstream_tls");
        let line = proxy.process.wait_for_line(|line| line.contains(r#""error.type":"upstream_tls""#));
        assert!(line.contains(message) && !line.contains("elsewhere"), "{message}: {line}");
        assert_eq!(upstream.requests().len(), 1, "nothing was sent");
        assert_eq!(counted(&proxy, r#"finicity_proxy_errors_total{code="upstream_tls"}"#), 1);
    }
}

/// The value of the metric `name`, with its labels.
#[track_caller]
fn counted(proxy: &Proxy, name: &str) -> u64 {
    let metrics = proxy.ops().get("/metrics").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in\n{metrics}"))
}

#[test]
fn j10_a_ca_is_replaced_while_the_proxy_runs() {
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let (old_server, new_server) = (old.server(|_| {}), new.server(|_| {}));
    let mut mount = MountedFile::new(&old.pem());
    let upstream = upstream(&old_server.config);
    let variables =
        [("FINICITY__UPSTREAM__CA_FILE", &*mount.ca_file()), ("FINICITY_ADMIN_TOKEN", "an-admin-token-of-a-test")];
    let proxy = Proxy::start_with(&upstream, &variables);
    assert_eq!(proxy.connect().get("/x").status, 200);
    upstream.set_tls_config(Arc::clone(&new_server.config));
    proxy.connect().get("/x").assert_problem(502, "upstream_tls");

    mount.swap(&new.pem());
    assert_eq!(proxy.process.wait_for_log(RELOADED)["authorities"], 1);
    assert_eq!(proxy.connect().get("/x").status, 200);
    let lines = ["Content-Length: 0", "Authorization: Bearer an-admin-token-of-a-test"];
    assert_eq!(Client::connect(proxy.admin).call("POST", "/api/token/invalidate", &lines, b"").status, 200);
    proxy.process.wait_for_lines(2, |line| line.contains(r#""token obtained""#));

    // The tickets of the old server must not be used, because its CA is no longer trusted.
    upstream.set_tls_config(old_server.config);
    proxy.connect().get("/x").assert_problem(502, "upstream_tls");

    upstream.set_tls_config(new_server.config);
    mount.swap("-----BEGIN CERTIFICATE-----\nhalf of it");
    let line = proxy.process.wait_for_log("cannot load upstream.ca_file; keeping the previous trust store");
    assert_eq!((&line["level"], &line["target"]), (&"ERROR".into(), &"finicity_proxy::audit".into()));
    assert!(line["problem"].as_str().unwrap().contains(&mount.ca_file()), "{line}");
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn j10_sighup_reloads_ca_file_immediately() {
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let mut mount = MountedFile::new(&old.pem());
    let upstream = upstream(&old.server(|_| {}).config);
    let proxy = Proxy::start_with(&upstream, &[("FINICITY__UPSTREAM__CA_FILE", &mount.ca_file())]);
    // Only the signal reloads an unchanged file.
    proxy.process.signal(Signal::HUP);
    assert_eq!(proxy.process.wait_for_log(RELOADED)["authorities"], 1);
    upstream.set_tls_config(new.server(|_| {}).config);
    mount.swap(&(old.pem() + &new.pem()));
    proxy.process.signal(Signal::HUP);
    proxy.process.wait_for_line(|line| line.contains(RELOADED) && line.contains(r#""authorities":2"#));
    assert_eq!(proxy.connect().get("/x").status, 200);
}

#[test]
fn one_matching_pin_is_enough_without_public_roots() {
    let ca = TestCa::new("ours");
    let (server, next) = (ca.server(|_| {}), ca.server(|_| {}));
    let mount = MountedFile::new(&ca.pem());
    let upstream = upstream(&server.config);
    let pins = format!("{}, {}", next.pin, server.pin);
    let variables = [
        ("FINICITY__UPSTREAM__CA_FILE", mount.ca_file()),
        ("FINICITY__UPSTREAM__PINNED_KEYS", pins),
        ("FINICITY__UPSTREAM__PUBLIC_ROOTS", "false".to_owned()),
    ];
    let proxy = Proxy::start_with(&upstream, &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    assert_eq!(proxy.connect().get("/x").status, 200);
    upstream.set_tls_config(next.config);
    assert_eq!(proxy.connect().get("/x").status, 200, "the server switched to another listed key");
}

#[test]
fn f03_j09_a_close_delimited_response_needs_close_notify() {
    let (sized, delimited) =
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..], &b"HTTP/1.1 200 OK\r\n\r\nhello"[..]);
    let upstream = Upstream::start(3600, |request| match request.target() {
        "/sized/cut" => Reply::Cut(sized.to_vec()),
        "/delimited/closed" => Reply::Close(delimited.to_vec()),
        "/delimited/reset" => Reply::Reset(delimited.to_vec()),
        _ => Reply::Cut(delimited.to_vec()),
    });
    let proxy = Proxy::start(&upstream);
    for target in ["/sized/cut", "/delimited/closed", "/sized/cut"] {
        let response = proxy.connect().get(target);
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{target}");
    }
    let mut client = proxy.connect();
    client.send("GET /delimited/cut HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_response(false).expect_err("the response must be truncated");
    proxy.process.wait_for_lines(1, |line| line.contains(r#""outcome":"truncated""#));
    // A reset can overtake the head of the response.
    let mut client = proxy.connect();
    client.send("GET /delimited/reset HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!client.read_response(false).is_ok_and(|response| response.status == 200));
    proxy.process.wait_for_lines(3, |line| line.contains(r#""outcome":"complete""#));
}

#[test]
fn j03_verification_is_decided_in_one_place() {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut matches = Vec::new();
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
            } else {
                let code = fs::read_to_string(&path).unwrap().to_lowercase();
                matches.extend(
                    ["danger", "skip_verify", "tls_built_in", "add_root_certificate"]
                        .into_iter()
                        .filter(|word| code.contains(word))
                        .map(|word| {
                            format!("{}: {word}", path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display())
                        }),
                );
            }
        }
    }
    matches.sort();
    // The verifier that adds checks to the default one, and the place that installs it.
    assert_eq!(matches, ["src/tls/pin.rs: danger", "src/tls/trust_store.rs: danger"]);
}
