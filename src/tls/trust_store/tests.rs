use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _};
use rustls::{
    ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

use super::{super::Pin, *};
use crate::tls::TlsFailure;

/// A CA, and a server with a certificate issued by it.
struct TestServer {
    ca_pem: String,
    pin: Pin,
    config: Arc<ServerConfig>,
}

fn server() -> TestServer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let pin = Pin::of(&key.subject_public_key_info());
    let certificate = CertificateParams::new(vec!["up".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TestServer { ca_pem: issuer.pem(), pin, config: Arc::new(config) }
}

/// A trust store that trusts only the CAs in a file.
struct Fixture {
    dir: TempDir,
    writer: TrustStoreWriter,
    trust_store: TrustStore,
}

fn fixture(servers: &[&TestServer], pinned_keys: Vec<Pin>) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    fs::write(&path, pem(servers)).unwrap();
    let config = Config { public_roots: false, ca_file: Some(path), pinned_keys, ..Config::default() };
    let (writer, trust_store) = trust_store(config).unwrap();
    Fixture { dir, writer, trust_store }
}

fn pem(servers: &[&TestServer]) -> String {
    servers.iter().map(|server| server.ca_pem.as_str()).collect()
}

impl Fixture {
    fn write(&self, content: &str) {
        fs::write(self.dir.path().join("ca.pem"), content).unwrap();
    }

    /// Checks twice, because a change is applied after two checks have seen it.
    fn check_file(&mut self) -> Result<Option<usize>, Error> {
        assert!(matches!(self.writer.check_file(), Ok(None)), "the first check does not apply a change");
        self.writer.check_file()
    }

    fn handshake(&self, server: &TestServer) -> Result<HandshakeKind, Option<TlsFailure>> {
        let mut connection = Connection::new(server, self.trust_store.client_config(), "up");
        connection.handshake()?;
        connection.deliver_tickets();
        Ok(connection.client.handshake_kind().unwrap())
    }
}

/// Both ends of an in-memory connection.
struct Connection {
    client: ClientConnection,
    server: ServerConnection,
}

impl Connection {
    fn new(server: &TestServer, config: ClientConfig, name: &'static str) -> Self {
        let client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        Self { client, server: ServerConnection::new(Arc::clone(&server.config)).unwrap() }
    }

    /// Completes the client's handshake. What the server sends after that is not delivered.
    fn handshake(&mut self) -> Result<(), Option<TlsFailure>> {
        while self.client.is_handshaking() {
            let mut bytes = Vec::new();
            self.client.write_tls(&mut bytes).unwrap();
            self.server.read_tls(&mut bytes.as_slice()).unwrap();
            let _ = self.server.process_new_packets();
            self.deliver_to_client().map_err(|error| TlsFailure::classify(&error))?;
        }
        let mut bytes = Vec::new();
        self.client.write_tls(&mut bytes).unwrap();
        self.server.read_tls(&mut bytes.as_slice()).unwrap();
        self.server.process_new_packets().unwrap();
        Ok(())
    }

    fn deliver_to_client(&mut self) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Delivers the session tickets of TLS 1.3.
    fn deliver_tickets(&mut self) {
        self.deliver_to_client().unwrap();
    }
}

#[test]
fn j03_j08_the_configuration_is_strict() {
    let (mut writer, trust_store) = trust_store(Config::default()).unwrap();
    let config = trust_store.client_config();
    assert!(config.alpn_protocols.is_empty() && config.enable_sni);
    assert!(!config.enable_early_data, "early data can be replayed");
    assert!(!config.key_log.will_log("CLIENT_RANDOM"));
    assert!(matches!(writer.check_file(), Ok(None)) && matches!(writer.reload(), Ok(None)), "there is no file");
    assert!(matches!(super::trust_store(Config { public_roots: false, ..Config::default() }), Err(Error::NoRoots)));
}

#[test]
fn ca_file_adds_to_the_public_roots_or_replaces_them() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, &server.ca_pem).unwrap();
    let roots = |public_roots| {
        let config = Config { public_roots, ca_file: Some(ca_file.clone()), ..Config::default() };
        let (_, trust_store) = trust_store(config).unwrap();
        let debug = format!("{:?}", trust_store.client_config());
        let end = debug.find(" roots)").unwrap();
        debug[..end].rsplit('(').next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!((roots(false), roots(true)), (1, webpki_roots::TLS_SERVER_ROOTS.len() + 1));
}

#[test]
fn j10_new_connections_use_a_changed_file() {
    let (old, new) = (server(), server());
    let mut fixture = fixture(&[&old], Vec::new());
    assert_eq!(fixture.handshake(&old), Ok(HandshakeKind::Full));
    assert_eq!(fixture.handshake(&new), Err(Some(TlsFailure::UnknownIssuer)));

    fixture.write(&pem(&[&old, &new]));
    assert!(matches!(fixture.check_file(), Ok(Some(2))));
    assert!(fixture.handshake(&old).is_ok() && fixture.handshake(&new).is_ok());

    fixture.write(&new.ca_pem);
    assert!(matches!(fixture.check_file(), Ok(Some(1))));
    assert_eq!(fixture.handshake(&old), Err(Some(TlsFailure::UnknownIssuer)));
    assert_eq!(fixture.handshake(&new), Ok(HandshakeKind::Full));
}

#[test]
fn j10_an_invalid_file_is_reported_once_and_changes_nothing() {
    let server = server();
    let mut fixture = fixture(&[&server], Vec::new());
    let truncated = server.ca_pem.split_at(server.ca_pem.len() / 2).0;
    for content in ["", "garbage", truncated] {
        fixture.write(content);
        fixture.check_file().unwrap_err();
        assert!(matches!(fixture.check_file(), Ok(None)), "reported once");
        assert!(fixture.handshake(&server).is_ok());
    }
    fs::remove_file(fixture.dir.path().join("ca.pem")).unwrap();
    assert!(matches!(fixture.check_file(), Err(Error::Unreadable { .. })));
    assert!(fixture.writer.reload().is_err());
    assert!(fixture.handshake(&server).is_ok());
    fixture.write(&server.ca_pem);
    assert!(matches!(fixture.check_file(), Ok(Some(1))));
}

#[test]
fn j10_sessions_are_resumed_only_until_the_trust_changes() {
    let server = server();
    let mut fixture = fixture(&[&server], Vec::new());
    assert_eq!(fixture.handshake(&server), Ok(HandshakeKind::Full));
    assert_eq!(fixture.handshake(&server), Ok(HandshakeKind::Resumed));
    assert!(matches!(fixture.writer.reload(), Ok(Some(1))));
    assert_eq!(fixture.handshake(&server), Ok(HandshakeKind::Full));
}

#[test]
fn cleared_sessions_are_not_resumed_even_after_a_late_ticket() {
    let server = server();
    let fixture = fixture(&[&server], Vec::new());
    let mut connection = Connection::new(&server, fixture.trust_store.client_config(), "up");
    connection.handshake().unwrap();
    fixture.writer.clear_sessions();
    connection.deliver_tickets();
    assert_eq!(fixture.handshake(&server), Ok(HandshakeKind::Full));
    assert_eq!(fixture.handshake(&server), Ok(HandshakeKind::Resumed));
}

#[test]
fn j10_a_ticket_of_an_old_connection_is_not_used_after_a_change() {
    let (old, new) = (server(), server());
    let mut fixture = fixture(&[&old], Vec::new());
    let mut connection = Connection::new(&old, fixture.trust_store.client_config(), "up");
    connection.handshake().unwrap();
    fixture.write(&new.ca_pem);
    assert!(matches!(fixture.check_file(), Ok(Some(1))));
    connection.deliver_tickets();
    assert_eq!(connection.client.tls13_tickets_received(), 2);
    assert_eq!(fixture.handshake(&old), Err(Some(TlsFailure::UnknownIssuer)));
}

#[test]
fn a_pinned_key_is_required_in_addition_to_verification() {
    let (server, other) = (server(), server());
    let handshake = |trusted: &TestServer, pins: Vec<Pin>| fixture(&[trusted], pins).handshake(&server);
    assert!(handshake(&server, vec![server.pin]).is_ok());
    assert!(handshake(&server, vec![other.pin, server.pin]).is_ok(), "one match suffices");
    assert_eq!(handshake(&server, vec![other.pin]), Err(Some(TlsFailure::PinMismatch)));
    assert_eq!(
        handshake(&other, vec![server.pin]),
        Err(Some(TlsFailure::UnknownIssuer)),
        "a pinned key does not replace verification"
    );
    let mut elsewhere =
        Connection::new(&server, fixture(&[&server], vec![server.pin]).trust_store.client_config(), "other");
    assert_eq!(elsewhere.handshake(), Err(Some(TlsFailure::NameMismatch)));
}
