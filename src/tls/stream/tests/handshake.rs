//! Handshakes, and what comes of them.

use super::*;

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
                let refused = error_chain::find::<rustls::Error>(&client).unwrap();
                assert!(matches!(refused, rustls::Error::InvalidCertificate(_)), "{refused}");
                if width == WIDE {
                    // Nobody waits for a narrow pipe to take the alert.
                    let told = error_chain::find::<rustls::Error>(&server).unwrap();
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
    assert_eq!(error_chain::find::<rustls::Error>(&client.unwrap_err()), Some(&alert));
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
        let error = error_chain::find::<rustls::Error>(&error).unwrap();
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
    assert_eq!(error_chain::one_line(&error), "a message of TLS does not end");
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
