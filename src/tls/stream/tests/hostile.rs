//! Servers that violate the protocol, with or without the keys of the connection.

use super::*;

/// The result of `tls` for everything that the client sent.
async fn receive_all(tls: &mut ServerConnection, mut io: DuplexStream) -> Result<(), rustls::Error> {
    let mut sent = Vec::new();
    io.read_to_end(&mut sent).await.unwrap();
    let mut sent = sent.as_slice();
    while !sent.is_empty() {
        tls.read_tls(&mut sent).unwrap();
        tls.process_new_packets()?;
    }
    Ok(())
}

/// Sends a record with `damage`, and asserts that the connection has failed: neither that record nor later data is read, writes fail, and
/// the server receives `alert`.
async fn check_damaged_record(
    (mut client, server): (Client, Server),
    damage: impl FnOnce(&mut Vec<u8>),
    expected: rustls::Error,
    alert: AlertDescription,
) {
    let (mut io, mut tls) = server.into_inner();
    let mut damaged = ciphertext(&mut tls, b"damaged");
    damage(&mut damaged);
    let valid = ciphertext(&mut tls, b"in order");
    io.write_all(&damaged).await.unwrap();
    io.write_all(&valid).await.unwrap();
    for _ in 0..3 {
        let error = with_timeout(client.read(&mut [0; 100])).await.unwrap_err();
        assert_eq!(error_chain::find::<rustls::Error>(&error), Some(&expected));
        let error = with_timeout(client.write(b"more")).await.unwrap_err();
        assert_eq!(error_chain::find::<rustls::Error>(&error), Some(&expected));
    }
    drop(client);
    assert_eq!(receive_all(&mut tls, io).await, Err(rustls::Error::AlertReceived(alert)));
}

#[tokio::test(start_paused = true)]
async fn a_tampered_record_closes_the_connection_with_an_alert() {
    for version in VERSIONS {
        for at in [5, 12, 20] {
            let damage = |record: &mut Vec<u8>| record[at] ^= 0x10;
            let expected = rustls::Error::DecryptError;
            check_damaged_record(
                test_pair(version).connect_both().await,
                damage,
                expected,
                AlertDescription::BadRecordMac,
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_record_header_closes_the_connection_with_an_alert() {
    for version in VERSIONS {
        let too_long = [23, 3, 3, 0x48, 0x01];
        for (header, expected) in
            [(too_long, InvalidMessage::MessageTooLarge), (*b"HTTP/", InvalidMessage::InvalidContentType)]
        {
            let damage = |record: &mut Vec<u8>| record[..5].copy_from_slice(&header);
            let expected = rustls::Error::InvalidMessage(expected);
            check_damaged_record(
                test_pair(version).connect_both().await,
                damage,
                expected,
                AlertDescription::DecodeError,
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn plaintext_before_a_tampered_record_is_read_with_any_buffer() {
    for version in VERSIONS {
        for size in [1, 3, 100] {
            let (mut client, server) = test_pair(version).connect_both().await;
            let (mut io, mut tls) = server.into_inner();
            let mut records = ciphertext(&mut tls, b"in order");
            records.extend(ciphertext(&mut tls, b"damaged"));
            *records.last_mut().unwrap() ^= 1;
            io.write_all(&records).await.unwrap();
            let mut received = Vec::new();
            let mut buffer = vec![0; size];
            let error = loop {
                match with_timeout(client.read(&mut buffer)).await {
                    Ok(0) => panic!("unexpected end of file"),
                    Ok(count) => received.extend_from_slice(&buffer[..count]),
                    Err(error) => break error,
                }
            };
            assert_eq!(received, b"in order");
            assert_eq!(error_chain::find::<rustls::Error>(&error), Some(&rustls::Error::DecryptError));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn arbitrary_bytes_are_never_read_as_plaintext_or_an_end(
        newer in any::<bool>(),
        records in proptest::collection::vec((20..24_u8, proptest::collection::vec(any::<u8>(), 1..60)), 1..4),
        length in 3..70_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = test_pair(VERSIONS[usize::from(newer)]).connect_both().await;
            let (mut io, _) = server.into_inner();
            let mut bytes: Vec<u8> = records
                .into_iter()
                .flat_map(|(typ, body)| [&[typ, 3, 3, 0, body.len() as u8], body.as_slice()].concat())
                .collect();
            bytes.truncate(length);
            io.write_all(&bytes).await.unwrap();
            drop(io);
            for _ in 0..3 {
                with_timeout(client.read(&mut [0; 100])).await.unwrap_err();
            }
            // The other end of the pipe is closed.
            with_timeout(client.shutdown()).await.unwrap_err();
        });
    }
}

/// A server that has the keys of the connection and ignores the protocol.
struct RogueServer {
    io: DuplexStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl RogueServer {
    async fn connect(version: &'static SupportedProtocolVersion) -> (Client, Self) {
        let mut test_pair = test_pair(version);
        test_pair.server.enable_secret_extraction = true;
        let (client, server) = test_pair.connect_both().await;
        let (io, tls) = server.into_inner();
        let suite = tls.negotiated_cipher_suite().unwrap();
        let (sequence, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("unknown cipher");
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

/// A TLS 1.3 key update that requests none in return.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

#[tokio::test(start_paused = true)]
async fn an_invalid_handshake_message_closes_the_connection() {
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
        let (mut client, mut server) = RogueServer::connect(&TLS13).await;
        server.send(ContentType::ApplicationData, b"in order").await;
        for (typ, payload) in records {
            server.send(*typ, payload).await;
        }
        server.send(ContentType::ApplicationData, b"after it").await;
        let mut buffer = [0; 100];
        let count = with_timeout(client.read(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[..count], b"in order");
        let error = with_timeout(client.read(&mut buffer)).await.unwrap_err();
        let first = error_chain::find::<rustls::Error>(&error).unwrap_or_else(|| panic!("{records:?}: {error}"));
        for _ in 0..2 {
            let error = with_timeout(client.read(&mut buffer)).await.unwrap_err();
            assert_eq!(error_chain::find::<rustls::Error>(&error), Some(first), "{records:?}");
            let error = with_timeout(client.write(b"more")).await.unwrap_err();
            assert_eq!(error_chain::find::<rustls::Error>(&error), Some(first), "{records:?}");
        }
        with_timeout(client.shutdown()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_empty_records_is_limited() {
    for version in VERSIONS {
        let (mut client, mut server) = RogueServer::connect(version).await;
        for _ in 0..20 {
            server.send(ContentType::ApplicationData, b"").await;
        }
        server.send(ContentType::ApplicationData, b"x").await;
        for _ in 0..40 {
            server.send(ContentType::ApplicationData, b"").await;
        }
        let mut buffer = [0; 100];
        assert_eq!(with_timeout(client.read(&mut buffer)).await.unwrap(), 1, "an empty record is not an end of file");
        let error = with_timeout(client.read(&mut buffer)).await.unwrap_err();
        let expected = rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments);
        assert_eq!(error_chain::find::<rustls::Error>(&error), Some(&expected));
    }
}

#[tokio::test(start_paused = true)]
async fn data_after_close_notify_is_not_read() {
    for version in VERSIONS {
        let (mut client, mut server) = RogueServer::connect(version).await;
        server.send(ContentType::ApplicationData, b"in order").await;
        server.send(ContentType::Alert, &[1, 0]).await;
        server.send(ContentType::ApplicationData, b"after it").await;
        let mut received = Vec::new();
        with_timeout(client.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"in order");
        client.write_all(b"the other way is open").await.unwrap();
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
        client.shutdown().await.unwrap();
        assert!(client.plaintext.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn renegotiation_is_rejected_and_a_second_request_is_an_error() {
    let (mut client, mut server) = RogueServer::connect(&TLS12).await;
    let hello_request = [0; 4];
    server.send(ContentType::Handshake, &hello_request).await;
    server.send(ContentType::ApplicationData, b"x").await;
    let mut byte = [0];
    with_timeout(client.read_exact(&mut byte)).await.unwrap();
    let mut sent = [0; 100];
    let count = with_timeout(server.io.read(&mut sent)).await.unwrap();
    assert_eq!((count, sent[0]), (5 + 8 + 2 + 16, 21), "an encrypted alert");
    server.send(ContentType::Handshake, &hello_request).await;
    let error = with_timeout(client.read(&mut byte)).await.unwrap_err();
    let expected = rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests);
    assert_eq!(error_chain::find::<rustls::Error>(&error), Some(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_message_in_many_records_does_not_block_writes() {
    let (mut client, mut server) = RogueServer::connect(&TLS13).await;
    let mut ticket = vec![4, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 30];
    ticket.extend([7; 30]);
    ticket.extend([0, 0]);
    ticket[3] = (ticket.len() - 4) as u8;
    for part in ticket.chunks(10) {
        server.send(ContentType::Handshake, part).await;
        let mut byte = [0];
        assert!(timeout(Duration::ZERO, client.read(&mut byte)).await.is_err());
        client.write_all(b"meanwhile").await.unwrap();
    }
    server.send(ContentType::ApplicationData, b"x").await;
    let mut byte = [0];
    with_timeout(client.read_exact(&mut byte)).await.unwrap();
    assert_eq!(byte, *b"x");
    assert_eq!(client.tls.tls13_tickets_received(), 2 + 1, "two from the server, and this one");
}
