//! A client of this module and a server of `tokio-rustls`, connected by an in-memory pipe. Time is paused: if both sides are blocked, the
//! timeout expires immediately, and the test fails instead of hanging.

mod close;
mod data;
mod handshake;
mod hostile;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Wake,
    time::Duration,
};

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, HandshakeKind, InvalidMessage, PeerMisbehaved,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        cipher::{MessageEncrypter, OutboundPlainMessage},
        ring,
    },
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;
use crate::error_chain;

type Client = Stream<DuplexStream>;
type Server = TlsStream<DuplexStream>;

/// The server name, and the default name in its certificate.
const NAME: &str = "up.test";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Capacity of a pipe that never blocks a test.
const WIDE_PIPE: usize = 1024 * 1024;

/// Sizes of the writes of one side.
const WRITE_SIZES: [usize; 8] = [1, 0, 16 * 1024, 3, 64 * 1024, 300 * 1024, 0, 16 * 1024 + 1];

/// The configuration of both sides.
struct TestPair {
    client: ClientConfig,
    server: ServerConfig,
}

fn test_pair(version: &'static SupportedProtocolVersion) -> TestPair {
    test_pair_with_names(version, vec![NAME.to_owned()])
}

/// A server with a certificate for `names`, and a client that trusts its CA.
fn test_pair_with_names(version: &'static SupportedProtocolVersion, names: Vec<String>) -> TestPair {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TestPair { client, server }
}

impl TestPair {
    async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> io::Result<Stream<S>> {
        Stream::connect(Arc::new(self.client.clone()), NAME.try_into().unwrap(), io).await
    }

    async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(Arc::new(self.server.clone())).accept(io).await
    }

    /// The result of the handshake on both sides.
    async fn handshake(&self, near: DuplexStream, far: DuplexStream) -> (io::Result<Client>, io::Result<Server>) {
        with_timeout(async { tokio::join!(self.connect(near), self.accept(far)) }).await
    }

    /// Both ends of an established connection over a wide pipe.
    async fn connect_both(&self) -> (Client, Server) {
        let (near, far) = duplex(WIDE_PIPE);
        let (client, server) = self.handshake(near, far).await;
        (client.unwrap(), server.unwrap())
    }
}

async fn with_timeout<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("both sides are blocked")
}

/// Reproducible random bytes.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// The sizes of the writes and reads of one side.
#[derive(Clone, Debug)]
struct IoPattern {
    write_sizes: Vec<usize>,
    /// Whether each write has several slices, some of them empty.
    vectored: bool,
    read_size: usize,
}

/// Writes with `pattern` in one task, and in another one reads what the other side writes with the same pattern. Returns both halves of the
/// stream, which must live until the other side has finished.
async fn write_and_read<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: S, pattern: IoPattern) -> impl Sized {
    let expected = content(pattern.write_sizes.iter().sum());
    let (reader, writer) = split(io);
    let writing = tokio::spawn(write(writer, pattern.clone()));
    let (received, reader) = tokio::spawn(read(reader, pattern.read_size)).await.unwrap();
    assert!(received == expected, "{pattern:?}: {} of {} bytes", received.len(), expected.len());
    (reader, writing.await.unwrap())
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, pattern: IoPattern) -> WriteHalf<S> {
    let content = content(pattern.write_sizes.iter().sum());
    let mut rest = content.as_slice();
    for size in pattern.write_sizes {
        let (mut part, later) = rest.split_at(size);
        rest = later;
        loop {
            let (first, second) = part.split_at(part.len() / 3);
            let written = if pattern.vectored {
                writer.write_vectored(&[b"", first, b"", second].map(IoSlice::new)).await.unwrap()
            } else {
                writer.write(part).await.unwrap()
            };
            part = &part[written..];
            if part.is_empty() {
                break;
            }
            assert_ne!(written, 0);
        }
    }
    writer.shutdown().await.unwrap();
    writer
}

async fn read<S: AsyncRead>(mut reader: ReadHalf<S>, size: usize) -> (Vec<u8>, ReadHalf<S>) {
    let mut received = Vec::new();
    let mut buffer = vec![0; size];
    loop {
        match reader.read(&mut buffer).await.unwrap() {
            0 => return (received, reader),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn check_both_directions(test_pair: &TestPair, width: usize, pattern: IoPattern) {
    let (near, far) = duplex(width);
    let client = async { write_and_read(test_pair.connect(near).await.unwrap(), pattern.clone()).await };
    let server = async { write_and_read(test_pair.accept(far).await.unwrap(), pattern.clone()).await };
    with_timeout(async { tokio::join!(client, server) }).await;
}

/// `plaintext`, encrypted by `tls`.
fn ciphertext(tls: &mut ServerConnection, plaintext: &[u8]) -> Vec<u8> {
    io::Write::write_all(&mut tls.writer(), plaintext).unwrap();
    let mut record = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut record).unwrap();
    }
    record
}
