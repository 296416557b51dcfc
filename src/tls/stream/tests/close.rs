//! Closing connections.

use super::*;

#[tokio::test(start_paused = true)]
async fn close_notify_is_an_end_of_file() {
    for version in VERSIONS {
        let (mut client, mut server) = test_pair(version).connect_both().await;
        server.write_all(b"all").await.unwrap();
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        assert_eq!(with_timeout(client.read_to_end(&mut received)).await.unwrap(), 3);
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "the end of file is permanent");
        client.write_all(b"the other way is open").await.unwrap();
        client.shutdown().await.unwrap();
        received.clear();
        with_timeout(server.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"the other way is open");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_close_notify_is_an_error_after_the_plaintext() {
    for version in VERSIONS {
        let (mut client, server) = test_pair(version).connect_both().await;
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
        let (mut client, server) = test_pair(version).connect_both().await;
        drop(server);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "between two records");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_during_the_handshake_is_an_error() {
    let (near, far) = duplex(WIDE_PIPE);
    drop(far);
    assert!(test_pair(&TLS13).connect(near).await.is_err());
    let (near, mut far) = duplex(WIDE_PIPE);
    far.shutdown().await.unwrap();
    assert_eq!(test_pair(&TLS13).connect(near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn shutdown_sends_close_notify_and_rejects_later_writes() {
    for version in VERSIONS {
        let (mut client, mut server) = test_pair(version).connect_both().await;
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        assert_eq!(with_timeout(server.read_to_end(&mut received)).await.unwrap(), 3, "a clean end");
        assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        client.flush().await.unwrap();
        server.write_all(b"response").await.unwrap();
        server.shutdown().await.unwrap();
        received.clear();
        with_timeout(client.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"response");
        assert!(client.write(b"more").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_flushes_pending_data() {
    for version in VERSIONS {
        let mut test_pair = test_pair(version);
        // The server would block until the tickets are read, and this client does not read.
        test_pair.server.send_tls13_tickets = 0;
        let (near, far) = duplex(10);
        let client = async {
            let mut client = test_pair.connect(near).await.unwrap();
            assert_eq!(client.write(&content(30_000)).await.unwrap(), 30_000);
            client.shutdown().await.unwrap();
            assert!(client.outgoing.is_empty());
        };
        let server = async {
            let mut received = Vec::new();
            test_pair.accept(far).await.unwrap().read_to_end(&mut received).await.unwrap();
            assert!(received == content(30_000));
        };
        with_timeout(async { tokio::join!(client, server) }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_shutdown_rejects_later_writes() {
    for version in VERSIONS {
        let (near, far) = duplex(10_000);
        let (client, server) = test_pair(version).handshake(near, far).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        client.write_all(&content(12_000)).await.unwrap();
        assert!(timeout(Duration::ZERO, client.shutdown()).await.is_err(), "the pipe is full");
        assert!(timeout(Duration::ZERO, server.read(&mut [0; 9])).await.is_err(), "drains the pipe");
        assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        client.shutdown().await.unwrap();
        let mut received = Vec::new();
        with_timeout(server.read_to_end(&mut received)).await.unwrap();
        assert!(received == content(12_000));
    }
}

#[tokio::test(start_paused = true)]
async fn data_of_a_server_that_stopped_reading_is_read() {
    for version in VERSIONS {
        let (near, far) = duplex(100_000);
        let (client, server) = test_pair(version).handshake(near, far).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        for _ in 0..2 {
            client.write_all(&content(64 * 1024)).await.unwrap();
        }
        assert!(!client.outgoing.is_empty(), "some of it is unsent");
        server.write_all(b"too large").await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"too large");
        assert_eq!(client.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

/// A pipe that breaks after `remaining` more bytes are written.
struct BreakingPipe {
    pipe: DuplexStream,
    remaining: usize,
}

impl AsyncRead for BreakingPipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for BreakingPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.remaining);
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.remaining -= count;
        Pin::new(&mut self.pipe).poll_write(cx, &bytes[..count])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_error_after_a_partial_write_fails_the_next_write() {
    for (remaining, is_written) in [(0, false), (1, true), (20_000, true)] {
        let test_pair = test_pair(&TLS13);
        let (near, far) = duplex(WIDE_PIPE);
        let connecting = async {
            let near = BreakingPipe { pipe: near, remaining: usize::MAX };
            tokio::join!(test_pair.connect(near), test_pair.accept(far))
        };
        let (client, _server) = with_timeout(connecting).await;
        let mut client = client.unwrap();
        client.io.remaining = remaining;
        let written = client.write(&content(30_000)).await;
        assert_eq!(written.is_ok(), is_written, "{remaining}");
        assert_eq!(
            client.flush().await.err().map(|error| error.kind()),
            is_written.then_some(io::ErrorKind::BrokenPipe)
        );
    }
}
