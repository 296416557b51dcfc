//! Data in both directions, and the memory that a connection holds.

use super::*;

#[tokio::test(start_paused = true)]
async fn data_is_complete_in_both_directions_at_any_pipe_size() {
    for version in VERSIONS {
        let test_pair = test_pair(version);
        for (width, vectored) in [(1, true), (7, false), (37, true), (1000, true), (1 << 18, false), (1 << 18, true)] {
            // With a narrow pipe, the server makes a record of every few bytes that fit into its buffer, so send less.
            let write_sizes = if width < 1000 { WRITE_SIZES[..4].to_vec() } else { WRITE_SIZES.to_vec() };
            check_both_directions(&test_pair, width, IoPattern { write_sizes, vectored, read_size: 16 * 1024 }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reads_of_any_size_lose_no_data() {
    for version in VERSIONS {
        for size in [1, 100, 16 * 1024, 64 * 1024, 300 * 1024] {
            let pattern = IoPattern { write_sizes: WRITE_SIZES.to_vec(), vectored: false, read_size: size };
            check_both_directions(&test_pair(version), WIDE_PIPE, pattern).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn data_is_complete_in_both_directions_at_any_size(
        newer in any::<bool>(),
        width in prop_oneof![20..1000_usize, 1000..100_000_usize],
        write_sizes in proptest::collection::vec(prop_oneof![0..100_usize, 0..40_000_usize], 0..8),
        vectored in any::<bool>(),
        read_size in prop_oneof![1..100_usize, 100..100_000_usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let test_pair = test_pair(VERSIONS[usize::from(newer)]);
        runtime.block_on(check_both_directions(&test_pair, width, IoPattern { write_sizes, vectored, read_size }));
    }
}

#[tokio::test(start_paused = true)]
async fn one_read_returns_several_records() {
    for version in VERSIONS {
        let (mut client, mut server) = test_pair(version).connect_both().await;
        let sent = content(50_000);
        server.write_all(&sent).await.unwrap();
        server.flush().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let count = client.read(&mut buffer).await.unwrap();
        assert!(buffer[..count] == sent, "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn vectored_writes_with_many_slices_are_complete() {
    for version in VERSIONS {
        for (count, length) in [(64, 1024), (1000, 65), (3, 40_000), (200, 0), (16, 1024)] {
            let (mut client, mut server) = test_pair(version).connect_both().await;
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
            with_timeout(server.read_to_end(&mut received)).await.unwrap();
            assert!(received == sent, "{count} of {length}");
        }
    }
}

/// Whether a task was woken.
#[derive(Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_does_not_replace_the_waker_of_a_writer() {
    let (near, far) = duplex(10_000);
    let (client, server) = test_pair(&TLS13).handshake(near, far).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    client.write_all(&content(30_000)).await.unwrap();
    let (reader, writer) = (Arc::new(WakeFlag::default()), Arc::new(WakeFlag::default()));
    let flushed = Pin::new(&mut client).poll_flush(&mut Context::from_waker(&Arc::clone(&writer).into()));
    assert!(flushed.is_pending());
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    let mut buffer = [0; 9];
    let mut buffer = ReadBuf::new(&mut buffer);
    for pending in [false, true] {
        let reader = Arc::clone(&reader).into();
        let read = Pin::new(&mut client).poll_read(&mut Context::from_waker(&reader), &mut buffer);
        assert_eq!(read.is_pending(), pending);
    }
    assert_eq!(buffer.filled(), b"x");
    // The pipe is drained, but the record is incomplete.
    assert!(timeout(Duration::ZERO, server.read(&mut [0; 9])).await.is_err());
    assert!(writer.0.load(Relaxed), "the pipe has room again");
    assert!(!reader.0.load(Relaxed), "nothing has arrived");
}

#[tokio::test(start_paused = true)]
async fn key_updates_of_the_server_are_transparent() {
    for width in [37, WIDE_PIPE] {
        let test_pair = test_pair(&TLS13);
        let (near, far) = duplex(width);
        let client = async {
            let (reader, writer) = split(test_pair.connect(near).await.unwrap());
            let pattern = IoPattern { write_sizes: vec![10_000; 6], vectored: false, read_size: 700 };
            let ((received, _), _) = tokio::join!(read(reader, pattern.read_size), write(writer, pattern));
            assert!(received == content(60_000));
        };
        let server = async {
            let mut server = test_pair.accept(far).await.unwrap();
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
        with_timeout(async { tokio::join!(client, server) }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_buffer_memory() {
    for version in VERSIONS {
        let test_pair = test_pair(version);
        let (near, far) = duplex(10_000);
        let client = async {
            let mut client = test_pair.connect(near).await.unwrap();
            client.write_all(&content(50_000)).await.unwrap();
            client.flush().await.unwrap();
            let mut received = vec![0; 100];
            for _ in 0..500 {
                client.read_exact(&mut received).await.unwrap();
            }
            client
        };
        let server = async {
            let mut server = test_pair.accept(far).await.unwrap();
            let mut received = vec![0; 50_000];
            server.read_exact(&mut received).await.unwrap();
            server.write_all(&received).await.unwrap();
            server.flush().await.unwrap();
            server
        };
        let (client, _server) = with_timeout(async { tokio::join!(client, server) }).await;
        let capacities = [&client.incoming, &client.plaintext.bytes, &client.outgoing.bytes].map(Vec::capacity);
        assert_eq!(capacities, [0; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_run_over_another_one() {
    let (outer, inner) = (test_pair(&TLS12), test_pair(&TLS13));
    for width in [37, 1000] {
        let (near, far) = duplex(width);
        let pattern = IoPattern { write_sizes: WRITE_SIZES[..4].to_vec(), vectored: true, read_size: 5000 };
        let client = async {
            write_and_read(inner.connect(outer.connect(near).await.unwrap()).await.unwrap(), pattern.clone()).await
        };
        let server = async {
            write_and_read(inner.accept(outer.accept(far).await.unwrap()).await.unwrap(), pattern.clone()).await
        };
        with_timeout(async { tokio::join!(client, server) }).await;
    }
}
