use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _};
use rustls::{
    ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

use super::{super::Pin, *};
use crate::tls::Fault;

/// An authority, and a server with a certificate of it.
struct Party {
    ca_pem: String,
    pin: Pin,
    server: Arc<ServerConfig>,
}

fn party() -> Party {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let pin = Pin::of(&key.subject_public_key_info());
    let certificate = CertificateParams::new(vec!["up".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Party { ca_pem: issuer.pem(), pin, server: Arc::new(server) }
}

/// A `ca_file` with the authorities of `parties`, and trust in nothing else.
struct Trusting {
    dir: TempDir,
    writer: TrustWriter,
    trust: Trust,
}

fn trusting(parties: &[&Party], pinned_keys: Vec<Pin>) -> Trusting {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    fs::write(&path, pem(parties)).unwrap();
    let config = Config { public_roots: false, ca_file: Some(path), pinned_keys, ..Config::default() };
    let (writer, trust) = trust(config).unwrap();
    Trusting { dir, writer, trust }
}

fn pem(parties: &[&Party]) -> String {
    parties.iter().map(|party| party.ca_pem.as_str()).collect()
}

impl Trusting {
    fn write(&self, content: &str) {
        fs::write(self.dir.path().join("ca.pem"), content).unwrap();
    }

    /// Looks twice, as it takes for a change to count.
    fn look(&mut self) -> Result<Option<usize>, Error> {
        assert!(matches!(self.writer.look(), Ok(None)), "a change is not acted on at first sight");
        self.writer.look()
    }

    fn call(&self, party: &Party) -> Result<HandshakeKind, Option<Fault>> {
        let mut connection = Connection::to(party, self.trust.client_config(), "up");
        connection.handshake()?;
        connection.deliver_rest();
        Ok(connection.client.handshake_kind().unwrap())
    }
}

/// Both ends of a connection in memory.
struct Connection {
    client: ClientConnection,
    server: ServerConnection,
}

impl Connection {
    fn to(party: &Party, config: ClientConfig, name: &'static str) -> Self {
        let client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        Self { client, server: ServerConnection::new(Arc::clone(&party.server)).unwrap() }
    }

    /// Until the client is content; what the server has to say after that stays with it.
    fn handshake(&mut self) -> Result<(), Option<Fault>> {
        while self.client.is_handshaking() {
            let mut bytes = Vec::new();
            self.client.write_tls(&mut bytes).unwrap();
            self.server.read_tls(&mut bytes.as_slice()).unwrap();
            let _ = self.server.process_new_packets();
            self.deliver_rest_to_client().map_err(|error| Fault::of(&error))?;
        }
        let mut bytes = Vec::new();
        self.client.write_tls(&mut bytes).unwrap();
        self.server.read_tls(&mut bytes.as_slice()).unwrap();
        self.server.process_new_packets().unwrap();
        Ok(())
    }

    fn deliver_rest_to_client(&mut self) -> Result<(), rustls::Error> {
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

    /// The tickets of TLS 1.3.
    fn deliver_rest(&mut self) {
        self.deliver_rest_to_client().unwrap();
    }
}

#[test]
fn j03_j08_the_configuration_is_strict() {
    let (mut writer, trust) = trust(Config::default()).unwrap();
    let config = trust.client_config();
    assert!(config.alpn_protocols.is_empty() && config.enable_sni);
    assert!(!config.enable_early_data, "early data can be replayed");
    assert!(!config.key_log.will_log("CLIENT_RANDOM"));
    assert!(matches!(writer.look(), Ok(None)) && matches!(writer.reload(), Ok(None)), "there is no file to look at");
    assert!(matches!(super::trust(Config { public_roots: false, ..Config::default() }), Err(Error::NoRoots)));
}

#[test]
fn the_file_adds_to_the_public_roots_or_stands_in_for_them() {
    let party = party();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, &party.ca_pem).unwrap();
    let roots = |public_roots| {
        let config = Config { public_roots, ca_file: Some(ca_file.clone()), ..Config::default() };
        let (_, trust) = trust(config).unwrap();
        let debug = format!("{:?}", trust.client_config());
        let end = debug.find(" roots)").unwrap();
        debug[..end].rsplit('(').next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!((roots(false), roots(true)), (1, webpki_roots::TLS_SERVER_ROOTS.len() + 1));
}

#[test]
fn j10_a_changed_file_changes_whom_new_connections_trust() {
    let (old, new) = (party(), party());
    let mut trusting = trusting(&[&old], Vec::new());
    assert_eq!(trusting.call(&old), Ok(HandshakeKind::Full));
    assert_eq!(trusting.call(&new), Err(Some(Fault::Authority)));

    trusting.write(&pem(&[&old, &new]));
    assert!(matches!(trusting.look(), Ok(Some(2))));
    assert!(trusting.call(&old).is_ok() && trusting.call(&new).is_ok());

    trusting.write(&new.ca_pem);
    assert!(matches!(trusting.look(), Ok(Some(1))));
    assert_eq!(trusting.call(&old), Err(Some(Fault::Authority)));
    assert_eq!(trusting.call(&new), Ok(HandshakeKind::Full));
}

#[test]
fn j10_a_file_that_cannot_be_used_is_told_once_and_changes_nothing() {
    let party = party();
    let mut trusting = trusting(&[&party], Vec::new());
    let half = party.ca_pem.split_at(party.ca_pem.len() / 2).0;
    for content in ["", "garbage", half] {
        trusting.write(content);
        trusting.look().unwrap_err();
        assert!(matches!(trusting.look(), Ok(None)), "told once");
        assert!(trusting.call(&party).is_ok());
    }
    fs::remove_file(trusting.dir.path().join("ca.pem")).unwrap();
    assert!(matches!(trusting.look(), Err(Error::Unreadable { .. })));
    assert!(trusting.writer.reload().is_err());
    assert!(trusting.call(&party).is_ok());
    trusting.write(&party.ca_pem);
    assert!(matches!(trusting.look(), Ok(Some(1))));
}

#[test]
fn j10_sessions_are_resumed_until_the_trust_changes_and_not_after() {
    let party = party();
    let mut trusting = trusting(&[&party], Vec::new());
    assert_eq!(trusting.call(&party), Ok(HandshakeKind::Full));
    assert_eq!(trusting.call(&party), Ok(HandshakeKind::Resumed));
    assert!(matches!(trusting.writer.reload(), Ok(Some(1))));
    assert_eq!(trusting.call(&party), Ok(HandshakeKind::Full));
}

#[test]
fn sessions_that_are_forgotten_are_not_resumed_and_a_late_ticket_brings_none_back() {
    let party = party();
    let trusting = trusting(&[&party], Vec::new());
    let mut connection = Connection::to(&party, trusting.trust.client_config(), "up");
    connection.handshake().unwrap();
    trusting.writer.forget_sessions();
    connection.deliver_rest();
    assert_eq!(trusting.call(&party), Ok(HandshakeKind::Full));
    assert_eq!(trusting.call(&party), Ok(HandshakeKind::Resumed));
}

#[test]
fn j10_a_ticket_that_an_old_connection_brings_after_the_change_resumes_nothing() {
    let (old, new) = (party(), party());
    let mut trusting = trusting(&[&old], Vec::new());
    let mut connection = Connection::to(&old, trusting.trust.client_config(), "up");
    connection.handshake().unwrap();
    trusting.write(&new.ca_pem);
    assert!(matches!(trusting.look(), Ok(Some(1))));
    connection.deliver_rest();
    assert_eq!(connection.client.tls13_tickets_received(), 2);
    assert_eq!(trusting.call(&old), Err(Some(Fault::Authority)));
}

#[test]
fn a_pinned_key_is_asked_for_besides_everything_else() {
    let (party, other) = (party(), party());
    let call = |authority: &Party, pins: Vec<Pin>| trusting(&[authority], pins).call(&party);
    assert!(call(&party, vec![party.pin]).is_ok());
    assert!(call(&party, vec![other.pin, party.pin]).is_ok(), "one of them is enough");
    assert_eq!(call(&party, vec![other.pin]), Err(Some(Fault::Pin)));
    assert_eq!(call(&other, vec![party.pin]), Err(Some(Fault::Authority)), "the right key alone is not");
    let mut elsewhere = Connection::to(&party, trusting(&[&party], vec![party.pin]).trust.client_config(), "other");
    assert_eq!(elsewhere.handshake(), Err(Some(Fault::Name)));
}
