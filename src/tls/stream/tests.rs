//! A client of this module and a server of `tokio-rustls`, at the two ends of a pipe in memory. The time is paused: where nothing goes
//! on any more, a limit has passed at once, and the test fails instead of hanging.

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
use crate::cause;

type Client = Stream<DuplexStream>;
type Server = TlsStream<DuplexStream>;

/// The name of the server, and of its certificate where a test says nothing else.
const NAME: &str = "up.test";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A pipe that holds all that a test puts in.
const WIDE: usize = 1024 * 1024;

/// The lengths of the writes of one side.
const PIECES: [usize; 8] = [1, 0, 16 * 1024, 3, 64 * 1024, 300 * 1024, 0, 16 * 1024 + 1];

/// How the two sides are set up.
struct Party {
    client: ClientConfig,
    server: ServerConfig,
}

fn party(version: &'static SupportedProtocolVersion) -> Party {
    party_named(version, vec![NAME.to_owned()])
}

/// A server whose certificate has `names`, and a client that trusts its authority.
fn party_named(version: &'static SupportedProtocolVersion, names: Vec<String>) -> Party {
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
    Party { client, server }
}

impl Party {
    async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> io::Result<Stream<S>> {
        Stream::connect(Arc::new(self.client.clone()), NAME.try_into().unwrap(), io).await
    }

    async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(Arc::new(self.server.clone())).accept(io).await
    }

    /// What becomes of the handshake at either end.
    async fn handshake(&self, near: DuplexStream, far: DuplexStream) -> (io::Result<Client>, io::Result<Server>) {
        within(async { tokio::join!(self.connect(near), self.accept(far)) }).await
    }

    /// Both ends of a connection over a wide pipe.
    async fn pair(&self) -> (Client, Server) {
        let (near, far) = duplex(WIDE);
        let (client, server) = self.handshake(near, far).await;
        (client.unwrap(), server.unwrap())
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("nothing goes on any more")
}

/// Bytes without a pattern, always the same.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// How a side writes and reads.
#[derive(Clone, Debug)]
struct Habits {
    pieces: Vec<usize>,
    /// Each piece in several slices, some of them empty.
    vectored: bool,
    read: usize,
}

/// Writes with `habits` in one task, and reads in another, which must bring what the other side has written with the same habits. Gives
/// what has to be there until that side is done too.
async fn talk<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: S, habits: Habits) -> impl Sized {
    let expected = content(habits.pieces.iter().sum());
    let (reader, writer) = split(io);
    let writing = tokio::spawn(write(writer, habits.clone()));
    let (received, reader) = tokio::spawn(read(reader, habits.read)).await.unwrap();
    assert!(received == expected, "{habits:?}: {} of {} bytes", received.len(), expected.len());
    (reader, writing.await.unwrap())
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, habits: Habits) -> WriteHalf<S> {
    let content = content(habits.pieces.iter().sum());
    let mut rest = content.as_slice();
    for piece in habits.pieces {
        let (mut now, later) = rest.split_at(piece);
        rest = later;
        loop {
            let (first, second) = now.split_at(now.len() / 3);
            let written = if habits.vectored {
                writer.write_vectored(&[b"", first, b"", second].map(IoSlice::new)).await.unwrap()
            } else {
                writer.write(now).await.unwrap()
            };
            now = &now[written..];
            if now.is_empty() {
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

async fn check_both_ways(party: &Party, width: usize, habits: Habits) {
    let (near, far) = duplex(width);
    let client = async { talk(party.connect(near).await.unwrap(), habits.clone()).await };
    let server = async { talk(party.accept(far).await.unwrap(), habits.clone()).await };
    within(async { tokio::join!(client, server) }).await;
}

#[tokio::test(start_paused = true)]
async fn data_goes_both_ways_whole_through_pipes_of_any_width() {
    for version in VERSIONS {
        let party = party(version);
        for (width, vectored) in [(1, true), (7, false), (37, true), (1000, true), (1 << 18, false), (1 << 18, true)] {
            // The server makes a record of each few bytes for which its own buffer has room, of which there are a great many then.
            let pieces = if width < 1000 { PIECES[..4].to_vec() } else { PIECES.to_vec() };
            check_both_ways(&party, width, Habits { pieces, vectored, read: 16 * 1024 }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_room_of_any_size_loses_nothing() {
    for version in VERSIONS {
        for size in [1, 100, 16 * 1024, 64 * 1024, 300 * 1024] {
            let habits = Habits { pieces: PIECES.to_vec(), vectored: false, read: size };
            check_both_ways(&party(version), WIDE, habits).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn data_goes_both_ways_whole_whatever_the_sizes(
        newer in any::<bool>(),
        width in prop_oneof![20..1000_usize, 1000..100_000_usize],
        pieces in proptest::collection::vec(prop_oneof![0..100_usize, 0..40_000_usize], 0..8),
        vectored in any::<bool>(),
        read in prop_oneof![1..100_usize, 100..100_000_usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let party = party(VERSIONS[usize::from(newer)]);
        runtime.block_on(check_both_ways(&party, width, Habits { pieces, vectored, read }));
    }
}

#[tokio::test(start_paused = true)]
async fn one_read_brings_several_records() {
    for version in VERSIONS {
        let (mut client, mut server) = party(version).pair().await;
        let sent = content(50_000);
        server.write_all(&sent).await.unwrap();
        server.flush().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let count = client.read(&mut buffer).await.unwrap();
        assert!(buffer[..count] == sent, "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_slices_are_written_with_one_call_or_several() {
    for version in VERSIONS {
        for (count, length) in [(64, 1024), (1000, 65), (3, 40_000), (200, 0), (16, 1024)] {
            let (mut client, mut server) = party(version).pair().await;
            let sent = content(count * length);
            let mut slices = vec![IoSlice::new(b""); 100];
            slices.extend(sent.chunks(length.max(1)).map(IoSlice::new));
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                let written = client.write_vectored(rest).await.unwrap();
                assert!(written > 0 || sent.is_empty(), "{count} of {length}");
                IoSlice::advance_slices(&mut rest, written);
            }
            client.shutdown().await.unwrap();
            let mut received = Vec::new();
            within(server.read_to_end(&mut received)).await.unwrap();
            assert!(received == sent, "{count} of {length}");
        }
    }
}

/// Whether a task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_take_what_wakes_a_writer_in_another_task() {
    let (near, far) = duplex(10_000);
    let (client, server) = party(&TLS13).handshake(near, far).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    client.write_all(&content(30_000)).await.unwrap();
    let (reader, writer) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let flushed = Pin::new(&mut client).poll_flush(&mut Context::from_waker(&Arc::clone(&writer).into()));
    assert!(flushed.is_pending());
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    let mut room = [0; 9];
    let mut room = ReadBuf::new(&mut room);
    for pending in [false, true] {
        let reader = Arc::clone(&reader).into();
        let read = Pin::new(&mut client).poll_read(&mut Context::from_waker(&reader), &mut room);
        assert_eq!(read.is_pending(), pending);
    }
    assert_eq!(room.filled(), b"x");
    // All that the pipe holds, but not all of the record.
    assert!(timeout(Duration::ZERO, server.read(&mut [0; 9])).await.is_err());
    assert!(writer.0.load(Relaxed), "it can go on");
    assert!(!reader.0.load(Relaxed), "nothing has come for it");
}

#[tokio::test(start_paused = true)]
async fn only_a_close_that_is_said_is_an_end() {
    for version in VERSIONS {
        let (mut client, mut server) = party(version).pair().await;
        server.write_all(b"all").await.unwrap();
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        assert_eq!(within(client.read_to_end(&mut received)).await.unwrap(), 3);
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "it stays an end");
        client.write_all(b"the other way is open").await.unwrap();
        client.shutdown().await.unwrap();
        received.clear();
        within(server.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"the other way is open");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_ends_without_a_word_is_an_error_after_the_plaintext_that_came() {
    for version in VERSIONS {
        let (mut client, server) = party(version).pair().await;
        let (mut io, mut tls) = server.into_inner();
        let mut record = ciphertext(&mut tls, b"whole");
        let half = ciphertext(&mut tls, b"half of it");
        record.extend_from_slice(&half[..half.len() / 2]);
        io.write_all(&record).await.unwrap();
        drop(io);
        let mut received = [0; 5];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"whole");
        for _ in 0..2 {
            let error = client.read(&mut received).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
    for version in VERSIONS {
        let (mut client, server) = party(version).pair().await;
        drop(server);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "between two records");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_ends_in_the_handshake_is_an_error() {
    let (near, far) = duplex(WIDE);
    drop(far);
    assert!(party(&TLS13).connect(near).await.is_err());
    let (near, mut far) = duplex(WIDE);
    far.shutdown().await.unwrap();
    assert_eq!(party(&TLS13).connect(near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_told_to_the_server_and_nothing_is_written_after_it() {
    for version in VERSIONS {
        let (mut client, mut server) = party(version).pair().await;
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        assert_eq!(within(server.read_to_end(&mut received)).await.unwrap(), 3, "a clean end");
        assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        client.flush().await.unwrap();
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        received.clear();
        within(client.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"answer");
        assert!(client.write(b"more").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_until_everything_is_sent() {
    for version in VERSIONS {
        let mut party = party(version);
        // The server waits until they are taken, and this client does not read.
        party.server.send_tls13_tickets = 0;
        let (near, far) = duplex(10);
        let client = async {
            let mut client = party.connect(near).await.unwrap();
            assert_eq!(client.write(&content(30_000)).await.unwrap(), 30_000);
            client.shutdown().await.unwrap();
            assert!(client.outgoing.is_empty());
        };
        let server = async {
            let mut received = Vec::new();
            party.accept(far).await.unwrap().read_to_end(&mut received).await.unwrap();
            assert!(received == content(30_000));
        };
        within(async { tokio::join!(client, server) }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_after_a_shutdown_that_was_not_waited_for() {
    for version in VERSIONS {
        let (near, far) = duplex(10_000);
        let (client, server) = party(version).handshake(near, far).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        client.write_all(&content(12_000)).await.unwrap();
        assert!(timeout(Duration::ZERO, client.shutdown()).await.is_err(), "there is no room for all of it");
        assert!(timeout(Duration::ZERO, server.read(&mut [0; 9])).await.is_err(), "room is made");
        assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        within(server.read_to_end(&mut received)).await.unwrap();
        assert!(received == content(12_000));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_said_is_read_though_it_takes_nothing_more() {
    for version in VERSIONS {
        let (near, far) = duplex(100_000);
        let (client, server) = party(version).handshake(near, far).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        for _ in 0..2 {
            client.write_all(&content(64 * 1024)).await.unwrap();
        }
        assert!(!client.outgoing.is_empty(), "some of it waits");
        server.write_all(b"too large").await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"too large");
        assert_eq!(client.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_to_be_trusted_is_refused_and_the_server_told() {
    for version in VERSIONS {
        let (ours, theirs) = (party(version), party(version));
        let unknown = Party { client: ours.client, server: theirs.server };
        for party in [unknown, party_named(version, vec!["other.test".to_owned()])] {
            for width in [7, WIDE] {
                let (near, far) = duplex(width);
                let (client, server) = party.handshake(near, far).await;
                let (client, server) = (client.unwrap_err(), server.unwrap_err());
                let refused = cause::find::<rustls::Error>(&client).unwrap();
                assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "{refused}");
                if width == WIDE {
                    // Nobody waits for a narrow pipe to take the alert.
                    let told = cause::find::<rustls::Error>(&server).unwrap();
                    assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_version_in_common_is_an_error() {
    let party = Party { client: party(&TLS13).client, server: party(&TLS12).server };
    let (near, far) = duplex(WIDE);
    let (client, _) = party.handshake(near, far).await;
    let alert = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_eq!(cause::find::<rustls::Error>(&client.unwrap_err()), Some(&alert));
}

#[tokio::test(start_paused = true)]
async fn garbage_instead_of_a_handshake_is_an_error() {
    let cases: [(&[u8], InvalidMessage); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", InvalidMessage::InvalidContentType),
        (&[22, 3, 3, 0xff, 0xff, 2], InvalidMessage::MessageTooLarge),
        (&[22, 3, 3, 0, 0], InvalidMessage::InvalidEmptyPayload),
    ];
    for (answer, expected) in cases {
        let (near, mut far) = duplex(WIDE);
        far.write_all(answer).await.unwrap();
        let error = within(party(&TLS13).connect(near)).await.unwrap_err();
        let error = cause::find::<rustls::Error>(&error).unwrap();
        assert_eq!(*error, rustls::Error::InvalidMessage(expected));
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        assert_eq!(said[said.len() - 7..], [21, 3, 3, 0, 2, 2, 50], "a decode error, after the client's hello");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_is_given_up() {
    let (near, mut far) = duplex(WIDE);
    // A server's hello of 65535 bytes, in records of one.
    let hello = [2, 0, 0xff, 0xff].into_iter().chain([0; 30_000]);
    let records: Vec<u8> = hello.flat_map(|byte| [22, 3, 3, 0, 1, byte]).collect();
    far.write_all(&records).await.unwrap();
    let error = within(party(&TLS13).connect(near)).await.unwrap_err();
    assert_eq!(cause::line(&error), "a message of TLS does not end");
}

/// What `tls` makes of `plaintext`.
fn ciphertext(tls: &mut ServerConnection, plaintext: &[u8]) -> Vec<u8> {
    io::Write::write_all(&mut tls.writer(), plaintext).unwrap();
    let mut record = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut record).unwrap();
    }
    record
}

/// What `tls` says to all that the client sent.
async fn hear(tls: &mut ServerConnection, mut io: DuplexStream) -> Result<(), rustls::Error> {
    let mut sent = Vec::new();
    io.read_to_end(&mut sent).await.unwrap();
    let mut sent = sent.as_slice();
    while !sent.is_empty() {
        tls.read_tls(&mut sent).unwrap();
        tls.process_new_packets()?;
    }
    Ok(())
}

/// Sends a record with some `damage`, and checks that this is the end: nothing of it is read and nothing after it, nothing is written,
/// and the server is told.
async fn check_damage(
    (mut client, server): (Client, Server),
    damage: impl FnOnce(&mut Vec<u8>),
    expected: rustls::Error,
    told: AlertDescription,
) {
    let (mut io, mut tls) = server.into_inner();
    let mut damaged = ciphertext(&mut tls, b"damaged");
    damage(&mut damaged);
    let good = ciphertext(&mut tls, b"in order");
    io.write_all(&damaged).await.unwrap();
    io.write_all(&good).await.unwrap();
    for _ in 0..3 {
        let error = within(client.read(&mut [0; 100])).await.unwrap_err();
        assert_eq!(cause::find::<rustls::Error>(&error), Some(&expected));
        let error = within(client.write(b"more")).await.unwrap_err();
        assert_eq!(cause::find::<rustls::Error>(&error), Some(&expected));
    }
    drop(client);
    assert_eq!(hear(&mut tls, io).await, Err(rustls::Error::AlertReceived(told)));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_changed_on_the_way_ends_the_connection_and_the_server_is_told() {
    for version in VERSIONS {
        for at in [5, 12, 20] {
            let damage = |record: &mut Vec<u8>| record[at] ^= 0x10;
            let expected = rustls::Error::DecryptError;
            check_damage(party(version).pair().await, damage, expected, AlertDescription::BadRecordMac).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_long_or_none_ends_the_connection_and_the_server_is_told() {
    for version in VERSIONS {
        let too_long = [23, 3, 3, 0x48, 0x01];
        for (header, expected) in
            [(too_long, InvalidMessage::MessageTooLarge), (*b"HTTP/", InvalidMessage::InvalidContentType)]
        {
            let damage = |record: &mut Vec<u8>| record[..5].copy_from_slice(&header);
            let expected = rustls::Error::InvalidMessage(expected);
            check_damage(party(version).pair().await, damage, expected, AlertDescription::DecodeError).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn plaintext_before_a_changed_record_is_read_whatever_room_there_is() {
    for version in VERSIONS {
        for size in [1, 3, 100] {
            let (mut client, server) = party(version).pair().await;
            let (mut io, mut tls) = server.into_inner();
            let mut records = ciphertext(&mut tls, b"in order");
            records.extend(ciphertext(&mut tls, b"damaged"));
            *records.last_mut().unwrap() ^= 1;
            io.write_all(&records).await.unwrap();
            let mut received = Vec::new();
            let mut buffer = vec![0; size];
            let error = loop {
                match within(client.read(&mut buffer)).await {
                    Ok(0) => panic!("no end was told of"),
                    Ok(count) => received.extend_from_slice(&buffer[..count]),
                    Err(error) => break error,
                }
            };
            assert_eq!(received, b"in order");
            assert_eq!(cause::find::<rustls::Error>(&error), Some(&rustls::Error::DecryptError));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nothing_that_comes_in_the_place_of_records_is_taken_for_plaintext_or_an_end(
        newer in any::<bool>(),
        records in proptest::collection::vec((20..24_u8, proptest::collection::vec(any::<u8>(), 1..60)), 1..4),
        length in 3..70_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = party(VERSIONS[usize::from(newer)]).pair().await;
            let (mut io, _) = server.into_inner();
            let mut bytes: Vec<u8> = records
                .into_iter()
                .flat_map(|(typ, body)| [&[typ, 3, 3, 0, body.len() as u8], body.as_slice()].concat())
                .collect();
            bytes.truncate(length);
            io.write_all(&bytes).await.unwrap();
            drop(io);
            for _ in 0..3 {
                within(client.read(&mut [0; 100])).await.unwrap_err();
            }
            // Nobody is there who would take a close.
            within(client.shutdown()).await.unwrap_err();
        });
    }
}

/// A server that has the keys of a connection, and keeps to no rule.
struct Rogue {
    io: DuplexStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Rogue {
    async fn pair(version: &'static SupportedProtocolVersion) -> (Client, Self) {
        let mut party = party(version);
        party.server.enable_secret_extraction = true;
        let (client, server) = party.pair().await;
        let (io, tls) = server.into_inner();
        let suite = tls.negotiated_cipher_suite().unwrap();
        let (sequence, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("a cipher that this test does not know");
        };
        let encrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let (fixed, explicit) = iv.as_ref().split_at(suite.aead_alg.key_block_shape().fixed_iv_len);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
        };
        (client, Self { io, encrypter, sequence })
    }

    async fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: payload.into() };
        let record = self.encrypter.encrypt(message, self.sequence).unwrap().encode();
        self.sequence += 1;
        self.io.write_all(&record).await.unwrap();
    }
}

/// A key update of TLS 1.3 that asks for none in return.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_rules_of_messages_ends_the_connection_and_no_more() {
    let unexpected = [&[14, 0, 0, 0][..], &KEY_UPDATE].concat();
    let two = [KEY_UPDATE, KEY_UPDATE].concat();
    let cases: [&[(ContentType, &[u8])]; 6] = [
        &[(ContentType::Handshake, &unexpected)],
        &[(ContentType::Handshake, &two)],
        &[(ContentType::Handshake, &two[..7])],
        &[(ContentType::Handshake, &KEY_UPDATE[..3]), (ContentType::ApplicationData, b"between")],
        &[(ContentType::Handshake, &[24, 1, 0, 0])],
        &[(ContentType::Alert, &[7, 7])],
    ];
    for records in cases {
        let (mut client, mut rogue) = Rogue::pair(&TLS13).await;
        rogue.send(ContentType::ApplicationData, b"in order").await;
        for (typ, payload) in records {
            rogue.send(*typ, payload).await;
        }
        rogue.send(ContentType::ApplicationData, b"after it").await;
        let mut buffer = [0; 100];
        let count = within(client.read(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[..count], b"in order");
        let error = within(client.read(&mut buffer)).await.unwrap_err();
        let first = cause::find::<rustls::Error>(&error).unwrap_or_else(|| panic!("{records:?}: {error}"));
        for _ in 0..2 {
            let error = within(client.read(&mut buffer)).await.unwrap_err();
            assert_eq!(cause::find::<rustls::Error>(&error), Some(first), "{records:?}");
            let error = within(client.write(b"more")).await.unwrap_err();
            assert_eq!(cause::find::<rustls::Error>(&error), Some(first), "{records:?}");
        }
        within(client.shutdown()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_bring_nothing_do_not_go_on_for_ever() {
    for version in VERSIONS {
        let (mut client, mut rogue) = Rogue::pair(version).await;
        for _ in 0..20 {
            rogue.send(ContentType::ApplicationData, b"").await;
        }
        rogue.send(ContentType::ApplicationData, b"x").await;
        for _ in 0..40 {
            rogue.send(ContentType::ApplicationData, b"").await;
        }
        let mut buffer = [0; 100];
        assert_eq!(within(client.read(&mut buffer)).await.unwrap(), 1, "an empty record is no end");
        let error = within(client.read(&mut buffer)).await.unwrap_err();
        let expected = rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments);
        assert_eq!(cause::find::<rustls::Error>(&error), Some(&expected));
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_end_is_not_read() {
    for version in VERSIONS {
        let (mut client, mut rogue) = Rogue::pair(version).await;
        rogue.send(ContentType::ApplicationData, b"in order").await;
        rogue.send(ContentType::Alert, &[1, 0]).await;
        rogue.send(ContentType::ApplicationData, b"after it").await;
        let mut received = Vec::new();
        within(client.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"in order");
        client.write_all(b"the other way is open").await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
        client.shutdown().await.unwrap();
        assert!(client.plaintext.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_negotiate_anew_is_refused_once_and_ends_the_connection_then() {
    let (mut client, mut rogue) = Rogue::pair(&TLS12).await;
    let hello_request = [0; 4];
    rogue.send(ContentType::Handshake, &hello_request).await;
    rogue.send(ContentType::ApplicationData, b"x").await;
    let mut byte = [0];
    within(client.read_exact(&mut byte)).await.unwrap();
    let mut said = [0; 100];
    let count = within(rogue.io.read(&mut said)).await.unwrap();
    assert_eq!((count, said[0]), (5 + 8 + 2 + 16, 21), "an alert, encrypted");
    rogue.send(ContentType::Handshake, &hello_request).await;
    let error = within(client.read(&mut byte)).await.unwrap_err();
    let expected = rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests);
    assert_eq!(cause::find::<rustls::Error>(&error), Some(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_message_in_many_records_is_waited_for_while_we_write() {
    let (mut client, mut rogue) = Rogue::pair(&TLS13).await;
    let mut ticket = vec![4, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 30];
    ticket.extend([7; 30]);
    ticket.extend([0, 0]);
    ticket[3] = (ticket.len() - 4) as u8;
    for part in ticket.chunks(10) {
        rogue.send(ContentType::Handshake, part).await;
        let mut byte = [0];
        assert!(timeout(Duration::ZERO, client.read(&mut byte)).await.is_err());
        client.write_all(b"meanwhile").await.unwrap();
    }
    rogue.send(ContentType::ApplicationData, b"x").await;
    let mut byte = [0];
    within(client.read_exact(&mut byte)).await.unwrap();
    assert_eq!(byte, *b"x");
    assert_eq!(client.tls.tls13_tickets_received(), 2 + 1, "two of the server, and this one");
}

#[tokio::test(start_paused = true)]
async fn new_keys_of_the_server_go_unnoticed() {
    for width in [37, WIDE] {
        let party = party(&TLS13);
        let (near, far) = duplex(width);
        let client = async {
            let (reader, writer) = split(party.connect(near).await.unwrap());
            let habits = Habits { pieces: vec![10_000; 6], vectored: false, read: 700 };
            let ((received, _), _) = tokio::join!(read(reader, habits.read), write(writer, habits));
            assert!(received == content(60_000));
        };
        let server = async {
            let mut server = party.accept(far).await.unwrap();
            let sent = content(60_000);
            let mut received = vec![0; 60_000];
            for (sent, received) in sent.chunks(10_000).zip(received.chunks_mut(10_000)) {
                server.get_mut().1.refresh_traffic_keys().unwrap();
                server.write_all(&sent[..5000]).await.unwrap();
                server.get_mut().1.refresh_traffic_keys().unwrap();
                server.write_all(&sent[5000..]).await.unwrap();
                server.flush().await.unwrap();
                server.read_exact(received).await.unwrap();
            }
            server.shutdown().await.unwrap();
            assert!(received == sent);
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        };
        within(async { tokio::join!(client, server) }).await;
    }
}

/// Exchanges a byte each way.
async fn exchange(client: &mut Client, server: &mut Server) {
    let mut byte = [0];
    within(async {
        client.write_all(b"q").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut byte).await.unwrap();
        server.write_all(b"a").await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn tickets_go_unnoticed_and_a_second_connection_resumes_the_session() {
    for version in VERSIONS {
        let mut party = party(version);
        party.server.send_tls13_tickets = 8;
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (mut client, mut server) = party.pair().await;
            exchange(&mut client, &mut server).await;
            assert_eq!(server.get_ref().1.handshake_kind(), Some(kind));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_certificate_in_small_records_is_taken() {
    let mut names: Vec<String> = (0..1500).map(|number| format!("a-rather-long-name-{number}.test")).collect();
    names.push(NAME.to_owned());
    for version in VERSIONS {
        let mut party = party_named(version, names.clone());
        for (fragment, width) in [(None, WIDE), (Some(512), WIDE), (Some(512), 37), (Some(100), 1000)] {
            party.server.max_fragment_size = fragment;
            let habits = Habits { pieces: vec![3000], vectored: false, read: 100 };
            check_both_ways(&party, width, habits).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_protocol_that_was_agreed_on_is_told() {
    for version in VERSIONS {
        let mut party = party(version);
        party.client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        for (offered, agreed) in [(vec![], None), (vec![b"http/1.1".to_vec()], Some(&b"http/1.1"[..]))] {
            party.server.alpn_protocols = offered;
            let (client, _server) = party.pair().await;
            assert_eq!(client.alpn_protocol(), agreed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_keeps_no_memory() {
    for version in VERSIONS {
        let party = party(version);
        let (near, far) = duplex(10_000);
        let client = async {
            let mut client = party.connect(near).await.unwrap();
            client.write_all(&content(50_000)).await.unwrap();
            client.flush().await.unwrap();
            let mut received = vec![0; 100];
            for _ in 0..500 {
                client.read_exact(&mut received).await.unwrap();
            }
            client
        };
        let server = async {
            let mut server = party.accept(far).await.unwrap();
            let mut received = vec![0; 50_000];
            server.read_exact(&mut received).await.unwrap();
            server.write_all(&received).await.unwrap();
            server.flush().await.unwrap();
            server
        };
        let (client, _server) = within(async { tokio::join!(client, server) }).await;
        let kept = [&client.incoming, &client.plaintext.bytes, &client.outgoing.bytes].map(Vec::capacity);
        assert_eq!(kept, [0; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_go_through_another_one() {
    let (outer, inner) = (party(&TLS12), party(&TLS13));
    for width in [37, 1000] {
        let (near, far) = duplex(width);
        let habits = Habits { pieces: PIECES[..4].to_vec(), vectored: true, read: 5000 };
        let client =
            async { talk(inner.connect(outer.connect(near).await.unwrap()).await.unwrap(), habits.clone()).await };
        let server =
            async { talk(inner.accept(outer.accept(far).await.unwrap()).await.unwrap(), habits.clone()).await };
        within(async { tokio::join!(client, server) }).await;
    }
}
