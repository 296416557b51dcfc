//! Connections that stall, are truncated or close, as a client sees them.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{
    super::{framed_reader::ReaderStatus, head_budget::HeadBudget},
    *,
};
use crate::message::framing::HeadLimits;

const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };

async fn pair(write_timeout: Duration) -> (DownstreamIo, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (downstream_io(listener.accept().await.unwrap().0, write_timeout), client)
}

fn downstream_io(stream: TcpStream, write_timeout: Duration) -> DownstreamIo {
    let head_share = HeadBudget::new(usize::MAX, Arc::default()).share();
    let reader =
        FramedReader::new(LIMITS, Duration::from_secs(60), ReaderStatus::default(), SlotState::detached(), head_share);
    DownstreamIo::new(Downstream::new(SocketStream::Tcp(stream), reader), write_timeout, Reclaim::default())
}

#[tokio::test]
async fn a_write_fails_when_the_client_stops_reading() {
    let (mut io, _client) = pair(Duration::from_millis(50)).await;
    let error = io.write_all(&vec![0; 64 * 1024 * 1024]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn g07_a_client_that_closes_during_its_request_is_detected() {
    let (mut io, mut client) = pair(Duration::from_secs(60)).await;
    let request = b"GET / HTTP/1.1\r\n\r\n";
    client.write_all(request).await.unwrap();
    assert_eq!(io.read(&mut [0; 1000]).await.unwrap(), request.len());
    io.flush().await.unwrap();
    let mut failed = tokio::spawn(async move { poll_fn(|cx| failure(&mut io, cx)).await });
    assert!(timeout(Duration::ZERO, &mut failed).await.is_err(), "the client is still connected");
    drop(client);
    assert_eq!(failed.await.unwrap(), io::ErrorKind::ConnectionAborted);
}

/// Waits until flushing fails.
fn failure(stream: &mut DownstreamIo, cx: &mut Context<'_>) -> Poll<io::ErrorKind> {
    match Pin::new(stream).poll_flush(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(error.kind()),
        _ => Poll::Pending,
    }
}

#[tokio::test]
async fn flush_does_not_report_an_eof_that_a_reader_will_see() {
    for sent in ["GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", ""] {
        let (mut io, mut client) = pair(Duration::from_secs(60)).await;
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut buffer = [0; 18];
        let reading = timeout(Duration::ZERO, io.read(&mut buffer)).await;
        assert_eq!(reading.is_ok(), !sent.is_empty(), "{sent:?}");
        client.shutdown().await.unwrap();
        // The EOF has arrived: behind what was sent, in the middle of a message, or while a read is pending.
        io.downstream().socket.readable().await.unwrap();
        io.flush().await.unwrap();
    }
}

#[tokio::test]
async fn g06_a_response_survives_unserved_pipelined_requests() {
    let (mut io, mut client) = pair(Duration::from_secs(60)).await;
    let request = b"GET / HTTP/1.1\r\n\r\n";
    client.write_all(request).await.unwrap();
    assert_eq!(io.read(&mut [0; 1000]).await.unwrap(), request.len());
    // One request arrives before the close and is never read, the other one after it.
    client.write_all(request).await.unwrap();
    io.write_all(b"response").await.unwrap();
    let closing = tokio::spawn(reclaimed(io).close());
    let mut response = [0; 8];
    client.read_exact(&mut response).await.unwrap();
    client.write_all(request).await.unwrap();
    assert_eq!(client.read(&mut response[..1]).await.unwrap(), 0, "EOF, and no reset");
    assert_eq!(&response, b"response");
    drop(client);
    closing.await.unwrap();
}

fn reclaimed(stream: DownstreamIo) -> Downstream {
    let reclaimed = stream.reclaim.clone();
    drop(stream);
    reclaimed.take().unwrap()
}

#[tokio::test]
async fn only_a_connection_with_a_truncated_response_is_reset() {
    for (truncated, expected) in [(false, None), (true, Some(io::ErrorKind::ConnectionReset))] {
        let (mut io, mut client) = pair(Duration::from_secs(60)).await;
        io.write_all(b"half").await.unwrap();
        let mut half = [0; 4];
        client.read_exact(&mut half).await.unwrap();
        if truncated {
            reclaimed(io).reset();
        } else {
            reclaimed(io).close().await;
        }
        assert_eq!(client.read_to_end(&mut Vec::new()).await.err().map(|error| error.kind()), expected);
    }
}

#[tokio::test]
async fn g06_a_slowly_read_response_survives_requests_sent_meanwhile() {
    const RESPONSE_BYTES: usize = 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // So small that most of the response is buffered on the server's side, where a reset would drop it.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
    let mut io = downstream_io(listener.accept().await.unwrap().0, Duration::from_secs(60));
    let closing = tokio::spawn(async move {
        io.write_all(&vec![b'x'; RESPONSE_BYTES]).await.unwrap();
        reclaimed(io).close().await;
    });
    let (mut response, mut part) = (0, vec![0; 8 * 1024]);
    loop {
        // It fails once the connection is closed; the response must have arrived by then.
        let _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        match client.read(&mut part).await.unwrap() {
            0 => break,
            read => response += read,
        }
    }
    assert_eq!(response, RESPONSE_BYTES);
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn g06_a_response_survives_a_request_that_is_not_fully_read() {
    let (mut io, mut client) = pair(Duration::from_secs(60)).await;
    client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
    assert!(io.read(&mut [0; 1000]).await.unwrap() > 0);
    client.write_all(&[0; 300_000]).await.unwrap();
    io.write_all(b"response").await.unwrap();
    let closing = tokio::spawn(reclaimed(io).close());
    client.write_all(&[0; 300_000]).await.unwrap();
    let mut response = Vec::new();
    client.read_to_end(&mut response).await.unwrap();
    assert_eq!(response, b"response");
    drop(client);
    closing.await.unwrap();
}
