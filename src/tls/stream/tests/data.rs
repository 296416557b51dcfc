//! Data, both ways, and what a connection keeps of it.

use super::*;

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
