//! Names that a test resolves, and listeners on loopback that answer, or do not.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Mutex,
    time::Instant,
    vec,
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
};
use tokio_rustls::TlsAcceptor;
use tower::{service_fn, util::BoxCloneSyncService};

use super::*;
use crate::{error_chain, tls};

/// A time that only a broken test reaches.
const PATIENCE: Duration = Duration::from_secs(60);

type TestResolver = BoxCloneSyncService<Name, vec::IntoIter<SocketAddr>, io::Error>;

/// Gives one answer after another, and the last one for ever.
fn resolver(answers: Vec<Result<Vec<IpAddr>, io::ErrorKind>>) -> TestResolver {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    BoxCloneSyncService::new(service_fn(move |_: Name| {
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap();
        let addresses =
            answer.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter());
        std::future::ready(addresses.map_err(io::Error::from))
    }))
}

fn connector<R: Resolve>(url: String, connect_timeout: Duration, trust: &tls::Config, resolver: R) -> Connector<R> {
    let config = UpstreamConfig {
        url: url.parse().unwrap(),
        egress: None,
        connect_timeout,
        idle_timeout: PATIENCE,
        pool_idle_timeout: PATIENCE,
        connection_age: PATIENCE,
        http2: false,
    };
    Connector::with_resolver(&config, tls::trust_store(trust.clone()).unwrap().1, resolver)
}

/// A connector that does without TLS, to a name whose addresses are `answers`.
fn plain(port: u16, timeout: Duration, answers: Vec<Result<Vec<IpAddr>, io::ErrorKind>>) -> Connector<TestResolver> {
    connector(format!("http://name.test:{port}"), timeout, &tls::Config::default(), resolver(answers))
}

fn peer(stream: Stream) -> IpAddr {
    match stream {
        Stream::Plain(stream) => stream.peer_addr().unwrap().ip(),
        Stream::Tls(_) => panic!("TLS was not asked for"),
    }
}

/// Listeners on one port of each of `addresses`.
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

/// Makes `listener`, whose backlog is short, one that answers nobody any more: a black hole. Lasts as long as what it gives.
async fn black_hole(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        held.push(stream);
    }
    held
}

const A1: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const A2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[tokio::test]
async fn g12_an_address_of_the_other_family_is_tried_beside_one_that_is_dead() {
    let ([dead, _good], port) = listeners([V6, A1], [1, 128]).await;
    let _held = black_hole(&dead).await;
    let started = Instant::now();
    let connector = plain(port, PATIENCE, vec![Ok(vec![V6, A1])]);
    assert_eq!(peer(connector.connect().await.unwrap().0), A1);
    assert!(started.elapsed() >= HAPPY_EYEBALLS && started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
}

#[tokio::test]
async fn g12_a_dead_address_leaves_time_for_the_next_of_its_family() {
    let ([dead, _good], port) = listeners([A1, A2], [1, 128]).await;
    let _held = black_hole(&dead).await;
    let connector = plain(port, Duration::from_secs(4), vec![Ok(vec![A1, A2])]);
    assert_eq!(peer(connector.connect().await.unwrap().0), A2);
}

#[tokio::test]
async fn g11_each_connection_goes_where_the_name_leads_at_that_time() {
    let ([_first, _second], port) = listeners([A1, A2], [128, 128]).await;
    let connector = plain(port, PATIENCE, vec![Ok(vec![A1]), Ok(vec![A2]), Ok(vec![A1])]);
    for expected in [A1, A2, A1] {
        assert_eq!(peer(connector.connect().await.unwrap().0), expected);
    }
}

#[tokio::test]
async fn j11_a_name_that_cannot_be_resolved_is_told_and_heals() {
    let ([_listener], port) = listeners([A1], [128]).await;
    let connector = plain(port, PATIENCE, vec![Err(io::ErrorKind::NotFound), Ok(Vec::new()), Ok(vec![A1])]);
    let error = connector.connect().await.err().unwrap();
    assert!(error_chain::find::<NameError>(&error).is_some(), "{}", error_chain::one_line(&error));
    assert!(connector.connect().await.is_err(), "no address at all");
    assert_eq!(peer(connector.connect().await.unwrap().0), A1);
}

#[tokio::test(start_paused = true)]
async fn j11_a_resolver_that_hangs_is_given_up_in_the_time_to_connect() {
    let hanging = service_fn(|_: Name| std::future::pending::<io::Result<vec::IntoIter<SocketAddr>>>());
    let started = tokio::time::Instant::now();
    let url = "https://name.test".to_owned();
    let connector = connector(url, Duration::from_secs(3), &tls::Config::default(), BoxCloneSyncService::new(hanging));
    assert!(matches!(connector.connect().await, Err(ConnectError::TimedOut)));
    assert_eq!(started.elapsed().as_secs(), 3);
}

/// A server whose certificate, of an authority that `trust` has, names `name`.
fn certified(name: &str) -> (TlsAcceptor, tls::Config) {
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
    let trust = tls::Config { extra_roots: vec![issuer.der().clone()], ..tls::Config::default() };
    (TlsAcceptor::from(Arc::new(config)), trust)
}

#[tokio::test]
async fn j12_a_name_that_leads_to_another_server_on_this_machine_gets_nothing() {
    let ([listener], port) = listeners([A1], [128]).await;
    let (acceptor, trust) = certified("metadata.test");
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
        let connector = connector(format!("https://{name}:{port}"), PATIENCE, &trust, resolver(vec![Ok(vec![A1])]));
        let connected = connector.connect().await;
        assert_eq!(connected.is_ok(), accepted, "{name}");
        if let Err(error) = connected {
            let refused = error_chain::find::<rustls::Error>(&error).unwrap();
            assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "{refused}");
        }
    }
    serving.await.unwrap();
}

#[test]
fn hosts_that_no_certificate_can_name_are_none() {
    for good in ["api.finicity.com", "localhost", "127.0.0.1", "[::1]", "::1"] {
        assert!(server_name(good).is_some(), "{good}");
    }
    for bad in ["", "a..b", "-", "a b", "[::1", "api.finicity.com:443"] {
        assert!(server_name(bad).is_none(), "{bad}");
    }
}
