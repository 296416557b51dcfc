//! Handshakes.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_untrusted_certificate_is_rejected_with_an_alert() {
    for version in VERSIONS {
        let (ours, theirs) = (test_pair(version), test_pair(version));
        let unknown = TestPair { client: ours.client, server: theirs.server };
        for test_pair in [unknown, test_pair_with_names(version, vec!["other.test".to_owned()])] {
            for width in [7, WIDE_PIPE] {
                let (near, far) = duplex(width);
                let (client, server) = test_pair.handshake(near, far).await;
                let (client, server) = (client.unwrap_err(), server.unwrap_err());
                let error = error_chain::find::<rustls::Error>(&client).unwrap();
                assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
                if width == WIDE_PIPE {
                    // With a narrow pipe, the client does not wait until the alert is sent.
                    let alert = error_chain::find::<rustls::Error>(&server).unwrap();
                    assert!(matches!(alert, rustls::Error::AlertReceived(_)), "{alert}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_common_protocol_version_is_an_error() {
    let test_pair = TestPair { client: test_pair(&TLS13).client, server: test_pair(&TLS12).server };
    let (near, far) = duplex(WIDE_PIPE);
    let (client, _) = test_pair.handshake(near, far).await;
    let alert = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_eq!(error_chain::find::<rustls::Error>(&client.unwrap_err()), Some(&alert));
}

#[tokio::test(start_paused = true)]
async fn garbage_instead_of_a_handshake_is_an_error() {
    let cases: [(&[u8], InvalidMessage); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", InvalidMessage::InvalidContentType),
        (&[22, 3, 3, 0xff, 0xff, 2], InvalidMessage::MessageTooLarge),
        (&[22, 3, 3, 0, 0], InvalidMessage::InvalidEmptyPayload),
    ];
    for (response, expected) in cases {
        let (near, mut far) = duplex(WIDE_PIPE);
        far.write_all(response).await.unwrap();
        let error = with_timeout(test_pair(&TLS13).connect(near)).await.unwrap_err();
        let error = error_chain::find::<rustls::Error>(&error).unwrap();
        assert_eq!(*error, rustls::Error::InvalidMessage(expected));
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent[sent.len() - 7..], [21, 3, 3, 0, 2, 2, 50], "a decode_error alert, after the ClientHello");
    }
}

#[tokio::test(start_paused = true)]
async fn the_size_of_a_handshake_message_is_limited() {
    let (near, mut far) = duplex(WIDE_PIPE);
    // A ServerHello of 65535 bytes, in records of one byte.
    let hello = [2, 0, 0xff, 0xff].into_iter().chain([0; 30_000]);
    let records: Vec<u8> = hello.flat_map(|byte| [22, 3, 3, 0, 1, byte]).collect();
    far.write_all(&records).await.unwrap();
    let error = with_timeout(test_pair(&TLS13).connect(near)).await.unwrap_err();
    assert_eq!(error_chain::one_line(&error), "incomplete TLS message exceeds the size limit");
}

/// Exchanges a byte each way.
async fn exchange(client: &mut Client, server: &mut Server) {
    let mut byte = [0];
    with_timeout(async {
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
async fn tickets_are_stored_and_the_next_connection_resumes() {
    for version in VERSIONS {
        let mut test_pair = test_pair(version);
        test_pair.server.send_tls13_tickets = 8;
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (mut client, mut server) = test_pair.connect_both().await;
            exchange(&mut client, &mut server).await;
            assert_eq!(server.get_ref().1.handshake_kind(), Some(kind));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_certificate_in_small_records_is_accepted() {
    let mut names: Vec<String> = (0..1500).map(|number| format!("a-rather-long-name-{number}.test")).collect();
    names.push(NAME.to_owned());
    for version in VERSIONS {
        let mut test_pair = test_pair_with_names(version, names.clone());
        for (fragment, width) in [(None, WIDE_PIPE), (Some(512), WIDE_PIPE), (Some(512), 37), (Some(100), 1000)] {
            test_pair.server.max_fragment_size = fragment;
            let pattern = IoPattern { write_sizes: vec![3000], vectored: false, read_size: 100 };
            check_both_directions(&test_pair, width, pattern).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_negotiated_alpn_protocol_is_returned() {
    for version in VERSIONS {
        let mut test_pair = test_pair(version);
        test_pair.client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        for (offered, agreed) in [(vec![], None), (vec![b"http/1.1".to_vec()], Some(&b"http/1.1"[..]))] {
            test_pair.server.alpn_protocols = offered;
            let (client, _server) = test_pair.connect_both().await;
            assert_eq!(client.alpn_protocol(), agreed);
        }
    }
}
