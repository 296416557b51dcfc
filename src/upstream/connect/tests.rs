//! Connects with scripted resolvers, to loopback listeners that do or do not accept.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{dns::tests::ScriptedLookup, error_chain, tls};

/// A time that only a broken test reaches.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A resolver that returns `results` in order and repeats the last one.
fn resolver(results: Vec<Result<Vec<IpAddr>, ResolveError>>) -> Resolver<ScriptedLookup> {
    Resolver::with_lookup(ScriptedLookup::new(results))
}

fn connector<L: Lookup>(
    url: String,
    connect_timeout: Duration,
    tls_config: &tls::Config,
    resolver: Resolver<L>,
) -> Connector<L> {
    let config = UpstreamConfig {
        url: url.parse().unwrap(),
        egress: None,
        connect_timeout,
        idle_timeout: TEST_TIMEOUT,
        pool_idle_timeout: TEST_TIMEOUT,
        connection_age: TEST_TIMEOUT,
        http2: false,
    };
    Connector::new(&config, resolver, tls::trust_store(tls_config.clone()).unwrap().1)
}

/// A connector without TLS, to a name that resolves to `results`.
fn plaintext_connector(
    port: u16,
    timeout: Duration,
    results: Vec<Result<Vec<IpAddr>, ResolveError>>,
) -> Connector<ScriptedLookup> {
    connector(format!("http://name.test:{port}"), timeout, &tls::Config::default(), resolver(results))
}

fn peer_ip(stream: MaybeTlsStream) -> IpAddr {
    match stream {
        MaybeTlsStream::Plain(stream) => stream.peer_addr().unwrap().ip(),
        MaybeTlsStream::Tls(_) => panic!("unexpected TLS"),
    }
}

/// Listeners on all `addresses`, on the same port.
async fn listeners<const N: usize>(addresses: [IpAddr; N], backlog: [u32; N]) -> ([TcpListener; N], u16) {
    'next_port: loop {
        let mut listeners = Vec::new();
        let mut port = 0;
        for (address, backlog) in addresses.iter().zip(backlog) {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
            if socket.bind((*address, port).into()).is_err() {
                continue 'next_port;
            }
            let listener = socket.listen(backlog).unwrap();
            port = listener.local_addr().unwrap().port();
            listeners.push(listener);
        }
        return (listeners.try_into().unwrap(), port);
    }
}

/// Fills the short backlog of `listener`. While the returned connections are open, it accepts no more.
async fn fill_backlog(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap();
    let mut connections = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        connections.push(stream);
    }
    connections
}

const A1: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const A2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[tokio::test]
async fn g12_the_other_address_family_is_tried_in_parallel() {
    let ([dead, _alive], port) = listeners([V6, A1], [1, 128]).await;
    let _connections = fill_backlog(&dead).await;
    let started = Instant::now();
    let connector = plaintext_connector(port, TEST_TIMEOUT, vec![Ok(vec![V6, A1])]);
    assert_eq!(peer_ip(connector.connect().await.unwrap().0), A1);
    assert!(started.elapsed() >= HAPPY_EYEBALLS && started.elapsed() < TEST_TIMEOUT / 4, "{:?}", started.elapsed());
}

#[tokio::test]
async fn g12_a_dead_address_leaves_time_for_the_next_of_its_family() {
    let ([dead, _alive], port) = listeners([A1, A2], [1, 128]).await;
    let _connections = fill_backlog(&dead).await;
    let connector = plaintext_connector(port, Duration::from_secs(4), vec![Ok(vec![A1, A2])]);
    assert_eq!(peer_ip(connector.connect().await.unwrap().0), A2);
}

#[tokio::test]
async fn g11_each_connection_uses_the_current_address_of_the_name() {
    let ([_first, _second], port) = listeners([A1, A2], [128, 128]).await;
    let connector = plaintext_connector(port, TEST_TIMEOUT, vec![Ok(vec![A1]), Ok(vec![A2]), Ok(vec![A1])]);
    for expected in [A1, A2, A1] {
        assert_eq!(peer_ip(connector.connect().await.unwrap().0), expected);
    }
}

#[tokio::test]
async fn j11_a_resolve_error_is_reported_and_recovers() {
    let ([_listener], port) = listeners([A1], [128]).await;
    let connector =
        plaintext_connector(port, TEST_TIMEOUT, vec![Err(ResolveError::NoName), Ok(Vec::new()), Ok(vec![A1])]);
    let error = connector.connect().await.err().unwrap();
    let expected = "cannot resolve the host name: NXDOMAIN: the name does not exist, or has no address";
    assert_eq!(error_chain::one_line(&error), expected);
    assert!(connector.connect().await.is_err(), "no address at all");
    assert_eq!(peer_ip(connector.connect().await.unwrap().0), A1);
}

#[tokio::test(start_paused = true)]
async fn j11_a_hanging_resolver_is_limited_by_the_connect_timeout() {
    let started = tokio::time::Instant::now();
    let url = "https://name.test".to_owned();
    let connector = connector(url, Duration::from_secs(3), &tls::Config::default(), resolver(Vec::new()));
    assert!(matches!(connector.connect().await, Err(ConnectError::Resolve(ResolveError::TimedOut))));
    assert_eq!(started.elapsed().as_secs(), 3);
}

/// A server whose certificate is for `name`, and a configuration that trusts its CA.
fn tls_server(name: &str) -> (TlsAcceptor, tls::Config) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let tls_config = tls::Config { extra_roots: vec![issuer.der().clone()], ..tls::Config::default() };
    (TlsAcceptor::from(Arc::new(config)), tls_config)
}

#[tokio::test]
async fn j12_a_server_with_another_certificate_receives_nothing() {
    let ([listener], port) = listeners([A1], [128]).await;
    let (acceptor, tls_config) = tls_server("metadata.test");
    let serving = tokio::spawn(async move {
        for _ in 0..2 {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut received = Vec::new();
            let _ = tls.read_to_end(&mut received).await;
            assert_eq!(received, b"");
        }
    });
    for (name, accepted) in [("api.test", false), ("metadata.test", true)] {
        let connector =
            connector(format!("https://{name}:{port}"), TEST_TIMEOUT, &tls_config, resolver(vec![Ok(vec![A1])]));
        let connected = connector.connect().await;
        assert_eq!(connected.is_ok(), accepted, "{name}");
        if let Err(error) = connected {
            let tls_error = error_chain::find::<rustls::Error>(&error).unwrap();
            assert!(matches!(tls_error, rustls::Error::InvalidCertificate(_)), "{tls_error}");
        }
    }
    serving.await.unwrap();
}

#[test]
fn only_a_valid_host_has_a_server_name() {
    for valid in ["api.finicity.com", "localhost", "127.0.0.1", "[::1]", "::1"] {
        assert!(server_name(valid).is_some(), "{valid}");
    }
    for invalid in ["", "a..b", "-", "a b", "[::1", "api.finicity.com:443"] {
        assert!(server_name(invalid).is_none(), "{invalid}");
    }
}
